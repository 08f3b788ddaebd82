"""A run as self-contained HTML: a plain table, and a script that replaces the table with the full view.

The script is that of the live view (``live.js``), and its data is in the page as JSON. Where scripts and styles are
removed, as on GitHub, the plain table remains.
"""

from __future__ import annotations

import hashlib
import json
import re
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from dspynb.redact import redact_known
from dspynb.running.record import RunRecord
from dspynb.views.details import Detail
from dspynb.views.header import Header
from dspynb.views.rows import Payload, Row
from dspynb.views.texts import Named, clip, number, signed
from dspynb.views.view_model import ViewModel

__all__ = ["GLYPHS", "page_html", "state_html", "static_html"]

_LIVE = Path(__file__).parent.parent / "live"

GLYPHS = {
    "passed": "✓", "done": "✓", "finished": "✓", "scored": "○", "failed": "✕", "cancelled": "⊘", "stopped": "■",
    "exhausted": "■", "max_errors": "■", "interrupted": "■", "unfinished": "■", "running": "●", "pending": "●",
}  # fmt: skip
"""A symbol beside each state, so that states differ not only in colour. ``live.js`` has the same symbols."""

_MOST_BYTES = 400_000
"""The approximate size of the rows and texts in a page. The run's file has all of them."""
_SHARE_OF_ROWS = 0.5
"""The share of ``_MOST_BYTES`` that rows may take; details have the rest."""


def static_html(record: RunRecord, search: int = 0, path: str | None = None) -> str:
    """A run as HTML.

    Args:
        record: the run's record.
        search: the span of a search, to show only its attempts; 0: the whole run.
        path: the path of the run's file, which is shown below the table.
    """
    return state_html(ViewModel(record, search), path)


def state_html(state: ViewModel, path: str | None = None) -> str:
    """A run as HTML, from the view model of a view that has read it."""
    with state.record.lock:
        return _html(state, path)


def _html(state: ViewModel, path: str | None) -> str:
    header, rows = state.snapshot()
    file = _relative_to_cwd(path) if path else ""
    body = _plain_view(header, rows, state.record)
    if file:
        body += f"<div class='dspynb-file'>{escape(clip(file))}</div>"
    if not rows:
        return f"<div class='dspynb'><style>{_css()}</style>{body}</div>"
    data = _json({**_data(state), "file": file})
    name = hashlib.sha256(data.encode()).hexdigest()[:12]
    return (
        f"<div class='dspynb' data-run='{name}'><style>{_css()}</style>{body}</div>"
        f"<script type='module'>{_script()}\nstill('{name}', {data});</script>"
    )


def page_html(record: RunRecord, search: int = 0, path: str | None = None) -> str:
    """A run as a complete HTML page. Its content security policy allows only the page's own script and style."""
    inner = redact_known(static_html(record, search, path))
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; "
        f"script-src {_source_expression(inner, 'script')}; style-src {_source_expression(inner, 'style')}"
    )
    title = escape(clip(record.started.name if record.started else "a run", 200))
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<meta name='viewport' content='width=device-width'><title>{title}</title></head><body>{inner}</body></html>"
    )


def _source_expression(page: str, tag: str) -> str:
    """What the content security policy allows: the page's only element with this tag, by its hash; or nothing."""
    match = re.search(rf"<{tag}[^>]*>(.*?)</{tag}>", page, flags=re.DOTALL)
    if match is None:
        return "'none'"
    digest = hashlib.sha256(match[1].encode()).digest()
    return f"'sha256-{b64encode(digest).decode()}'"


def _relative_to_cwd(path: str) -> str:
    """The path relative to the working folder, if it is inside, so that a shared notebook does not show user names."""
    with suppress(OSError, ValueError):
        return str(Path(path).relative_to(Path.cwd()))
    return path


@cache
def _css() -> str:
    return (_LIVE / "live.css").read_text(encoding="utf-8")


@cache
def _script() -> str:
    """``live.js`` for a page: without the part for anywidget, and without comments and indentation."""
    source = (_LIVE / "live.js").read_text(encoding="utf-8")
    page_source, _, _ = source.partition("/* ── widget.js")
    code = re.sub(r"^/\*.*?\*/$", "", page_source, flags=re.MULTILINE | re.DOTALL)
    lines = [line.strip() for line in code.splitlines()]
    return "\n".join(filter(None, lines))


