"""How a run is seen: a live widget while it works, static HTML afterwards, lines of text in a terminal.

All views show the same rows (``view_model.py``), made from a record over the run's events.
"""

from __future__ import annotations

from dspynb.views.html.static import page_html, static_html

__all__ = ["page_html", "static_html"]
