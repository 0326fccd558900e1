"""What a quarter of an hour with a GPU is for: ``check``, ``speed`` and ``train``, each one
line.
"""
