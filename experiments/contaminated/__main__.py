"""``python -m experiments.contaminated``"""

from experiments.contaminated.run import main

main()
