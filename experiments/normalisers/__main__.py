"""``python -m experiments.normalisers``"""

from experiments.normalisers.run import main

main()
