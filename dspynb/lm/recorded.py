"""Recorded replies: a model that serves the replies in a file, so that tutorials run anywhere."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dspynb.data import usage_of
from dspynb.errors import ConfigurationError, RecordingMiss, shorten
from dspynb.lm.direct_call import DirectCalls
from dspynb.lm.own_price import at_own_price, read_own_price
from dspynb.lm.protocol import (
    LMProtocol,
    LMReply,
    LMRequest,
    check_reply,
    is_complete,
    request_key,
    returns_reasoning,
    sent_settings,
)
from dspynb.media.describe import content_text, without_data
from dspynb.redact import redact_known

__all__ = ["RecordedLM", "recorded"]

LIVE = "DSPYNB_LIVE"
"""The environment variable that bypasses recordings if it is ``1``: the model behind them is called."""


def recorded(path: str | Path, lm: LMProtocol | None = None, *, strict: bool | None = None) -> RecordedLM:
    """A model that serves the replies in a file, and records those that are missing by calling ``lm``.

    ``path``: the file, one JSON line per reply. ``strict=True`` raises RecordingMiss for a missing reply instead; it is
    the default without ``lm``. The environment variable DSPYNB_LIVE=1 bypasses the file: every request goes to ``lm``,
    and nothing is recorded. Raises ConfigurationError if the file is missing in strict mode, or is no recording.

    >>> lm = dn.recorded("replies.jsonl", lm=dn.FunctionLM(lambda request: "answer: 4"))
    >>> first = dn.Predict("question -> answer", lm=lm).run_sync(question="2+2?")
    >>> replayed = dn.Predict("question -> answer", lm=dn.recorded("replies.jsonl"))  # the file alone, without a model
    >>> replayed.run_sync(question="2+2?").answer
    '4'
    """
    if strict is None:
        strict = lm is None
    return RecordedLM(Path(path), lm, strict=strict)


def _is_recorded(body: object) -> bool:
    """Whether a line of the file is a recorded reply. Its usage is not checked here: a malformed one is read as
    unknown."""
    if not isinstance(body, dict):
        return False
    if not isinstance(body.get("key"), str) or not isinstance(body.get("text"), str):
        return False
    optional_texts = ("finish", "adapter", "reasoning")
    if not all(isinstance(body.get(name), str | None) for name in optional_texts):
        return False
    others: list[tuple[Any, Any]] = [
        (body.get("model", ""), str),
        (body.get("sent"), dict | None),
        (body.get("returns_reasoning", False), bool),
    ]
    if not all(isinstance(value, kind) for value, kind in others):
        return False
    lists: list[tuple[Any, Any]] = [
        (body.get("completions", []), str),
        (body.get("completion_reasoning", []), str | None),
    ]
    for value, kind in lists:
        if not isinstance(value, list) or not all(isinstance(text, kind) for text in value):
            return False
    calls = body.get("tool_calls", [])
    return isinstance(calls, list) and all(isinstance(call, dict) for call in calls)


def _settings_text(settings: object) -> str:
    """Settings of a request as a text that is equal for equal settings, in a file as well as in memory."""
    return redact_known(json.dumps(settings or {}, sort_keys=True, ensure_ascii=False, default=str))


class RecordedLM(DirectCalls):
    """A model that serves recorded replies, made by ``recorded``."""

    constrains = True

    def __init__(self, path: Path, lm: LMProtocol | None, *, strict: bool) -> None:
        if lm is None and not strict:
            raise ConfigurationError("recorded(strict=False) needs lm=, the model that is called for missing replies")
        self.path = path
        self.lm = lm
        self.strict = strict
        self.name = str(getattr(lm, "name", None) or f"recorded/{path.stem}")
        self.adapter = getattr(lm, "adapter", None)
        self._has_tool_calls = False
        self._returns_reasoning: dict[str, bool] = {}  # by the settings of recorded requests
        self.takes_media = getattr(lm, "takes_media", True)
        self.truncated = getattr(lm, "truncated", "error")
        self._lock = threading.Lock()
        self._replies: dict[str, dict[str, Any]] = {}
        if path.exists():
            self._load()
        elif strict and not self._live:
            raise ConfigurationError(f"there is no recording {path}; make it with recorded(path, lm=...)")

    @property
    def native_tools(self) -> bool:
        """Whether the model takes descriptions of tools. Without a model: whether the file has replies with tool calls.

        The model is asked each time, since its server may have refused tools.
        """
        if self.lm is None:
            return self._has_tool_calls
        return bool(getattr(self.lm, "native_tools", False))

    def returns_reasoning(self, settings: Mapping[str, Any]) -> bool:
        """Whether the reply to a request with these settings has the text of the model's reasoning. Without a model:
        what the recorded model said of the last request with these settings; False if the file does not say."""
        if self.lm is None:
            return self._returns_reasoning.get(_settings_text(settings), False)
        return returns_reasoning(self.lm, settings)

    @property
    def takes_grammar(self) -> bool:
        """Whether the model can be held to a grammar."""
        return bool(getattr(self.lm, "takes_grammar", False))

    def warn_of_text_tools(self) -> None:
        """Warn once that an agent describes its tools in the prompt, if the server has refused them."""
        warn = getattr(self.lm, "warn_of_text_tools", None)
        if warn is not None:
            warn()

    @property
    def _live(self) -> bool:
        return os.environ.get(LIVE) == "1" and self.lm is not None

    def _load(self) -> None:
        for number, line in enumerate(self.path.read_bytes().splitlines(), 1):
            try:
                body = json.loads(line)
            except (ValueError, RecursionError):
                body = None
            if not _is_recorded(body):
                raise ConfigurationError(f"{self.path}, line {number}: not a recorded reply")
            self._replies[body["key"]] = body
            if self.lm is None:
                self._has_tool_calls = self._has_tool_calls or "tool_calls" in body
                text = _settings_text(body.get("settings"))
                self._returns_reasoning[text] = body.get("returns_reasoning", False)
                self.name = body.get("model", self.name)
                self.adapter = body.get("adapter", self.adapter)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock())

    async def complete(self, request: LMRequest) -> LMReply:
        """Return the recorded reply, marked as cached, or call the model and record its reply.

        Raises RecordingMiss in strict mode; ReplyTruncated, Refused or ContentFiltered for an incomplete reply. An
        incomplete reply is not recorded, and one in an older recording is requested again.
        """
        if self._live and self.lm is not None:
            price = read_own_price(self.lm, self.name)
            return at_own_price(await self.lm.complete(request), price)
        recorded = self._recorded(request)
        if recorded is not None and is_complete(recorded):
            return recorded
        if self.strict or self.lm is None:
            if recorded is not None:
                return check_reply(recorded, request.settings, self.name)
            raise self._miss(request)
        has_own_reasoning = returns_reasoning(self.lm, request.settings)  # before a refusal can change it
        price = read_own_price(self.lm, self.name)
        reply = at_own_price(await self.lm.complete(request), price)
        accept_truncated = self.truncated == "accept"
        reply = check_reply(reply, sent_settings(self.lm, request), self.name, accept_truncated=accept_truncated)
        if is_complete(reply):
            self._record(request_key(request), request, reply, has_own_reasoning)
        return reply

    async def cached_reply(self, request: LMRequest) -> LMReply | None:
        """The recorded reply if it is complete, else None."""
        reply = self._recorded(request)
        if reply is None or not is_complete(reply):
            return None
        return reply

    def _miss(self, request: LMRequest) -> RecordingMiss:
        last = ""
        if request.messages:
            last = content_text(request.messages[-1].get("content"))
        return RecordingMiss(
            f"{self.path} has no reply for a request that ends in {shorten(last, 120)!r} (rollout {request.rollout}); "
            f"record it with recorded({str(self.path)!r}, lm=...)"
        )

    def _recorded(self, request: LMRequest) -> LMReply | None:
        if self._live:
            return None
        body = self._replies.get(request_key(request))
        if body is None:
            return None
        usage = usage_of(body.get("usage")).as_cached()
        return LMReply(
            body["text"],
            tuple(body.get("tool_calls", ())),
            usage,
            cached=True,
            finish=body.get("finish"),
            reasoning=body.get("reasoning"),
            completions=tuple(body.get("completions", ())),
            sent=body.get("sent"),
            completion_reasoning=tuple(body.get("completion_reasoning", ())),
        )

    def _record(self, key: str, request: LMRequest, reply: LMReply, has_own_reasoning: bool) -> None:
        body: dict[str, Any] = {
            "key": key,
            "model": self.name,
            "adapter": self.adapter if isinstance(self.adapter, str) else None,
            "messages": [dict(m) for m in without_data(request.messages)],
            "settings": dict(request.settings),
            "rollout": request.rollout,
            "text": reply.text,
            "finish": reply.finish,
            "usage": asdict(reply.usage),
        }
        if request.tools:
            body["tool_calls"] = [dict(call) for call in reply.tool_calls]
        if has_own_reasoning:
            body["returns_reasoning"] = True
        if reply.reasoning is not None:
            body["reasoning"] = reply.reasoning
        if reply.sent is not None:
            body["sent"] = dict(reply.sent)
        if len(reply.completions) > 1:
            body["completions"] = list(reply.completions)
            if reply.completion_reasoning:
                body["completion_reasoning"] = list(reply.completion_reasoning)
        with self._lock:
            known = self._replies.get(key)
            # The last line of a key counts, so the line of an incomplete reply can stay in the file.
            if known is None or not is_complete(LMReply("", finish=known.get("finish"))):
                self._replies[key] = body
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("a", encoding="utf-8") as stream:
                    stream.write(redact_known(json.dumps(body, ensure_ascii=False)) + "\n")
