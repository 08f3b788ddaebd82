"""Exceptions that are not of class Exception, such as SystemExit: did user code or a signal handler raise them?

A metric that calls ``sys.exit()`` should fail its row, not the process: asyncio raises SystemExit and KeyboardInterrupt
through the event loop, which would end a kernel. But Ctrl-C, and a SIGTERM handler that calls ``sys.exit()``, must end
the running work, even in the middle of a metric.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from _signal import SIGINT, default_int_handler, getsignal, valid_signals  # `signal` would convert handlers to enums
from collections.abc import Callable
from opcode import opmap
from types import CodeType, FrameType, TracebackType

from dspynb.errors import is_control_flow, shorten

__all__ = ["exit_text", "handles_signals", "is_exit"]

_RAISE = opmap["RAISE_VARARGS"]
_OWN_HANDLERS: set[CodeType] = set()


def is_exit(error: BaseException) -> bool:
    """Whether user code raised an exception that is not of class Exception. Callers replace it by an Exception.

    False for a CancelledError (see ``running.user_code``), for the closing of a generator, and for exceptions of signal
    handlers (Ctrl-C, SIGTERM).
    """
    if isinstance(error, Exception | asyncio.CancelledError):
        return False
    if isinstance(error, BaseExceptionGroup):
        exits = [member for member in error.exceptions if not isinstance(member, Exception)]
        return not is_control_flow(error) and all(map(is_exit, exits))
    if isinstance(error, GeneratorExit):
        return _from_raise_statement(error.__traceback__)  # closing a generator raises it without a statement
    return not _from_signal(error)


def exit_text(error: BaseException) -> str:
    """What user code did, as the end of a sentence: ``called sys.exit(3)``, ``raised KeyboardInterrupt``."""
    if type(error) is SystemExit:
        if error.code is None:
            return "called sys.exit()"
        return f"called sys.exit({shorten(repr(error.code), 200)})"
    try:
        text = shorten(error)
    except Exception:  # the exception's __str__ fails
        text = ""
    problem = f"raised {type(error).__name__}"
    return f"{problem}: {text}" if text else problem


def _from_signal(error: BaseException) -> bool:
    """Whether a signal handler raised an exception, its cause or its context."""
    if threading.get_ident() != threading.main_thread().ident:  # handlers run in the main thread
        return False
    traceback = error.__traceback__
    codes = _handler_codes()
    while traceback is not None:
        if traceback.tb_frame.f_code in codes:
            return True
        traceback = traceback.tb_next
    has_default_handler = isinstance(error, KeyboardInterrupt) and getsignal(SIGINT) is default_int_handler
    if has_default_handler and not _from_raise_statement(error.__traceback__):
        return True  # Python's own handler has no frame, and raises without a statement
    cause = error.__cause__ or error.__context__
    return cause is not None and not isinstance(cause, Exception) and _from_signal(cause)


def _from_raise_statement(traceback: TracebackType | None) -> bool:
    if traceback is None:
        return False
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    bytecode = traceback.tb_frame.f_code.co_code
    position = traceback.tb_lasti
    return 0 <= position < len(bytecode) and bytecode[position] == _RAISE


def _handler_codes() -> set[CodeType]:
    """The code of dspynb's signal handlers and of those that are set now."""
    codes = set(_OWN_HANDLERS)
    for number in valid_signals():
        code = _code(getsignal(number))
        if code is not None:
            codes.add(code)
    return codes


def handles_signals(handler: Callable[[int, FrameType | None], None]) -> Callable[[int, FrameType | None], None]:
    """Decorator for dspynb's signal handlers. Their exceptions are recognized even after the handler is removed."""
    _OWN_HANDLERS.add(handler.__code__)
    return handler


def _code(handler: object) -> CodeType | None:
    """The code of a signal handler; None if it is not a Python function or callable object."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    handler = getattr(handler, "__func__", handler)
    code = getattr(handler, "__code__", None)
    if code is None:
        code = getattr(vars(type(handler)).get("__call__"), "__code__", None)
    return code
