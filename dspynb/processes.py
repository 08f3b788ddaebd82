"""Differences between platforms: fork."""

from __future__ import annotations

import os
from collections.abc import Callable

__all__ = ["after_fork_in_child"]


def after_fork_in_child(reset: Callable[[], object]) -> None:
    """Call ``reset`` in every forked child process. Does nothing on platforms without fork (Windows, Pyodide)."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=reset)
