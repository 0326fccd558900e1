"""``python -m experiments.mnist``"""

from experiments.mnist.run import main

main()
