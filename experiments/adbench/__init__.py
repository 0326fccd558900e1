"""Anomalies in tables. How to run it is said in ``run``."""
