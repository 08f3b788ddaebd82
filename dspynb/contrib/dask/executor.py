"""DaskExecutor: runs rollouts on the workers of a Dask cluster. Events and results belong to the run that sent them."""

from __future__ import annotations

import functools
import inspect
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from dspynb.contrib.dask.cluster import Cluster, PackedJob
from dspynb.contrib.dask.job import Grant, Job, Ref, Reply
from dspynb.contrib.dask.serialization import digest, pack, unpack_reply
from dspynb.errors import BudgetExhausted
from dspynb.events import Event, PredictorCalled, ProfileChanged, new_span
from dspynb.keywords import configurable
from dspynb.options import Seconds
from dspynb.running.call_history import remember
from dspynb.running.reader import RunReader
from dspynb.scope.allowances import Allowance
from dspynb.scope.call_context import Place
from dspynb.scope.core import Layer, Scope, current_scope
from dspynb.scope.gate import GATE
from dspynb.scope.snapshot import unchecked_snapshot

__all__ = ["DaskExecutor"]

F = TypeVar("F")
_SHARED_SETTINGS = frozenset({"lm", "adapter"})
"""Settings whose values may be large. They are sent to each worker once, and jobs refer to them."""
_WORKER_SETTINGS = {"view": "off", "runs_dir": None}
"""Settings on a worker. Views and run files belong to the coordinator."""


class DaskExecutor:
    """Runs rollouts on a Dask cluster: ``dn.DaskExecutor("tcp://scheduler:8786")``.

    Pass it as ``executor=`` to ``evaluate``, ``compare``, ``grid``, ``module.batch`` or an optimizer. It needs the
    extra ``scale``. The setting ``concurrency`` limits the number of rollouts on all workers together. Order, Stop,
    tables, files and budgets of calls and rollouts work as in a local run, and the same seed gives the same result. Of
    a budget of tokens or USD, each rollout has what is left when it is sent, so that rollouts at the same time can
    exceed it together.

    ``client``: the address of a scheduler, a ``Client`` or a cluster. ``timeout``: seconds to wait for the scheduler
    and for a worker, 30 by default.

    User code is sent with cloudpickle: code in a notebook is sent with the job, and modules must be importable on the
    workers. API keys are not sent; workers read theirs from their own environment. The limits of a model (``rpm``,
    ``concurrency``) hold in each worker.

    The run is steered in the process that started it. While it is paused, no further rollout is sent; rollouts on
    workers continue. ``run.suggest_hint`` is refused, and resuming with this executor ignores hints in the run file.

    Raises ConfigurationError without the extra. A run raises ExecutorError if the cluster cannot be reached or used, or
    is lost; the rollouts that had finished are in its tables and file, and the run can be resumed.

    >>> from distributed import LocalCluster
    >>> program = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
    >>> rows = [{"question": "2+2?", "answer": "4"}, {"question": "1+3?", "answer": "4"}]
    >>> with LocalCluster(processes=False, protocol="tcp", dashboard_address=None) as cluster:
    ...     executor = dn.DaskExecutor(cluster)  # or an address: dn.DaskExecutor("tcp://scheduler:8786")
    ...     done = dn.Evaluate(dn.metrics.exact_match(), executor=executor).run_sync(program, rows)
    ...     executor.close()
    >>> done.table.score.tolist()
    [1.0, 1.0]
    """

    @configurable()
    def __init__(self, client: Any, *, timeout: Seconds = 30.0) -> None:
        self.cluster = Cluster(client, float(timeout))

    def carry(self, fn: Callable[..., Any], once: tuple[str, ...] = ()) -> Any:
        """A function that runs ``fn`` on the cluster. For its arguments, see Executor."""
        remote = _RemoteFunction(self.cluster, fn, once)

        @functools.wraps(fn)
        async def run(*args: Any, **kwargs: Any) -> Any:
            return await remote(*args, **kwargs)

        return run

    def close(self) -> None:
        """Disconnect from the cluster, which continues to run. A Client that was passed stays open."""
        self.cluster.close()

    def __repr__(self) -> str:
        return f"DaskExecutor({self.cluster.address!r})"


