"""How good are posterior draws, and do better ones make better priors?"""
