"""``python -m experiments.subjects``"""

from experiments.subjects.run import main

main()
