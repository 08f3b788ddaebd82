"""Prices of models: the record, what a call costs by its tokens, litellm's format, and price files."""
