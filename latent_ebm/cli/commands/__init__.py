"""The sub-commands: one module each, with its arguments (``add``) and what it does (``run``).

``run`` imports what it needs, so that ``--help`` is quick and ``detect`` runs without Lightning.
It hands the parsed arguments on one by one: nothing below knows about ``argparse``.
"""
