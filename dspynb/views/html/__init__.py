"""A run as static HTML."""
