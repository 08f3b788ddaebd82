"""What travels, as bytes: user code as Dask's users expect (cloudpickle), no keys, and errors that name the object."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from dspynb.data import Prediction
from dspynb.errors import DspynbError, ExecutorError, shorten
from dspynb.events import Event, from_json, plain, to_json
from dspynb.redact import error_text, holds_known
from dspynb.running.reader import RunReader
from dspynb.signatures.signature import Signature, rebuild

__all__ = ["digest", "pack", "pack_reply", "unpack", "unpack_reply"]

_DEPTH = 12
"""How far into an object it is looked for what does not pickle."""


@cache
def _pickler() -> type[Any]:
    """The pickler, made when it is first used: cloudpickle comes with Dask."""
    from cloudpickle import Pickler

    class Packer(Pickler):  # type: ignore[misc]
        """cloudpickle's, with what it does not know of: signatures, and models whose place is one process."""

        def reducer_override(self, obj: Any) -> Any:
            stays = getattr(type(obj), "stays_here", None)
            if isinstance(stays, str):
                raise ExecutorError(stays)
            if isinstance(obj, type) and issubclass(obj, Signature):
                if obj.__pydantic_generic_metadata__["origin"] is not None:
                    return NotImplemented  # by its origin, as copyreg knows
                reduced = super().reducer_override(obj)
                if isinstance(reduced, tuple):
                    return rebuild, (reduced[0], reduced[1]), *reduced[2:]
                return reduced
            return super().reducer_override(obj)

    return Packer


def pack(value: Any, what: str) -> bytes:
    """The value as bytes. Raises ExecutorError naming the object that does not travel, or that holds a key."""
    data = _dumped(value)
    if isinstance(data, Exception):
        where, culprit, error = _culprit(value, what, data)
        said = str(error) if isinstance(error, ExecutorError) else f"{type(error).__name__}: {shorten(error, 300)}"
        raise ExecutorError(f"{where} ({_kind(culprit)}) cannot travel to another process: {said}") from None
    if _holds_secret(data):
        where, _, _ = _culprit(value, what, None)
        raise ExecutorError(
            f"{where} holds a key that this process knows, and keys do not travel: let the worker's own environment "
            "have it (os.environ, read where it is used), or give it to dn.LM, which leaves it behind"
        )
    return data


def digest(data: bytes) -> str:
    """A name for the bytes: 32 hex digits."""
    return hashlib.sha256(data).hexdigest()[:32]


def unpack(data: bytes) -> Any:
    """The value that ``pack`` was given."""
    return pickle.loads(data)  # noqa: S301  # from the run's own coordinator or worker, as all of Dask is


def _dumped(value: Any) -> bytes | Exception:
    stream = io.BytesIO()
    try:
        _pickler()(stream, protocol=5).dump(value)
    except Exception as error:
        return error
    return stream.getvalue()


def _holds_secret(data: bytes) -> bool:
    return holds_known(data)


# ── which object it was ───────────────────────────────────────────────────────────────────────────────────────────────
def _culprit(value: Any, where: str, error: Exception | None, depth: int = _DEPTH) -> tuple[str, Any, Exception | None]:
    """The innermost object that fails as ``value`` does, with the way to it; without an error, that holds a secret."""
    for step, part in _parts_of(value) if depth and not _stays(value) else ():
        data = _dumped(part)
        if error is not None and isinstance(data, Exception):
            return _culprit(part, where + step, data, depth - 1)
        if error is None and not isinstance(data, Exception) and _holds_secret(data):
            return _culprit(part, where + step, None, depth - 1)
    return where, value, error


def _parts_of(value: Any) -> Iterator[tuple[str, Any]]:
    """What a value is made of, as code would name it."""
    if isinstance(value, str | bytes | int | float | None | type):
        return
    if isinstance(value, Mapping):
        yield from ((f"[{key!r}]", part) for key, part in value.items())
    elif dataclasses.is_dataclass(value):
        yield from ((f".{f.name}", getattr(value, f.name, None)) for f in dataclasses.fields(value))
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((f"[{i}]", part) for i, part in enumerate(value))
    elif code := getattr(value, "__code__", None):
        cells = getattr(value, "__closure__", None) or ()
        for name, cell in zip(code.co_freevars, cells, strict=False):
            yield f"'s variable {name!r}", cell.cell_contents
        found = getattr(value, "__globals__", {})
        yield from ((f"'s global {name!r}", found[name]) for name in code.co_names if name in found)
    elif (owner := getattr(value, "__self__", None)) is not None and callable(value):
        yield ".__self__", owner
    else:
        state = value.__getstate__() if hasattr(value, "__getstate__") else None
        own = state if isinstance(state, dict) else getattr(value, "__dict__", {})
        yield from ((f".{name}", part) for name, part in own.items())


