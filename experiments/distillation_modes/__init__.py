"""Do longer E-steps keep more modes when only the teacher is exact?

How to run it is said in ``run``.
"""
