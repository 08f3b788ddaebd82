"""Recorded replies: a file that answers again what a model once answered, so that tutorials repeat anywhere."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dspynb.data import usage_of
from dspynb.errors import ConfigurationError, RecordingMiss, shorten
from dspynb.lm.protocol import LMProtocol, LMReply, LMRequest, check_reply, is_whole, request_key, sent_settings
from dspynb.media.describe import content_text, without_data
from dspynb.redact import redact_known

__all__ = ["RecordedLM", "recorded"]

LIVE = "DSPYNB_LIVE"
"""Set to 1, recordings are passed by and the model behind them is asked."""


def recorded(path: str | Path, lm: LMProtocol | None = None, *, strict: bool | None = None) -> RecordedLM:
    """A model that serves the replies in ``path`` and asks ``lm`` for what is missing, which it adds to the file.

    ``strict=True``: a miss raises RecordingMiss instead; the default without an ``lm``. The environment variable
    DSPYNB_LIVE=1 passes the recordings by and asks ``lm`` every time, writing nothing.

    >>> lm = dn.recorded("replies.jsonl", lm=dn.FunctionLM(lambda request: "answer: 4"))
    >>> first = dn.Predict("question -> answer", lm=lm).run_sync(question="2+2?")
    >>> again = dn.Predict("question -> answer", lm=dn.recorded("replies.jsonl"))  # the file alone: no model is asked
    >>> again.run_sync(question="2+2?").answer
    '4'
    """
    return RecordedLM(Path(path), lm, strict=lm is None if strict is None else strict)


def _is_recorded(body: Any) -> bool:
    """Whether a line is a reply with a key; its usage may be anything, and then is unknown."""
    if not isinstance(body, dict) or not all(isinstance(body.get(name), str) for name in ("key", "text")):
        return False
    calls = body.get("tool_calls", [])
    texts = all(isinstance(body.get(name), str | None) for name in ("finish", "adapter"))
    return texts and isinstance(body.get("model", ""), str) and isinstance(calls, list) and all(map(_is_call, calls))


def _is_call(call: Any) -> bool:
    return isinstance(call, dict)


class RecordedLM:
    """See ``recorded``."""

    constrains = True

    def __init__(self, path: Path, lm: LMProtocol | None, *, strict: bool) -> None:
        if lm is None and not strict:
            raise ConfigurationError("recorded(strict=False) needs lm=, the model to ask for what is missing")
        self.path, self.lm, self.strict = path, lm, strict
        self.name = str(getattr(lm, "name", None) or f"recorded/{path.stem}")
        self.adapter = getattr(lm, "adapter", None)
        self.native_tools = bool(getattr(lm, "native_tools", False))
        self.takes_media = getattr(lm, "takes_media", True)
        self._lock = threading.Lock()
        self._replies: dict[str, dict[str, Any]] = {}
        if path.exists():
            self._load()
        elif strict and not self._live:
            raise ConfigurationError(f"there is no recording {path}; make it with recorded(path, lm=...)")

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
                self.native_tools = self.native_tools or "tool_calls" in body
                self.name, self.adapter = body.get("model", self.name), body.get("adapter", self.adapter)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock())

    async def complete(self, request: LMRequest) -> LMReply:
        """The recorded reply, marked as cached; else the model's, recorded. Raises RecordingMiss in strict mode, and
        ReplyTruncated, Refused or ContentFiltered for a reply that is no answer: no such reply is recorded, and one of
        an older recording is requested again."""
        if self._live and self.lm is not None:
            return await self.lm.complete(request)
        recorded = self._recorded(request)
        if recorded is not None and is_whole(recorded):
            return recorded
        if self.strict or self.lm is None:
            if recorded is not None:
                return check_reply(recorded, request.settings, self.name)
            last = request.messages[-1].get("content") if request.messages else ""
            raise RecordingMiss(
                f"{self.path} has no reply for a request that ends in {shorten(content_text(last), 120)!r} (rollout "
                f"{request.rollout}); record it with recorded({str(self.path)!r}, lm=...)"
            )
        reply = check_reply(await self.lm.complete(request), sent_settings(self.lm, request), self.name)
        self._keep(request_key(request), request, reply)
        return reply

    async def kept(self, request: LMRequest) -> LMReply | None:
        """The recorded reply, if there is one that is whole."""
        reply = self._recorded(request)
        return reply if reply is not None and is_whole(reply) else None

    def _recorded(self, request: LMRequest) -> LMReply | None:
        body = None if self._live else self._replies.get(request_key(request))
        if body is None:
            return None
        used, calls = usage_of(body.get("usage")).as_cached(), tuple(body.get("tool_calls", ()))
        return LMReply(body["text"], calls, used, cached=True, finish=body.get("finish"))

    def _keep(self, key: str, request: LMRequest, reply: LMReply) -> None:
        body = {
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
        with self._lock:
            known = self._replies.get(key)
            if known is None or not is_whole(LMReply("", finish=known.get("finish"))):  # of two lines the later counts
                self._replies[key] = body
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("a", encoding="utf-8") as stream:
                    stream.write(redact_known(json.dumps(body, ensure_ascii=False)) + "\n")
