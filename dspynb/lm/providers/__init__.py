"""Clients for litellm and OpenAI-compatible servers, the addresses of providers, and prices."""
