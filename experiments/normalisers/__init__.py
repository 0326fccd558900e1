"""Are intervals of log Z right, and do they know when they are not?"""
