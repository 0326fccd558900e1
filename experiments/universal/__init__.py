"""Do features learned without labels serve every task? How to run it is said in ``run``."""
