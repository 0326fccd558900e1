"""``python -m experiments.imagen``"""

from experiments.imagen.run import main

main()
