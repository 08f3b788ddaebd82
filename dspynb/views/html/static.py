"""A run as a page of HTML that needs nothing else: a plain table, and a script that puts the full view in its place.

The script is the live view's own (``live.js``); what it shows is in the page as JSON. Where scripts and styles are cut,
as on GitHub, the table remains.
"""

from __future__ import annotations

import hashlib
import json
import re
from base64 import b64encode
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from dspynb.redact import redact_known
from dspynb.running.record import RunRecord
from dspynb.views.details import Detail
from dspynb.views.header import Header
from dspynb.views.rows import Row, Sparse
from dspynb.views.texts import Named, clip, number, signed
from dspynb.views.view_model import ViewModel

__all__ = ["GLYPHS", "page_html", "state_html", "static_html"]

_LIVE = Path(__file__).parent.parent / "live"

GLYPHS = {
    "passed": "✓", "done": "✓", "finished": "✓", "scored": "○", "failed": "✕", "cancelled": "⊘", "stopped": "■",
    "exhausted": "■", "interrupted": "■", "running": "●", "pending": "●",
}  # fmt: skip
"""A sign beside each state, so that colour is never the only one. ``live.js`` has the same."""

_MOST_BYTES = 400_000
"""Of the rows and texts in a page, about; the run's file has all."""
_OF_ROWS = 0.5
"""The share of it that rows may take; details have the rest."""


def static_html(record: RunRecord, search: int = 0, path: str | None = None) -> str:
    """A run as HTML. ``search``: only the attempts of this span; ``path``: of the run's file, shown below the table."""
    return state_html(ViewModel(record, search), path)


def state_html(state: ViewModel, path: str | None = None) -> str:
    """A run that a view has read already, as HTML."""
    with state.record.lock:
        return _html(state, path)


def _html(state: ViewModel, path: str | None) -> str:
    header, rows = state.snapshot()
    file = escape(clip(_from_here(path))) if path else ""
    body = _plain(header, rows, state.record) + (f"<div class='dspynb-file'>{file}</div>" if file else "")
    if not rows:
        return f"<div class='dspynb'><style>{_css()}</style>{body}</div>"
    data = _json({**_data(state), "file": _from_here(path) if path else ""})
    name = hashlib.sha256(data.encode()).hexdigest()[:12]
    return (
        f"<div class='dspynb' data-run='{name}'><style>{_css()}</style>{body}</div>"
        f"<script type='module'>{_script()}\nstill('{name}', {data});</script>"
    )


def page_html(record: RunRecord, search: int = 0, path: str | None = None) -> str:
    """The same as a page of its own, whose content policy lets nothing run or load but what it was made with."""
    inner = redact_known(static_html(record, search, path))
    allowed = {tag: _digest(inner, tag) for tag in ("script", "style")}
    policy = f"default-src 'none'; base-uri 'none'; form-action 'none'; script-src {allowed['script']}; "
    title = escape(clip(record.started.name if record.started else "a run", 200))
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        f'<meta http-equiv="Content-Security-Policy" content="{policy}style-src {allowed["style"]}">'
        f"<meta name='viewport' content='width=device-width'><title>{title}</title></head><body>{inner}</body></html>"
    )


def _digest(page: str, tag: str) -> str:
    """The source expression that allows this page's only element of a kind; nothing, where it has none."""
    found = re.search(rf"<{tag}[^>]*>(.*?)</{tag}>", page, flags=re.DOTALL)
    if found is None:
        return "'none'"
    return f"'sha256-{b64encode(hashlib.sha256(found[1].encode()).digest()).decode()}'"


def _from_here(path: str) -> str:
    """The path from the working folder, if it lies in it: a shared notebook need not tell whose folder it was."""
    with suppress(OSError, ValueError):
        return str(Path(path).relative_to(Path.cwd()))
    return path


@cache
def _css() -> str:
    return (_LIVE / "live.css").read_text(encoding="utf-8")


@cache
def _script() -> str:
    """``live.js`` for a page: without what anywidget calls, and without comments and indentation."""
    source = (_LIVE / "live.js").read_text(encoding="utf-8").split("/* ── widget.js")[0]
    lines = (line.strip() for line in re.sub(r"^/\*.*?\*/$", "", source, flags=re.MULTILINE | re.DOTALL).splitlines())
    return "\n".join(filter(None, lines))


