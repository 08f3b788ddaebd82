"""The live view of a run in a notebook: its messages and its widget."""
