"""Few steps, and every mode? How to run it is said in ``run``."""
