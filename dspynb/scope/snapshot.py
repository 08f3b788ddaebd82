"""Snapshots: scopes as values that can be pickled and sent to another process."""

from __future__ import annotations

import contextlib
import os
import pickle
import platform
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dspynb.errors import ScopeError, shorten
from dspynb.scope.call_context import as_snapshot
from dspynb.scope.candidates import Part
from dspynb.scope.core import Attempt, HintLayer, Layer, Lease, Scope, current_scope
from dspynb.scope.settings import settings_in_force

__all__ = ["Snapshot", "snapshot", "unchecked_snapshot"]

VERSION = 2


def _host() -> str:
    """The name of this machine and of its current boot. Only there does a missing marker file or process mean that the
    block of a snapshot has ended."""
    boot_file = Path("/proc/sys/kernel/random/boot_id")
    boot = boot_file.read_text().strip() if boot_file.exists() else ""
    return f"{platform.node()}/{boot}"


@dataclass(frozen=True)
class Snapshot:
    """A scope for another process: settings and call context (each as field name to value), hints by predictor uid,
    candidate, ids of run and span. Contains no API keys: models read theirs from the environment of the other process.
    Use it with ``with snapshot.enter():``."""

    settings: Mapping[str, Any]
    context: Mapping[str, Any]
    hints: tuple[HintLayer, ...] = ()
    candidate: Mapping[str, Part] = field(default_factory=dict)
    attempt: Attempt | None = None
    run: str | None = None
    span: int = 0
    marker: str | None = None  # a file that exists as long as the attempt or block is open
    pid: int = field(default_factory=os.getpid)
    host: str = field(default_factory=_host)
    version: int = VERSION

    @contextlib.contextmanager
    def enter(self) -> Iterator[Scope]:
        """Apply the snapshot's settings, hints and candidate to the block.

        Raises ScopeError if the attempt or block in which the snapshot was taken has ended (which is known on the same
        machine only), or if another version made the snapshot.
        """
        self._check()
        here = current_scope()
        settings = replace(here.settings, **self.settings)
        context = replace(here.context, **self.context)
        with ExitStack() as stack:
            stack.enter_context(Layer("a snapshot", settings=settings, context=context, masks=True))
            for hints in self.hints:
                stack.enter_context(Layer("a snapshot", hints=hints))
            yield stack.enter_context(Layer("a snapshot", candidate=self.candidate or None, attempt=self.attempt))

    def _check(self) -> None:
        if self.version != VERSION:
            raise ScopeError(f"this snapshot has version {self.version}, this dspynb reads {VERSION}; use one version")
        if self.marker is None or self.host != _host():
            return
        if not Path(self.marker).exists() or not _alive(self.pid):
            raise ScopeError(
                "the attempt or block in which this snapshot was taken has ended, and with it its hints; "
                "take the snapshot where the work is still awaited"
            )


def snapshot() -> Snapshot:
    """The scope in force here as a picklable value. Raises ScopeError, which names the setting, for a setting that
    cannot be pickled, and inside a replay, since a recording stays in its process.

    >>> import pickle
    >>> with dn.hints("Be brief."):
    ...     sent = pickle.dumps(dn.snapshot())
    ...     with pickle.loads(sent).enter():  # in the other process, while the block here is open
    ...         dn.current_hint()
    'Be brief.'
    """
    unchecked = unchecked_snapshot()
    for name, value in [*unchecked.settings.items(), *unchecked.context.items()]:
        _check_pickles(name, value)
    for layer in current_scope().visible():
        if layer.lease is not None:
            return replace(unchecked, marker=_marker(layer.lease))
    return unchecked


def unchecked_snapshot() -> Snapshot:
    """A snapshot without a marker file, whose settings may be of any type. For callers that pickle the snapshot in
    their own way and await the work inside the scope. Raises ScopeError inside a replay."""
    scope = current_scope()
    layers = list(scope.visible())
    candidate: dict[str, Part] = {}
    for layer in reversed(layers):
        candidate |= layer.candidate or {}
    return Snapshot(
        settings=as_snapshot(settings_in_force(scope)),
        context=as_snapshot(scope.context),
        hints=tuple(layer.hints for layer in reversed(layers) if layer.hints is not None),
        candidate=candidate,
        attempt=scope.open_attempt,
        run=getattr(scope.open_run, "id", None),
        span=scope.open_span,
    )


def _check_pickles(name: str, value: object) -> None:
    try:
        pickle.dumps(value)
    except Exception as error:
        raise ScopeError(
            f"the setting {name} ({type(value).__name__}) cannot be sent to another process: {shorten(error, 200)}. "
            "Define its functions at the top level of a module."
        ) from None


def _marker(lease: Lease) -> str:
    """The path of a file that the lease removes when it closes. Another process can check whether the file exists."""
    if lease.marker is None:
        handle, path = tempfile.mkstemp(prefix="dspynb-lease-")
        os.close(handle)
        lease.marker = path
    return lease.marker


def _alive(pid: int) -> bool:
    if os.name == "nt":
        return True  # unknown: on Windows os.kill(pid, 0) would send Ctrl-C
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
