"""Plots: what is drawn, and how."""
