"""``python -m experiments.mnist_diffusion``"""

from experiments.mnist_diffusion.run import main

main()
