"""What the length of the E-step's chain does to a one-step student.

How to run it is said in ``run``.
"""
