"""Four priors on MNIST with one backbone. How to run it is said in ``run``."""
