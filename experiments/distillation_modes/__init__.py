"""Do longer E-steps keep more modes when only the teacher is exact? See ``run``."""