class _RemoteFunction:
    """A function that runs on the cluster, for one run. Its shared values stay in the cluster for as long as it."""

    def __init__(self, cluster: Cluster, fn: Callable[..., Any], once: tuple[str, ...]) -> None:
        self._cluster = cluster
        self._fn = fn
        self._once = once
        self._signature = inspect.signature(fn)
        # (value, key, bytes) by the id of the value. The value is in it, so that its id is not used for another one.
        self._packed: dict[int, tuple[Any, str, bytes]] = {}
        self._sent_values: dict[str, Any] = {}  # Dask futures by key

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the function on a worker. Returns its result, or raises its error."""
        arguments = dict(self._signature.bind(*args, **kwargs).arguments)
        funds: Allowance | None = arguments.get("funds")
        if funds is not None:
            arguments["funds"] = None
        scope = current_scope()
        shared_values: dict[str, bytes] = {}
        for name in self._once:
            if name in arguments:
                arguments[name] = self._share(arguments[name], name, shared_values)
        await self._cluster.ready()
        if GATE.shut:
            await GATE.passed(scope)
        job = self._job(scope, arguments, shared_values, Grant.of(scope, funds))
        local = _LocalSide(scope, funds, arguments.get("opened"))
        payload = pack(job, "the rollout")
        reply = await self._cluster.run(PackedJob(job.id, payload, shared_values, self._sent_values, local.answer))
        return local.receive(reply)

    def _job(self, scope: Scope, arguments: Mapping[str, Any], shared_values: dict[str, bytes], grant: Grant) -> Job:
        snapshot = unchecked_snapshot()
        run = scope.open_run
        settings = self._share_settings({**snapshot.settings, **_WORKER_SETTINGS}, shared_values)
        context = self._share_settings(snapshot.context, shared_values)
        return Job(
            id=uuid.uuid4().hex,
            fn=self._fn,
            arguments=arguments,
            snapshot=replace(snapshot, settings=settings, context=context),
            paths=dict(getattr(run, "paths", {})),
            name=str(getattr(run, "name", "")),
            grant=grant,
        )

    def _share_settings(self, settings: Mapping[str, Any], shared_values: dict[str, bytes]) -> dict[str, Any]:
        """The settings, with references in place of models and adapters."""
        with_references = dict(settings)
        for name in _SHARED_SETTINGS & settings.keys():
            if not isinstance(settings[name], str):
                with_references[name] = self._share(settings[name], f"the setting {name}", shared_values)
        return with_references

    def _share(self, value: object, description: str, shared_values: dict[str, bytes]) -> Ref:
        """Add a value to the shared values of a job, and return the reference to it. A value is pickled once."""
        packed = self._packed.get(id(value))
        if packed is None:
            data = pack(value, description)
            packed = (value, digest(data), data)
            self._packed[id(value)] = packed
        _, key, data = packed
        shared_values[key] = data
        return Ref(key)


class _LocalSide:
    """The coordinator's side of one job: it answers the questions of the job, and receives its reply."""

    def __init__(self, scope: Scope, funds: Allowance | None, opened: int | None) -> None:
        self._scope = scope
        self._funds = funds
        self._opened = opened

    def answer(self, question: Mapping[str, Any]) -> Any:
        """Answer a question. Called from any thread.

        Asked for calls, it takes them from the budget and returns None, or returns the reason why it cannot. Any other
        question is for the log of a resumed run.
        """
        if "calls" not in question:
            return self._scope.context.interceptor(Place.RESUME_LOG).answer(question)
        try:
            (self._funds or self._scope).take(question["calls"], question["metric_calls"])
        except BudgetExhausted as error:
            return str(error)
        return None

    def receive(self, reply: Reply) -> Any:
        """Charge what the job used, emit its events, and return its result or raise its error."""
        scope = self._scope
        (self._funds or scope).give_back(*reply.unused)
        scope.charge(*reply.used, reply.usage, reply.estimate)
        spans = _SpanNumbers({0: scope.open_span, reply.opened: self._opened})
        events, result = unpack_reply(reply.payload, scope.open_run, spans.translate, spans.renumber)
        for index, event in enumerate(events):
            if not _is_known_profile(event, scope.open_run):
                _emit_here(event, hide_from_traces=index in reply.masked)
        if reply.raised:
            raise result
        return result


def _is_known_profile(event: Event, run: object) -> bool:
    """Whether an event says what the run has recorded already: each worker learns what a model refuses."""
    if not isinstance(event, ProfileChanged) or not isinstance(run, RunReader):
        return False
    return run.record.learned_profiles.get(event.key) == event.changes


def _emit_here(event: Event, *, hide_from_traces: bool) -> None:
    """Emit, in this process, an event that a job recorded on a worker. ``hide_from_traces``: only runs record it."""
    if isinstance(event, PredictorCalled):
        remember(event)  # for dn.history
    if hide_from_traces:
        with Layer(None, masks=True) as scope:
            scope.emit(event)
    else:
        current_scope().emit(event)


class _SpanNumbers:
    """Translates span numbers of a worker to numbers of this process.

    ``known``: the numbers of the spans that this process opened, by their numbers on the worker.
    """

    def __init__(self, known: Mapping[Any, Any]) -> None:
        self._own_numbers: dict[int, int] = dict(known)

    def translate(self, span: int) -> int:
        """The number of a span in this process."""
        if span not in self._own_numbers:
            self._own_numbers[span] = new_span()
        return self._own_numbers[span]

    def renumber(self, event: Event) -> Event:
        """The event with span numbers of this process."""
        return replace(event, span=self.translate(event.span), parent=self.translate(event.parent))
