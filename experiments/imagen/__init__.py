"""Curation, evaluation and responsibility on emoji. How to run it is said in ``run``."""
