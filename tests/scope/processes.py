"""What tests run in other processes: importable, as another process needs it."""

from __future__ import annotations

import asyncio

import dspynb as dn
from dspynb.errors import ScopeError
from dspynb.scope import setting
from tests.helpers import Caption, echo_hint

PREDICT = dn.Predict(Caption, lm=echo_hint())


def look(predict):
    """What a predictor of another process sees, without a snapshot: its uid travelled with it."""
    return dn.current_hint(predict), dn.current_attempt(), setting("concurrency")


def look_under(snapshot, predict):
    """The same under a snapshot; the error's text if it is refused."""
    try:
        with snapshot.enter():
            return look(predict)
    except ScopeError as error:
        return str(error)


def ask_under(snapshot, predict):
    """A real call under a snapshot: what the model was told."""
    predict.lm = echo_hint()
    with snapshot.enter():
        return asyncio.run(predict(subject="x")).sentence
