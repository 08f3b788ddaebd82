"""A run in a terminal: one line while it works, a table afterwards."""
