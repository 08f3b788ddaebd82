"""Spans as an indented tree: as text, and as HTML in which everything is escaped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

from dspynb.errors import shorten
from dspynb.running.tables.spans import Span

__all__ = ["tree_html", "tree_text"]

_MAX_HTML_LINES = 200
_MAX_VALUE = 20_000  # characters


def tree_text(spans: Sequence[Span], limit: int | None = None) -> str:
    """One line per span, indented by depth; at most ``limit`` lines."""
    first_spans = spans if limit is None else spans[:limit]
    lines = ["  " * span.depth + _summary(span, with_result=True) for span in first_spans]
    omitted = len(spans) - len(first_spans)
    if omitted > 0:
        lines.append(_omission(omitted))
    return _without_surrogates("\n".join(lines) or "(no spans)")


def tree_html(spans: Sequence[Span]) -> str:
    """One line per span, which opens to show its prompt, reply and outputs; at most 200 lines."""
    lines = "".join(map(_html, spans[:_MAX_HTML_LINES])) or "<em>no spans</em>"
    omitted = len(spans) - _MAX_HTML_LINES
    if omitted > 0:
        lines += f"<div>{escape(_omission(omitted))}</div>"
    return _without_surrogates(f"<div class='dspynb-trace'>{lines}</div>")


def _omission(count: int) -> str:
    return f"… and {count:,} more spans"


def _summary(span: Span, *, with_result: bool = False) -> str:
    name = span.path if span.kind in ("call", "attempt", "row") else f"{span.kind} {span.path}"
    parts = [shorten(name, 200)]
    if span.hint:
        parts.append(f"hint {shorten(span.hint, 80)!r}")
    if span.candidate:
        parts.append(f"candidate {span.candidate}")
    if span.score is not None:
        parts.append(f"score {span.score:g}")
    if span.usage.tokens is None:
        parts.append("unknown tokens")
    elif span.usage.tokens != 0:
        parts.append(f"{span.usage.tokens} tokens")
    parts.append("not ended" if span.seconds is None else f"{span.seconds:.2f} s")
    if span.cached:
        parts.append("cached")
    if with_result and span.error:
        parts.append(f"✗ {shorten(span.error, 120)}")
    elif with_result and span.reply is not None:
        parts.append(f"→ {shorten(span.reply, 80)!r}")
    return " · ".join(parts)


def _details(span: Span) -> Iterator[tuple[str, Any]]:
    """Yield a title and a value for everything that a line of the HTML tree opens to show."""
    yield "hint", span.hint
    yield "inputs", dict(span.inputs)
    for message in span.messages:
        yield str(message.get("role")), message.get("content")
    yield "reply", span.reply
    yield "outputs", span.outputs
    yield "error", span.error


def _html(span: Span) -> str:
    blocks = ""
    for title, value in _details(span):
        if value:
            blocks += f"<div style='opacity:.7;margin-top:4px'>{escape(title)}</div>"
            blocks += f"<pre style='white-space:pre-wrap;margin:0'>{escape(_shortened(value))}</pre>"
    colour = ";color:#c0392b" if span.error else ""
    style = f"margin-left:{min(span.depth, 20) * 1.4:.1f}em{colour}"
    return f"<details style='{style}'><summary>{escape(_summary(span))}</summary>{blocks}</details>"


def _shortened(value: object) -> str:
    text = str(value)
    if len(text) <= _MAX_VALUE:
        return text
    return shorten(text, _MAX_VALUE)


def _without_surrogates(text: str) -> str:
    """The text with lone surrogates replaced: a notebook file cannot store them."""
    return text.encode("utf-8", "replace").decode()
