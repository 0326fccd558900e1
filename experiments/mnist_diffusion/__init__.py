"""One-step students of a diffusion model of MNIST. How to run it is said in ``run``."""
