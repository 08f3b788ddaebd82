"""What differs between platforms: fork."""

from __future__ import annotations

import os
from collections.abc import Callable

__all__ = ["after_fork_in_child"]


def after_fork_in_child(reset: Callable[[], object]) -> None:
    """Have ``reset`` called in every forked child; nothing where processes are never forked (Windows, Pyodide)."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=reset)
