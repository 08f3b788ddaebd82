"""Data in files: reading rows, splitting them, small datasets, saving tables."""
