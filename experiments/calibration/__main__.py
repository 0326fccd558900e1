"""``python -m experiments.calibration``"""

from experiments.calibration.run import main

main()
