"""Spans as a tree that can be read: text, and HTML in which everything is escaped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

from dspynb.errors import shorten
from dspynb.running.tables.spans import Span

__all__ = ["tree_html", "tree_text"]

_MOST_HTML = 200
_LONGEST = 20_000


def tree_text(spans: Sequence[Span], limit: int | None = None) -> str:
    """A line a span, indented by depth; at most ``limit`` lines."""
    shown = spans if limit is None else spans[:limit]
    lines = ["  " * span.depth + _summary(span, with_ends=True) for span in shown]
    return _clean("\n".join([*lines, *_left_out(spans, shown)]) or "(no spans)")


def tree_html(spans: Sequence[Span]) -> str:
    """A line a span that opens on what was sent and what came back."""
    shown = spans[:_MOST_HTML]
    lines = "".join(map(_html, shown)) or "<em>no spans</em>"
    more = "".join(f"<div>{escape(text)}</div>" for text in _left_out(spans, shown))
    return _clean(f"<div class='dspynb-trace'>{lines}{more}</div>")


def _left_out(spans: Sequence[Span], shown: Sequence[Span]) -> list[str]:
    return [f"… and {len(spans) - len(shown):,} more spans"] if len(shown) < len(spans) else []


def _summary(span: Span, *, with_ends: bool = False) -> str:
    name = span.path if span.kind in ("call", "attempt", "row") else f"{span.kind} {span.path}"
    parts = [shorten(name, 200)]
    if span.hint:
        parts.append(f"hint {shorten(span.hint, 80)!r}")
    if span.candidate:
        parts.append(f"candidate {span.candidate}")
    if span.score is not None:
        parts.append(f"score {span.score:g}")
    if span.usage.tokens != 0:
        parts.append("unknown tokens" if span.usage.tokens is None else f"{span.usage.tokens} tokens")
    parts.append("not ended" if span.seconds is None else f"{span.seconds:.2f} s")
    if span.cached:
        parts.append("cached")
    if with_ends:
        parts += [f"✗ {shorten(span.error, 120)}"] if span.error else []
        parts += [f"→ {shorten(span.reply, 80)!r}"] if span.reply is not None and not span.error else []
    return " · ".join(parts)


def _facts(span: Span) -> Iterator[tuple[str, Any]]:
    yield from (("hint", span.hint), ("inputs", dict(span.inputs)))
    for message in span.messages:
        yield str(message.get("role")), message.get("content")
    yield from (("reply", span.reply), ("outputs", span.outputs), ("error", span.error))


def _html(span: Span) -> str:
    blocks = "".join(
        f"<div style='opacity:.7;margin-top:4px'>{escape(title)}</div>"
        f"<pre style='white-space:pre-wrap;margin:0'>{escape(_cut(value))}</pre>"
        for title, value in _facts(span)
        if value
    )
    colour = ";color:#c0392b" if span.error else ""
    style = f"margin-left:{min(span.depth, 20) * 1.4:.1f}em{colour}"
    return f"<details style='{style}'><summary>{escape(_summary(span))}</summary>{blocks}</details>"


def _cut(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST else shorten(text, _LONGEST)


def _clean(text: str) -> str:
    """Without lone surrogates, which no notebook can store."""
    return text.encode("utf-8", "replace").decode()