def _json(data: Any) -> str:
    """JSON that can stand in a script: no text in it can end the script or begin a comment."""
    told = json.dumps(data, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return told.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


# ── what the script shows ─────────────────────────────────────────────────────────────────────────────────────────────
def _data(state: ViewModel) -> dict[str, Any]:
    """The rows, the outermost first, and the details of as many as there is room for: the best, those that failed, then
    in order."""
    room, rows = _MOST_BYTES * _OF_ROWS, list[Sparse]()
    tops = state.tops()
    every = list(dict.fromkeys([*tops, *state.inside(tops)]))
    for node in every:
        row = state.sent(node)
        room -= len(json.dumps(row))
        if room < 0:
            break
        rows.append(row)
    header: dict[str, Any] = {**state.header(), "ended": True, "stopping": False, "paused": False, "steerable": []}
    if len(rows) < len(every):
        header["notes"].append(f"{len(rows):,} of {len(every):,} rows are in this page; the run's file has all")
    texts = _Texts(_MOST_BYTES * (1 - _OF_ROWS) + max(0.0, room))
    keys = [row["key"] for row in sorted(rows, key=_rank)]
    details = {key: kept for key in keys if (kept := texts.keep(state.detail(key))) is not None}
    return {"header": header, "rows": rows, "leads": state.record.front.leads, "details": details, "texts": texts.all}


def _rank(row: Sparse) -> int:
    return 0 if row.get("best") else 1 if row["state"] == "failed" else 2


class _Texts:
    """Texts, each once: prompts of a run are mostly the same. A detail names them by their numbers."""

    def __init__(self, room: float) -> None:
        self.all: list[str] = []
        self._numbers: dict[str, int] = {}
        self._room = room

    def keep(self, detail: Detail | None) -> dict[str, Any] | None:
        """The detail with numbers in place of its blocks' texts; None where there is no room for it."""
        if detail is None:
            return None
        new = {block["text"] for block in detail["blocks"]} - self._numbers.keys()
        size = sum(map(len, new)) + len(json.dumps({**detail, "blocks": len(detail["blocks"]) * 80}))
        if size > self._room:
            return None
        self._room -= size
        for text in (block["text"] for block in detail["blocks"]):
            if text not in self._numbers:
                self._numbers[text] = len(self.all)
                self.all.append(text)
        return {**detail, "blocks": [{**block, "text": self._numbers[block["text"]]} for block in detail["blocks"]]}


# ── the plain table ───────────────────────────────────────────────────────────────────────────────────────────────────
def _plain(header: Header, rows: list[Row], record: RunRecord) -> str:
    shown = _shown(rows)
    body = "".join(_row(row, shown) for row in rows)
    table = f"<table class='dspynb-plain'>{_head(header, shown)}<tbody>{body}</tbody></table>" if rows else ""
    notes = "".join(f"<div class='dspynb-note'>{escape(note)}</div>" for note in header["notes"])
    summary = f"<div class='dspynb-summary'>{escape(header['summary'])}</div>" if header["summary"] else ""
    return f"{_header(header, record)}{summary}{notes}{table}"


def _header(header: Header, record: RunRecord) -> str:
    seconds = [f"{header['elapsed']:.1f} s"] if record.ended and header["elapsed"] is not None else []
    parts = [header["progress"], header["result"], *header["facts"], *seconds]
    facts = " · ".join(escape(fact) for fact in parts if fact)
    state = header["state"]
    return (
        f"<div class='dspynb-head'><b class='dspynb-state dspynb-{escape(state)}'>{GLYPHS.get(state, '')} "
        f"{escape(state)}</b> <span class='dspynb-name'>{escape(header['name'])}</span></div>"
        f"<div class='dspynb-facts'>{facts}</div>"
    )


def _shown(rows: Iterable[Row]) -> dict[str, bool]:
    """Which of the columns that may stay empty have something in them."""
    rows = list(rows)
    return {
        "score": any(row["score"] is not None for row in rows),
        "feedback": any(row["feedback"] for row in rows),
        "error": any(row["error"] for row in rows),
        "seconds": any(row["seconds"] is not None for row in rows),
        "tokens": any(row["tokens"] for row in rows),
    }


def _head(header: Header, shown: dict[str, bool]) -> str:
    about, outputs = header["columns"]
    names = ["#", about, *_if(shown["score"], "score"), outputs]
    names += [name for name in ("feedback", "error", "seconds", "tokens") if shown[name]]
    return "<thead><tr>" + "".join(f"<th scope='col'>{escape(name)}</th>" for name in names) + "</tr></thead>"


def _if(wanted: bool, cell: str) -> list[str]:
    return [cell] if wanted else []


def _row(row: Row, shown: dict[str, bool]) -> str:
    cells = [
        _label(row),
        _cell(_named(row["about"]), "about"),
        *_if(shown["score"], _score(row)),
        _cell(_named(row["outputs"]), "outputs"),
        *_if(shown["feedback"], _cell(escape(row["feedback"]), "feedback")),
        *_if(shown["error"], _cell(escape(row["error"]), "error")),
        *_if(shown["seconds"], _cell("" if row["seconds"] is None else f"{row['seconds']:.2f}", "number")),
        *_if(shown["tokens"], _cell(f"{row['tokens']:,}" if row["tokens"] else "", "number")),
    ]
    best = " dspynb-best" if row["best"] else ""
    return f"<tr class='dspynb-row{best}'>{''.join(cells)}</tr>"


def _label(row: Row) -> str:
    star = " <span title='best'>★</span>" if row["best"] else ""
    person = "".join(f" <span class='dspynb-by'>{escape(told)}</span>" for told in (row["by"], row["mark"]) if told)
    state = row["state"]
    return (
        f"<td class='dspynb-label'><b>{escape(row['label'])}{star}</b>{person}<br>"
        f"<span class='dspynb-state dspynb-{escape(state)}'>{GLYPHS.get(state, '')} {escape(state)}</span></td>"
    )


def _cell(inner: str, kind: str) -> str:
    return f"<td class='dspynb-{kind}'>{inner}</td>" if inner else "<td class='dspynb-none'>–</td>"


def _named(parts: Named) -> str:
    return "<br>".join(f"<i>{escape(name)}:</i> {escape(text)}" if name else escape(text) for name, text in parts)


def _score(row: Row) -> str:
    if row["score"] is None:
        return "<td class='dspynb-none'>–</td>"
    change = "" if row["change"] is None else f" <span class='dspynb-change'>{signed(row['change'])}</span>"
    return f"<td class='dspynb-score'><b>{number(row['score'])}</b>{change}</td>"
