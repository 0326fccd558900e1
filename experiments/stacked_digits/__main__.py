"""``python -m experiments.stacked_digits``"""

from experiments.stacked_digits.run import main

main()
