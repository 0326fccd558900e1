"""Anomalies among the training rows. How to run it is said in ``run``."""
