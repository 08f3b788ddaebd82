"""Exceptions that are no errors, such as SystemExit: whether user code raised them, or a signal that ends the process.

A metric that calls ``sys.exit()`` must cost its row and not the process: asyncio raises SystemExit and
KeyboardInterrupt through the event loop, which ends a kernel. But Ctrl-C, and a handler of SIGTERM that calls
``sys.exit()``, must end what they interrupt, also in the middle of a metric.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from _signal import SIGINT, default_int_handler, getsignal, valid_signals  # those of `signal` show handlers as text
from collections.abc import Callable
from opcode import opmap
from types import CodeType, FrameType, TracebackType
from typing import Any

from dspynb.errors import is_control_flow, shorten

__all__ = ["exit_text", "handles_signals", "is_exit"]

_RAISE = opmap["RAISE_VARARGS"]


def is_exit(error: BaseException) -> bool:
    """Whether user code raised an exception that is no Exception, so that it has to be made one.

    False for a CancelledError (``running.user_code`` judges these), for a generator that is being closed, and for what
    a signal handler raised: Ctrl-C, SIGTERM.
    """
    if isinstance(error, Exception | asyncio.CancelledError):
        return False
    if isinstance(error, BaseExceptionGroup):
        leaves = [one for one in error.exceptions if not isinstance(one, Exception)]
        return not is_control_flow(error) and all(map(is_exit, leaves))
    if isinstance(error, GeneratorExit):
        return _by_raise_statement(error.__traceback__)  # closing a generator raises it without a statement
    return not _by_signal(error)


def exit_text(error: BaseException) -> str:
    """What user code did, to follow its name: ``called sys.exit(3)``, ``raised KeyboardInterrupt``."""
    if type(error) is SystemExit:
        return f"called sys.exit({'' if error.code is None else shorten(repr(error.code), 200)})"
    try:
        text = shorten(error)
    except Exception:  # any class may have any text
        text = ""
    return f"raised {type(error).__name__}" + (f": {text}" if text else "")


def _by_signal(error: BaseException) -> bool:
    """Whether a signal handler raised it, or raised what it was raised from."""
    if threading.get_ident() != threading.main_thread().ident:  # handlers run in the main thread
        return False
    traceback = error.__traceback__
    codes = _handler_codes()
    while traceback is not None:
        if traceback.tb_frame.f_code in codes:
            return True
        traceback = traceback.tb_next
    by_python = isinstance(error, KeyboardInterrupt) and getsignal(SIGINT) is default_int_handler
    if by_python and not _by_raise_statement(error.__traceback__):
        return True  # Python's own handler has no frame, and what it raises is raised by no statement
    before = error.__cause__ or error.__context__
    return before is not None and not isinstance(before, Exception) and _by_signal(before)


def _by_raise_statement(traceback: TracebackType | None) -> bool:
    if traceback is None:
        return False
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    code, at = traceback.tb_frame.f_code.co_code, traceback.tb_lasti
    return 0 <= at < len(code) and code[at] == _RAISE


def _handler_codes() -> set[CodeType]:
    codes = {_code(getsignal(number)) for number in valid_signals()} | _OWN_HANDLERS
    return {code for code in codes if code is not None}


_OWN_HANDLERS: set[CodeType] = set()


def handles_signals(handler: Callable[[int, FrameType | None], None]) -> Callable[[int, FrameType | None], None]:
    """Decorates a signal handler of ours: what it raises is known as a signal's, also once it is no longer set."""
    _OWN_HANDLERS.add(handler.__code__)
    return handler


def _code(handler: Any) -> CodeType | None:
    """The code of a Python function that handles a signal; None for what is none."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    handler = getattr(handler, "__func__", handler)
    code = getattr(handler, "__code__", None)
    return code if code is not None else getattr(vars(type(handler)).get("__call__"), "__code__", None)
