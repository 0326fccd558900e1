"""``python -m experiments.anomaly``"""

from experiments.anomaly.run import main

main()
