"""See ``experiments.subjects``."""

from experiments.subjects.run import main

if __name__ == "__main__":
    main()
