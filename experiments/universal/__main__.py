"""``python -m experiments.universal``"""

from experiments.universal.run import main

main()
