"""Language models: the protocol, providers, the embedded model, recordings, doubles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dspynb.lm.client import LM
from dspynb.lm.protocol import (
    LMProtocol,
    LMReply,
    LMRequest,
    check_reply,
    refuse_media,
    request_key,
    sent_settings,
    without_secrets,
)
from dspynb.lm.recorded import RecordedLM, recorded
from dspynb.lm.resolve import check_lm, resolve_lm
from dspynb.lm.testing import FunctionLM, ScriptedLM

if TYPE_CHECKING:
    from dspynb.lm.local import LocalLM

__all__ = [
    "LM",
    "FunctionLM",
    "LMProtocol",
    "LMReply",
    "LMRequest",
    "LocalLM",
    "RecordedLM",
    "ScriptedLM",
    "check_lm",
    "check_reply",
    "recorded",
    "refuse_media",
    "request_key",
    "resolve_lm",
    "sent_settings",
    "without_secrets",
]


def __getattr__(name: str) -> Any:
    """The embedded model, loaded when it is first used: who has a hosted model does not need it."""
    if name == "LocalLM":
        from dspynb.lm.local import LocalLM

        return LocalLM
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
