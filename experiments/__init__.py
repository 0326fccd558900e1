"""Evidence: training runs and tables, too slow for the tests. Every run is cached by its
configuration.
"""
