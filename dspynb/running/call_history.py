"""``history(n)``: the last model calls of this process, of all runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from html import escape

from dspynb.errors import InputError, shorten
from dspynb.events import PredictorCalled
from dspynb.media.describe import content_text
from dspynb.scope.settings import setting

__all__ = ["Calls", "history", "remember"]

_MAX_HTML_TEXT = 20_000  # characters
_calls: deque[PredictorCalled] = deque()


def remember(call: PredictorCalled) -> None:
    """Add a call to the history, and remove the oldest calls beyond the number in the setting ``history``."""
    limit = setting("history")
    _calls.append(call)
    while len(_calls) > limit:
        _calls.popleft()


class Calls(tuple[PredictorCalled, ...]):
    """Calls whose repr and notebook display show prompts and replies."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "\n\n".join(map(_text, self)) or "(no calls)"

    def _repr_html_(self) -> str:
        return "".join(map(_html, self)) or "<em>no calls</em>"


def history(n: int = 1) -> Calls:
    """The last ``n`` calls of this process, oldest first, as events with ``predictor``, ``messages``, ``reply``,
    ``usage`` and more. Raises InputError for ``n`` below 1.

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
    tokens = "unknown" if call.usage.tokens is None else call.usage.tokens
    summary = f"{call.predictor} · {call.model} · {tokens} tokens, {call.seconds:.2f} s"
    if call.cached:
        return f"{summary}, cached"
    return summary


def _parts(call: PredictorCalled) -> Iterable[tuple[str, str]]:
    """Yield a title and a text for each message, the error, the reasoning and the reply."""
    for message in call.messages:
        yield str(message.get("role")), content_text(message.get("content"))
    if call.error is not None:
        yield "error", call.error
    if call.reasoning:
        yield "reasoning", call.reasoning
    if call.reply is not None:
        yield "reply", call.reply


def _text(call: PredictorCalled) -> str:
    body = "\n".join(f"── {title}\n{text}" for title, text in _parts(call))
    return f"{_summary(call)}\n{body}"


def _html(call: PredictorCalled) -> str:
    blocks = ""
    for title, text in _parts(call):
        excerpt = text if len(text) <= _MAX_HTML_TEXT else shorten(text, _MAX_HTML_TEXT)
        blocks += f"<div style='opacity:.7;margin-top:4px'>{escape(title)}</div>"
        blocks += f"<pre style='white-space:pre-wrap;margin:0'>{escape(excerpt)}</pre>"
    return f"<details open><summary>{escape(_summary(call))}</summary>{blocks}</details>"
