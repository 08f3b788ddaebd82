"""Clients of providers: litellm and OpenAI-compatible servers, the addresses they may ask, and prices."""
