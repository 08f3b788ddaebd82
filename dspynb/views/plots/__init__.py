"""Plots of runs: their numbers (``figures.py``), and the drawing (``draw.py``)."""
