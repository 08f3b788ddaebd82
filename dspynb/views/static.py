"""A run as self-contained HTML: no script, nothing from outside, everything escaped; readable where styles are cut."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from html import escape
from pathlib import Path

from dspynb.results import Fold
from dspynb.views.details import Block
from dspynb.views.state import Header, Row, RunState
from dspynb.views.texts import Named, clip, number, signed

__all__ = ["GLYPHS", "static_html"]

GLYPHS = {
    "passed": "✓", "done": "✓", "finished": "✓", "scored": "○", "failed": "✕", "cancelled": "⊘", "stopped": "■",
    "exhausted": "■",    "interrupted": "■", "running": "●", "pending": "●",
}  # fmt: skip
"""A sign beside each state, so that colour is never the only one. ``live.js`` has the same."""


def static_html(fold: Fold, search: int = 0, path: str | None = None) -> str:
    """The folded run as HTML. ``search``: only the attempts of this span; ``path``: the run's file, told below."""
    header, rows = RunState(fold, search).snapshot()
    shown = _shown(rows)
    body = "".join(_row(header, row, shown) for row in rows)
    table = f"<table class='dspynb-rows'>{_head(header, shown)}<tbody>{body}</tbody></table>" if rows else ""
    notes = "".join(f"<div class='dspynb-note'>{escape(note)}</div>" for note in header["notes"])
    file = f"<div class='dspynb-file'>{escape(clip(_from_here(path)))}</div>" if path else ""
    return f"<div class='dspynb-run'><style>{_css()}</style>{_header(header, fold)}{notes}{table}{file}</div>"


def _from_here(path: str) -> str:
    """The path from the working folder, if it lies in it: a shared notebook need not tell whose folder it was."""
    with suppress(OSError, ValueError):
        return str(Path(path).relative_to(Path.cwd()))
    return path


@cache
def _css() -> str:
    return Path(__file__).with_name("static.css").read_text(encoding="utf-8")


def _header(header: Header, fold: Fold) -> str:
    seconds = [f"{header['elapsed']:.1f} s"] if fold.ended and header["elapsed"] is not None else []
    facts = " · ".join(
        escape(fact) for fact in [header["progress"], header["result"], *header["facts"], *seconds] if fact
    )
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
    names = ["#", about, *_if(shown["score"], "score"), outputs, *_if(shown["feedback"], "feedback")]
    names += [*_if(shown["error"], "error"), *_if(shown["seconds"], "seconds")]
    names += _if(shown["tokens"], "tokens")
    return "<thead><tr>" + "".join(f"<th scope='col'>{escape(name)}</th>" for name in names) + "</tr></thead>"


def _if(wanted: bool, cell: str) -> list[str]:
    return [cell] if wanted else []


def _row(header: Header, row: Row, shown: dict[str, bool]) -> str:
    best = " dspynb-best" if row["best"] else ""
    cells = [
        _label(row),
        _cell(_named(row["about"]), "about"),
        *_if(shown["score"], _score(header, row)),
        _cell(_named(row["outputs"]), "outputs"),
        *_if(shown["feedback"], _cell(escape(row["feedback"]), "feedback")),
        *_if(shown["error"], _cell(escape(row["error"]), "error")),
        *_if(shown["seconds"], _cell("" if row["seconds"] is None else f"{row['seconds']:.2f}", "number")),
        *_if(shown["tokens"], _cell(f"{row['tokens']:,}" if row["tokens"] else "", "number")),
    ]
    return f"<tr class='dspynb-row{best}'>{''.join(cells)}</tr>{_detail(row, len(cells))}"


def _label(row: Row) -> str:
    star = " <span title='best'>★</span>" if row["best"] else ""
    state = row["state"]
    return (
        f"<td class='dspynb-label'><b>{escape(row['label'])}{star}</b><br>"
        f"<span class='dspynb-state dspynb-{escape(state)}'>{GLYPHS.get(state, '')} {escape(state)}</span></td>"
    )


def _cell(inner: str, kind: str) -> str:
    if not inner:
        return "<td class='dspynb-none'>–</td>"
    return f"<td class='dspynb-{kind}'><div class='dspynb-text'>{inner}</div></td>"


def _named(parts: Named) -> str:
    return "<br>".join(f"<i>{escape(name)}:</i> {escape(text)}" if name else escape(text) for name, text in parts)


def _score(header: Header, row: Row) -> str:
    score = row["score"]
    if score is None:
        return "<td class='dspynb-score'>–</td>"
    width = 100 * (score - header["low"]) / (header["high"] - header["low"])
    change = "" if row["change"] is None else f" <span class='dspynb-change'>{signed(row['change'])}</span>"
    bar = f"<div class='dspynb-bar'><div style='width:{width:.0f}%'></div></div>"
    return f"<td class='dspynb-score'><b>{number(score)}</b>{change}{bar}</td>"


def _detail(row: Row, columns: int) -> str:
    if not row["detail"]:
        return ""
    blocks = "".join(map(_block, row["detail"]))
    summary = escape(_summary(row))
    inner = f"<details><summary>{summary}</summary>{blocks}</details>"
    return f"<tr class='dspynb-detail'><td colspan='{columns}'>{inner}</td></tr>"


def _summary(row: Row) -> str:
    """What unfolding shows: how the prompt changed, or what was sent."""
    changes = [block["note"] for block in row["detail"] if block["note"] not in ("", "unchanged")]
    first = row["detail"][0]["heading"]
    what = "instruction" if first.endswith(" · instruction") else "prompt"
    if changes:
        return f"{what}: {', '.join(changes)}"
    if any(block["note"] for block in row["detail"]):
        return f"{what}: unchanged"
    return "attempts" if first.startswith("attempt ") else what if what != "prompt" else "prompt sent"


_TAGS = {"gone": "del", "new": "ins", "cut": "i"}


def _block(block: Block) -> str:
    heading = " · ".join(part for part in (block["heading"], block["note"]) if part)
    if not block["pieces"]:
        return f"<div class='dspynb-heading'>{escape(heading)}</div>"
    return f"<div class='dspynb-heading'>{escape(heading)}</div><pre>{''.join(map(_piece, block['pieces']))}</pre>"


def _piece(piece: list[str]) -> str:
    kind, text = piece
    tag = _TAGS.get(kind, "span")
    return f"<{tag}>{escape(text)}</{tag}>"
