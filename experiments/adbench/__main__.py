"""``python -m experiments.adbench``"""

from experiments.adbench.run import main

main()
