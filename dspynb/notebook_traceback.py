"""Short tracebacks in notebooks: the user's own lines and the message. ``%tb Verbose`` shows all of it."""

from __future__ import annotations

import sys
import sysconfig
import traceback
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["notebook_traceback", "shorten_groups"]

_MOST_FRAMES = 4
"""The frames shown of one error. The innermost ones are left out: where the user called dspynb matters most."""
_SHORT_MODE = "Context"
"""IPython's default ``%xmode``. Any other mode is a request for another traceback, which IPython then writes."""


def notebook_traceback(error: BaseException) -> list[str]:
    """The text that IPython shows for an uncaught error, for ``_render_traceback_``.

    Of the traceback only the frames of the user's own files and cells are shown, then the error and its message. The
    same for each error that caused it, if the user's code is in its traceback, as in an error that a metric raised.
    """
    shell = _shell()
    if shell is not None and shell.InteractiveTB.mode != _SHORT_MODE:
        full: list[str] = shell.InteractiveTB.structured_traceback(type(error), error, error.__traceback__)
        return full
    parts: list[str] = []
    hidden = 0
    for cause in reversed(list(_causes(error))):
        frames = list(traceback.walk_tb(cause.__traceback__))
        shown = [(frame, line) for frame, line in frames if _is_users(frame.f_code.co_filename)]
        hidden += len(frames) - len(shown)
        if cause is not error and not shown:
            continue
        parts += [_frame_text(frame.f_code.co_filename, line, shell) for frame, line in shown[:_MOST_FRAMES]]
        if cause is not error:
            parts.append(f"{_message(cause)}\n")
    if hidden:
        parts.append(f"(frames of libraries that are not shown: {hidden}; %tb Verbose shows all)\n")
    parts.append(_message(error))
    return parts


def shorten_groups(group: type[BaseExceptionGroup[Any]]) -> None:
    """Have IPython show exception groups of this type with ``notebook_traceback``, too.

    IPython writes groups in full and does not call their ``_render_traceback_``. A handler of custom exceptions that
    the user has set remains.
    """
    shell = _shell()
    if shell is not None and not shell.custom_exceptions:
        shell.set_custom_exc((group,), _show_group)


def _show_group(shell: Any, kind: type[BaseException], error: BaseException, _: Any, **_settings: Any) -> None:
    shell._showtraceback(kind, error, notebook_traceback(error))


def _shell() -> Any:
    """The running IPython; None elsewhere."""
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, its cause, the cause of that, and so on. Of an exception group, the last of its exceptions counts as
    the cause."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.exceptions[-1] if isinstance(cause, BaseExceptionGroup) else cause.__cause__


@cache
def _library_folders() -> tuple[str, ...]:
    """The folders of dspynb, of installed packages and of the standard library."""
    paths = sysconfig.get_paths()
    installed = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return (str(Path(__file__).parent), *sorted(installed))


def _is_users(file: str) -> bool:
    """Whether a file is neither dspynb's nor of another library. The text of a notebook's cell counts as a file."""
    return not file.startswith(("<frozen ", "<string>", *_library_folders()))


def _frame_text(file: str, line: int, shell: Any) -> str:
    """Where a frame is, as IPython says it, and its line of code."""
    cell = None if shell is None else shell.compile.format_code_name(file)
    place = f"{cell[0]} {cell[1]}" if cell else f"File {_relative(file)}"
    code = traceback.FrameSummary(file, line, "").line
    return f"{place}, line {line}\n    {code}\n" if code else f"{place}, line {line}\n"


def _relative(file: str) -> str:
    try:
        return str(Path(file).relative_to(Path.cwd()))
    except (OSError, ValueError):
        return file


def _message(error: BaseException) -> str:
    return "".join(traceback.format_exception_only(error)).rstrip("\n").removeprefix(f"{type(error).__module__}.")
