"""What a program has learned, as JSON: saved, checked and loaded; demos; DSPy's saved programs."""
