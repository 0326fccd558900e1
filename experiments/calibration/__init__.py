"""Error rates of conformal p-values on real tables. How to run it is said in ``run``."""
