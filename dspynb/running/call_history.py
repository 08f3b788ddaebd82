"""``history(n)``: the last model calls of this process, of all runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from dspynb.data import tokens_text
from dspynb.errors import InputError, shorten
from dspynb.events import PredictorCalled
from dspynb.media.describe import content_text
from dspynb.scope.settings import setting

__all__ = ["Calls", "history", "remember"]

_MAX_HTML_TEXT = 20_000  # characters
_calls: deque[PredictorCalled] = deque()
_is_cut = False  # whether calls were removed from the history


def remember(call: PredictorCalled) -> None:
    """Add a call to the history, and remove the oldest calls beyond the number in the setting ``history``."""
    global _is_cut  # noqa: PLW0603  # one process has one history
    limit = setting("history")
    _calls.append(call)
    while len(_calls) > limit:
        _calls.popleft()
        _is_cut = True


class Calls(tuple[PredictorCalled, ...]):
    """Calls whose repr and notebook display show prompts and replies."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "\n\n".join(map(_text, self)) or "(no calls)"

    def _repr_html_(self) -> str:
        return "".join(map(_html, self)) or "<em>no calls</em>"


class _FewerCalls(Calls):
    """Fewer calls than were requested, with a note that says why."""

    __slots__ = ()

    def _note(self) -> str:
        return (
            f"Only the last {len(self)} calls are in the history: dn.configure(history=…) sets how many are. "
            "run.calls has all calls of a run."
        )

    def __repr__(self) -> str:
        return f"{self._note()}\n\n{Calls.__repr__(self)}"

    def _repr_html_(self) -> str:
        return f"<em>{escape(self._note())}</em>{Calls._repr_html_(self)}"


def history(n: int = 1) -> Calls:
    """The last ``n`` calls of this process, oldest first, as events with ``predictor``, ``messages``, ``reply``,
    ``usage`` and more. Where fewer are left, since the setting ``history`` limits their number, the display says so.
    Raises InputError for ``n`` below 1.

    >>> first = dn.Predict("question -> answer", lm=dn.ScriptedLM(["answer: 4"])).run_sync(question="2+2?")
    >>> print(dn.history(1)[0].reply)
    answer: 4
    >>> dn.history(1)
    self · scripted · 0 tokens, ...
    """
    if not isinstance(n, int) or n < 1:
        raise InputError(f"history(n) takes a whole number of at least 1, got {n!r}")
    calls = list(_calls)[-n:]
    return _FewerCalls(calls) if _is_cut and len(calls) < n else Calls(calls)


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
    if call.reasoning or call.usage.reasoning_tokens:
        yield _reasoning_title(call), call.reasoning or ""
    if call.reply or (call.reply is not None and not call.tool_calls):
        yield "reply", call.reply
    for tool_call in call.tool_calls:
        yield "tool call", _tool_call_text(tool_call)


def _reasoning_title(call: PredictorCalled) -> str:
    tokens = call.usage.reasoning_tokens
    facts = ["reasoning"]
    if tokens:
        facts.append(tokens_text(tokens))
    if not call.reasoning:
        facts.append("its text is not available")
    return " · ".join(facts)


def _tool_call_text(tool_call: Mapping[str, Any]) -> str:
    function = tool_call.get("function") or {}
    return f"{function.get('name')}({function.get('arguments')})"


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
