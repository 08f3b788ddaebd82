"""``history(n)``: the last calls of this process, whatever run they belonged to."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from html import escape

from dspynb.errors import InputError, shorten
from dspynb.events import PredictorCalled
from dspynb.media.describe import content_text
from dspynb.scope.settings import setting

__all__ = ["Calls", "history", "remember"]

_calls: deque[PredictorCalled] = deque()


def remember(call: PredictorCalled) -> None:
    """Keep a call; the oldest go when there are more than the setting ``history`` allows."""
    most = setting("history")
    _calls.append(call)
    while len(_calls) > most:
        _calls.popleft()


class Calls(tuple[PredictorCalled, ...]):
    """Calls that show what was sent and what came back, as text and in a notebook."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "\n\n".join(map(_text, self)) or "(no calls)"

    def _repr_html_(self) -> str:
        return "".join(map(_html, self)) or "<em>no calls</em>"


def history(n: int = 1) -> Calls:
    """The last ``n`` calls of this process, oldest first: what was sent and what came back, as events
    (``predictor``, ``messages``, ``reply``, ``usage``, …). Raises InputError for ``n`` below 1.

    >>> first = dn.Predict("question -> answer", lm=dn.ScriptedLM(["answer: 4"])).run_sync(question="2+2?")
    >>> print(dn.history(1)[0].reply)
    answer: 4
    >>> dn.history(1)
    self · scripted · 0 tokens, ...
    """
    if not isinstance(n, int) or n < 1:
        raise InputError(f"history(n) takes a whole number of at least 1, got {n!r}")
    return Calls(list(_calls)[-n:])


def _summary(call: PredictorCalled) -> str:
    cached = ", cached" if call.cached else ""
    tokens = "unknown" if call.usage.tokens is None else call.usage.tokens
    return f"{call.predictor} · {call.model} · {tokens} tokens, {call.seconds:.2f} s{cached}"


def _parts(call: PredictorCalled) -> Iterable[tuple[str, str]]:
    for message in call.messages:
        yield str(message.get("role")), content_text(message.get("content"))
    if call.error is not None:
        yield "error", call.error
    if call.reply is not None:
        yield "reply", call.reply


def _text(call: PredictorCalled) -> str:
    body = "\n".join(f"── {title}\n{text}" for title, text in _parts(call))
    return f"{_summary(call)}\n{body}"


def _html(call: PredictorCalled) -> str:
    blocks = "".join(
        f"<div style='opacity:.7;margin-top:4px'>{escape(title)}</div>"
        f"<pre style='white-space:pre-wrap;margin:0'>{escape(shown)}</pre>"
        for title, text in _parts(call)
        for shown in [text if len(text) <= 20_000 else shorten(text, 20_000)]
    )
    return f"<details open><summary>{escape(_summary(call))}</summary>{blocks}</details>"