def _json(data: object) -> str:
    """JSON for a script element. No text in it can end the script or begin a comment."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


# ── the data of the script ────────────────────────────────────────────────────────────────────────────────────────────
def _data(state: ViewModel) -> dict[str, Any]:
    """The header, the rows and their details, as many as fit into ``_MOST_BYTES``.

    Outermost rows come first. Details are those of the best row, of failed rows, then of the others in order.
    """
    outermost = state.outermost_nodes()
    nodes = list(dict.fromkeys([*outermost, *state.with_descendants(outermost)]))
    rows: list[Payload] = []
    bytes_left = _MOST_BYTES * _SHARE_OF_ROWS
    for node in nodes:
        row = state.payload(node)
        bytes_left -= len(json.dumps(row))
        if bytes_left < 0:
            break
        rows.append(row)
    header: dict[str, Any] = {**state.header(), "ended": True, "stopping": False, "paused": False, "steerable": []}
    if len(rows) < len(nodes):
        header["notes"].append(f"{len(rows):,} of {len(nodes):,} rows are in this page; the run's file has all")
    texts = _SharedTexts(_MOST_BYTES * (1 - _SHARE_OF_ROWS) + max(0.0, bytes_left))
    details = {}
    for row in sorted(rows, key=_priority):
        detail = state.detail(row["key"])
        numbered = None if detail is None else texts.add(detail)
        if numbered is not None:
            details[row["key"]] = numbered
    return {"header": header, "rows": rows, "leads": state.record.front.leads, "details": details, "texts": texts.all}


def _priority(row: Payload) -> int:
    if row.get("best"):
        return 0
    return 1 if row["state"] == "failed" else 2


class _SharedTexts:
    """The texts of details, each once, since most prompts of a run are equal. Details refer to texts by number."""

    def __init__(self, size: float) -> None:
        self.all: list[str] = []
        self._numbers: dict[str, int] = {}
        self._size_left = size

    def add(self, detail: Detail) -> dict[str, Any] | None:
        """Add the texts of a detail. Returns the detail with numbers instead of the texts; None if it does not fit."""
        new_texts = {block["text"] for block in detail["blocks"]} - self._numbers.keys()
        size_of_blocks = len(detail["blocks"]) * 80
        size = sum(map(len, new_texts)) + len(json.dumps({**detail, "blocks": size_of_blocks}))
        if size > self._size_left:
            return None
        self._size_left -= size
        blocks = []
        for block in detail["blocks"]:
            text = block["text"]
            if text not in self._numbers:
                self._numbers[text] = len(self.all)
                self.all.append(text)
            blocks.append({**block, "text": self._numbers[text]})
        return {**detail, "blocks": blocks}


# ── the plain table ───────────────────────────────────────────────────────────────────────────────────────────────────
def _plain_view(header: Header, rows: list[Row], record: RunRecord) -> str:
    parts = [_header(header, record)]
    if header["summary"]:
        parts.append(f"<div class='dspynb-summary'>{escape(header['summary'])}</div>")
    parts += [f"<div class='dspynb-note'>{escape(note)}</div>" for note in header["notes"]]
    if rows:
        parts.append(_table(header, rows))
    return "".join(parts)


def _header(header: Header, record: RunRecord) -> str:
    facts = [header["progress"], header["result"], *header["facts"]]
    if record.is_over and header["elapsed"] is not None:
        facts.append(f"{header['elapsed']:.1f} s")
    joined_facts = " · ".join(escape(fact) for fact in facts if fact)
    state = header["state"]
    return (
        f"<div class='dspynb-head'><b class='dspynb-state dspynb-{escape(state)}'>{_state_text(state)}</b> "
        f"<span class='dspynb-name'>{escape(header['name'])}</span></div>"
        f"<div class='dspynb-facts'>{joined_facts}</div>"
    )


def _state_text(state: str) -> str:
    return f"{GLYPHS.get(state, '')} {escape(state)}"


Column = tuple[str, Callable[[Row], str]]
"""A heading, and a function that writes the cell of a row."""


def _table(header: Header, rows: list[Row]) -> str:
    columns = _columns(header, rows)
    head = "".join(f"<th scope='col'>{escape(heading)}</th>" for heading, _ in columns)
    lines = []
    for row in rows:
        cells = "".join(cell(row) for _, cell in columns)
        best = " dspynb-best" if row["best"] else ""
        lines.append(f"<tr class='dspynb-row{best}'>{cells}</tr>")
    return f"<table class='dspynb-plain'><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _columns(header: Header, rows: list[Row]) -> list[Column]:
    """The heading and the cells of each column. Optional columns that would be empty are left out."""
    about, outputs = header["columns"]
    columns: list[Column] = [("#", _label), (about, _about)]
    if any(row["score"] is not None for row in rows):
        columns.append(("score", _score))
    columns.append((outputs, _outputs))
    if any(row["feedback"] for row in rows):
        columns.append(("feedback", _feedback))
    if any(row["error"] for row in rows):
        columns.append(("error", _error))
    if any(row["seconds"] is not None for row in rows):
        columns.append(("seconds", _seconds))
    if any(row["tokens"] for row in rows):
        columns.append(("tokens", _tokens))
    return columns


def _label(row: Row) -> str:
    label = escape(row["label"])
    if row["best"]:
        label += " <span title='best'>★</span>"
    marks = [f" <span class='dspynb-by'>{escape(mark)}</span>" for mark in (row["mark"], row["by"]) if mark]
    state = row["state"]
    return (
        f"<td class='dspynb-label'><b>{label}</b>{''.join(marks)}<br>"
        f"<span class='dspynb-state dspynb-{escape(state)}'>{_state_text(state)}</span></td>"
    )


def _about(row: Row) -> str:
    return _cell(_named_texts(row["about"]), "about")


def _outputs(row: Row) -> str:
    return _cell(_named_texts(row["outputs"]), "outputs")


def _feedback(row: Row) -> str:
    return _cell(escape(row["feedback"]), "feedback")


def _error(row: Row) -> str:
    return _cell(escape(row["error"]), "error")


def _seconds(row: Row) -> str:
    if row["seconds"] is None:
        return _cell("", "number")
    return _cell(f"{row['seconds']:.2f}", "number")


def _tokens(row: Row) -> str:
    if not row["tokens"]:
        return _cell("", "number")
    return _cell(f"{row['tokens']:,}", "number")


def _cell(inner: str, kind: str) -> str:
    return f"<td class='dspynb-{kind}'>{inner}</td>" if inner else "<td class='dspynb-none'>–</td>"


def _named_texts(pairs: Named) -> str:
    lines = [f"<i>{escape(name)}:</i> {escape(text)}" if name else escape(text) for name, text in pairs]
    return "<br>".join(lines)


def _score(row: Row) -> str:
    if row["score"] is None:
        return _cell("", "score")
    text = f"<b>{number(row['score'])}</b>"
    if row["change"] is not None:
        text += f" <span class='dspynb-change'>{signed(row['change'])}</span>"
    return _cell(text, "score")
