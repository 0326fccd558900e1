"""Is an energy-based model its own adversary? How to run it is said in ``run``."""
