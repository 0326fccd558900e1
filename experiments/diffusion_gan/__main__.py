"""``python -m experiments.diffusion_gan``"""

from experiments.diffusion_gan.run import main

main()
