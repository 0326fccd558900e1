"""One digit held out: is it found? How to run it is said in ``run``."""
