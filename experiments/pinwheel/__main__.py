"""``python -m experiments.pinwheel``"""

from experiments.pinwheel.run import main

main()
