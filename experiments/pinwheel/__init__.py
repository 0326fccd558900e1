"""Which rule finds a known prior? How to run it is said in ``run``."""
