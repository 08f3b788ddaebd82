"""Saving and loading what a program has learned (instructions and demos) as JSON, also from programs saved by DSPy."""
