"""Subjects: inpainting with a reference, and models that are taught a subject from a few pictures:
``python -m experiments.subjects``.
"""
