"""What the length of the E-step's chain does to a one-step student: ``run`` says how to run it."""