def _stays(value: Any) -> bool:
    return isinstance(getattr(type(value), "stays_here", None), str)


def _kind(value: Any) -> str:
    kind = type(value)
    name = getattr(value, "__qualname__", None)
    return f"{kind.__name__} {name}" if name else f"{kind.__module__}.{kind.__qualname__}"


# ── what comes back ───────────────────────────────────────────────────────────────────────────────────────────────────
@cache
def _reply_pickler() -> type[Any]:
    class ReplyPacker(_pickler()):  # type: ignore[misc]
        """Keeps what a prediction knows of itself; events and runs are told by their place."""

        def __init__(self, stream: Any, places: Mapping[int, int], *, carefully: bool) -> None:
            super().__init__(stream, protocol=5)
            self._places, self._carefully = places, carefully

        def persistent_id(self, obj: Any) -> tuple[str, int] | None:
            if isinstance(obj, Event):
                place = self._places.get(id(obj))
                return None if place is None else ("event", place)
            if isinstance(obj, RunReader):
                return "run", obj._search
            return None

        def reducer_override(self, obj: Any) -> Any:
            if isinstance(obj, Prediction):
                values = {n: _travelling(v) for n, v in obj.items()} if self._carefully else obj.to_dict()
                return _prediction, (type(obj), values, {n: getattr(obj.meta, n) for n in _META})
            if isinstance(obj, BaseException):
                return _error_parts(obj)
            return super().reducer_override(obj)

    return ReplyPacker


_META = ("score", "usage", "calls", "run")


def _prediction(kind: type[Prediction], values: dict[str, Any], meta: dict[str, Any]) -> Prediction:
    return kind(values).with_meta(**meta)


def _travelling(value: Any) -> Any:
    """The value; as run files hold it, where it cannot travel."""
    return plain(value) if isinstance(_dumped(value), Exception) else value


def _error_parts(error: BaseException) -> Any:
    """An error as it arrives: itself, where it can be made again, else what it said."""
    data = _dumped(error)
    try:
        if not isinstance(data, Exception) and type(unpack(data)) is type(error):
            return unpack, (data,)
    except Exception:
        return DspynbError, (error_text(error),)
    return DspynbError, (error_text(error),)


def pack_reply(events: Sequence[Event], result: Any) -> bytes:
    """Events, and a result that may refer to them, as bytes. Raises ExecutorError where the result cannot travel."""
    places = {id(event): place for place, event in enumerate(events)}
    told_events = _dumped(list(events))
    if isinstance(told_events, Exception):  # with a value that only stands in its process: as run files hold them
        told_events = pickle.dumps([to_json(event) for event in events])
    error: Exception | None = None
    for carefully in (False, True):
        stream = io.BytesIO()
        try:
            _reply_pickler()(stream, places, carefully=carefully).dump(result)
        except Exception as failed:
            error = failed
        else:
            return pickle.dumps((told_events, stream.getvalue()))
    raise ExecutorError(f"what came of it cannot travel back: {error_text(error) if error else ''}")


class _ReplyReader(pickle.Unpickler):
    """Puts in the events and the run of this process."""

    def __init__(self, stream: Any, events: Sequence[Event], run: Any, span: Callable[[int], int]) -> None:
        super().__init__(stream)
        self._events, self._run, self._span = events, run, span

    def persistent_load(self, pid: Any) -> Any:
        kind, number = pid
        if kind == "event":
            return self._events[number]
        if not number or not isinstance(self._run, RunReader):
            return self._run
        return self._run.part(self._span(number))


def unpack_reply(
    data: bytes, run: Any, span: Callable[[int], int], moved: Callable[[Event], Event]
) -> tuple[list[Event], Any]:
    """Events and result. ``moved`` gives an event its place in this process, ``span`` a span its number here; ``run``
    is that of this process."""
    told_events, told_result = unpack(data)
    read = (from_json(event) if isinstance(event, dict) else event for event in unpack(told_events))
    events = [moved(event) for event in read if event is not None]
    return events, _ReplyReader(io.BytesIO(told_result), events, run, span).load()
