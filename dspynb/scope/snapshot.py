"""Snapshots: a scope as a value that can be pickled, for another process."""

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
    """This machine and its present boot: elsewhere a missing marker or process says nothing."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return f"{platform.node()}/{boot.read_text().strip() if boot.exists() else ''}"


@dataclass(frozen=True)
class Snapshot:
    """A scope that travels: settings and call context (each as field name to value), hints by predictor uid, candidate,
    run and span ids. Holds no key: models take theirs from the environment of the process they arrive in. Enter it
    with ``with snapshot.enter():``."""

    settings: Mapping[str, Any]
    context: Mapping[str, Any]
    hints: tuple[HintLayer, ...] = ()
    candidate: Mapping[str, Part] = field(default_factory=dict)
    attempt: Attempt | None = None
    run: str | None = None
    span: int = 0
    marker: str | None = None  # a file that is there as long as the attempt or block is open
    pid: int = field(default_factory=os.getpid)
    host: str = field(default_factory=_host)
    version: int = VERSION

    @contextlib.contextmanager
    def enter(self) -> Iterator[Scope]:
        """The snapshot's settings, hints and candidate for the block.

        Raises ScopeError when the attempt or block it was taken in has ended (where that can be known: on the same
        machine), or when it was made by another version.
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
        if (
            self.marker is not None
            and self.host == _host()
            and (not Path(self.marker).exists() or not _alive(self.pid))
        ):
            raise ScopeError(
                "the attempt or block in which this snapshot was taken has ended, and with it its hints; "
                "take the snapshot where the work is still awaited"
            )


def snapshot() -> Snapshot:
    """The scope in force here as a picklable value. Raises ScopeError naming a setting that cannot be pickled, and in
    a replay, whose recording stays in its process.

    >>> import pickle
    >>> with dn.hints("Be brief."):
    ...     sent = pickle.dumps(dn.snapshot())
    ...     with pickle.loads(sent).enter():  # in the other process, while the block here is open
    ...         dn.current_hint()
    'Be brief.'
    """
    taken, leases = (
        unchecked_snapshot(),
        [layer.lease for layer in current_scope().visible() if layer.lease is not None],
    )
    for name, value in [*taken.settings.items(), *taken.context.items()]:
        _check_pickles(name, value)
    return replace(taken, marker=_marker(leases[0]) if leases else None)


def unchecked_snapshot() -> Snapshot:
    """The same for who pickles it in a way of his own and ends with the scope himself: its settings may be of any kind,
    and it has no marker. Raises ScopeError in a replay."""
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


def _check_pickles(name: str, value: Any) -> None:
    try:
        pickle.dumps(value)
    except Exception as error:
        raise ScopeError(
            f"the setting {name} ({type(value).__name__}) cannot travel to another process: {shorten(error, 200)}. "
            "Define its functions at the top level of a module."
        ) from None


def _marker(lease: Lease) -> str:
    """A file that the lease removes when it closes: what another process can look at."""
    if lease.marker is None:
        handle, path = tempfile.mkstemp(prefix="dspynb-lease-")
        os.close(handle)
        lease.marker = path
    return lease.marker


def _alive(pid: int) -> bool:
    if os.name == "nt":
        return True  # not known: os.kill(pid, 0) would send Ctrl-C there
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
