"""A thousand modes. How to run it is said in ``run``."""
