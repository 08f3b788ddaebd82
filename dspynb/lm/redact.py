"""Keeping keys out of what people read."""

from __future__ import annotations

import os
import re

__all__ = ["is_secret_name", "redact"]

_NAMES = ("_API_KEY", "_TOKEN", "_SECRET", "_PASSWORD")
_SHAPES = re.compile(r"\b(?:sk|pk|rk)-[A-Za-z0-9_\-]{16,}|\bBearer\s+[A-Za-z0-9._\-]{16,}|://[^/\s:@]+:[^/\s:@]+@")


_SECRET = re.compile(r"key|secret|password|credential|header|auth|access_token|session_token|bearer", re.IGNORECASE)


def is_secret_name(name: str) -> bool:
    """Whether a setting of this name may hold a secret."""
    return _SECRET.search(name) is not None


def redact(text: str, *secrets: str | None) -> str:
    """``text`` without the given secrets, the keys in the environment, and what has the shape of a key."""
    known = [*secrets, *(value for name, value in os.environ.items() if name.endswith(_NAMES))]
    for secret in sorted((s for s in known if s and len(s) >= 6), key=len, reverse=True):
        text = text.replace(secret, "***")
    return _SHAPES.sub("***", text)
