"""Rows from files and to files: reading, splitting, small datasets, saving tables."""
