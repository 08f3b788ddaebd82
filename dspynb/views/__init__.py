"""Views of a run: a live widget while it works, static HTML afterwards, text in a terminal, and plots.

All views show the same rows (``view_model.py``), which are built from the run's record.
"""

from __future__ import annotations

from dspynb.views.html.static import page_html, static_html

__all__ = ["page_html", "static_html"]
