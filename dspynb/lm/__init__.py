"""Language models: the protocol, providers, the embedded model, recordings, doubles."""

from dspynb.lm.client import LM
from dspynb.lm.local import LocalLM
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
