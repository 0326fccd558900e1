"""``python -m experiments.posteriors``"""

from experiments.posteriors.run import main

main()
