"""Views of a run as text: a status line and a table in a terminal, plain lines elsewhere."""
