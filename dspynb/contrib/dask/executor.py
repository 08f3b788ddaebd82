"""DaskExecutor: rollouts on the workers of a Dask cluster, events and results in the run that asked for them."""

from __future__ import annotations

import functools
import inspect
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from dspynb.contrib.dask.cluster import Cluster, Parcel
from dspynb.contrib.dask.job import Grant, Job, Ref, Reply
from dspynb.contrib.dask.serialization import digest, pack, unpack_reply
from dspynb.errors import BudgetExhausted
from dspynb.events import Event, PredictorCalled, new_span
from dspynb.keywords import configurable
from dspynb.options import Seconds
from dspynb.running.call_history import remember
from dspynb.scope.budget import Allowance
from dspynb.scope.call_context import Place
from dspynb.scope.core import Scope, current_scope
from dspynb.scope.gate import GATE
from dspynb.scope.hints import mask
from dspynb.scope.snapshot import unchecked_snapshot

__all__ = ["DaskExecutor"]

F = TypeVar("F")
_SENT_ONCE = frozenset({"lm", "adapter"})
"""Fields whose values may be large: they travel once to each worker, and later jobs refer to them."""
_HERE = {"view": "off", "runs_dir": None}
"""Settings of a worker: what is shown and kept is shown and kept by the coordinator."""


class DaskExecutor:
    """Runs rollouts on a Dask cluster: ``dn.DaskExecutor("tcp://scheduler:8786")``.

    ``client``: the address of a scheduler, a ``Client`` or a cluster.

    Give it as ``executor=`` to ``evaluate``, ``compare``, ``grid``, ``module.batch`` and the optimizers. Needs the
    extra ``scale``. Every worker runs whole rollouts on an event loop of its own, as many as ``concurrency=`` allows in
    all; budget, order, Stop, tables and files are those of a local run, and so is the result for the same seed.

    User code travels as Dask's users expect (cloudpickle: what stands in a notebook is sent, what is in a module must
    be importable on the workers). Keys do not travel: workers take theirs from their own environment. Limits of a model
    (``rpm``, ``concurrency``) hold in each worker. ``timeout``: seconds to wait for the scheduler, and for a worker.

    A run is steered as a local one is, at the coordinator: while it is paused no further rollout is sent, and those on
    workers go on to their end. The Refines on workers take no hints of a person (``run.suggest_hint`` is refused, and a
    run that is resumed here leaves out those of its file).

    Raises ConfigurationError without the extra; a run raises ExecutorError where the cluster cannot be reached or used,
    or has gone: what had finished is in its tables and file, and it can be resumed.

    >>> from distributed import LocalCluster
    >>> program = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
    >>> rows = [{"question": "2+2?", "answer": "4"}, {"question": "1+3?", "answer": "4"}]
    >>> with LocalCluster(processes=False, protocol="tcp", dashboard_address=None) as cluster:
    ...     executor = dn.DaskExecutor(cluster)  # or of an address: dn.DaskExecutor("tcp://scheduler:8786")
    ...     done = dn.Evaluate(dn.metrics.exact_match(), executor=executor).run_sync(program, rows)
    ...     executor.close()
    >>> done.table.score.tolist()
    [1.0, 1.0]
    """

    @configurable()
    def __init__(self, client: Any, *, timeout: Seconds = 30.0) -> None:
        self.cluster = Cluster(client, float(timeout))

    def carry(self, fn: Any, once: tuple[str, ...] = ()) -> Any:
        """``fn`` on the cluster: see Executor."""
        carried = _Carried(self.cluster, fn, once)

        @functools.wraps(fn)
        async def run(*args: Any, **kwargs: Any) -> Any:
            return await carried(*args, **kwargs)

        return run

    def close(self) -> None:
        """Close the connection, if it was made here. The cluster stays as it is."""
        self.cluster.close()

    def __repr__(self) -> str:
        return f"DaskExecutor({self.cluster.address!r})"


class _Carried:
    """A function on the cluster, for one run: what travels once is kept for its length."""

    def __init__(self, cluster: Cluster, fn: Any, once: tuple[str, ...]) -> None:
        self._cluster, self._fn, self._once = cluster, fn, once
        self._signature = inspect.signature(fn)
        self._shipped: dict[int, tuple[Any, str, bytes]] = {}  # the value too: an id may be given again once it is gone
        self._held: dict[str, Any] = {}  # what has been sent, by key

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The same as the function, from a worker."""
        given = dict(self._signature.bind(*args, **kwargs).arguments)
        funds: Allowance | None = given.get("funds")
        given |= {"funds": None} if funds is not None else {}
        scope = current_scope()
        shipped: dict[str, bytes] = {}
        arguments = {n: self._ref(v, n, shipped) if n in self._once else v for n, v in given.items()}
        await self._cluster.ready()
        if GATE.shut:
            await GATE.passed(scope)
        job = self._job(scope, arguments, shipped, Grant.of(scope, funds))
        charged = _Charged(scope, funds, given.get("opened"))
        packed = pack(job, "the rollout")
        reply = await self._cluster.run(Parcel(job.id, packed, shipped, self._held, charged.answer))
        return charged.take_in(reply)

    def _job(self, scope: Scope, arguments: Mapping[str, Any], shipped: dict[str, bytes], grant: Grant) -> Job:
        taken, run = unchecked_snapshot(), scope.open_run
        settings = self._shipped_once({**taken.settings, **_HERE}, shipped)
        context = self._shipped_once(taken.context, shipped)
        return Job(
            id=uuid.uuid4().hex,
            fn=self._fn,
            arguments=arguments,
            snapshot=replace(taken, settings=settings, context=context),
            paths=dict(getattr(run, "paths", {})),
            name=str(getattr(run, "name", "")),
            grant=grant,
        )

    def _shipped_once(self, values: Mapping[str, Any], shipped: dict[str, bytes]) -> dict[str, Any]:
        """The values, with references in place of models and adapters, which are sent to a worker once."""
        sent = dict(values)
        for name in _SENT_ONCE & values.keys():
            if not isinstance(values[name], str):
                sent[name] = self._ref(values[name], f"the setting {name}", shipped)
        return sent

    def _ref(self, value: Any, what: str, shipped: dict[str, bytes]) -> Ref:
        known = self._shipped.get(id(value))
        if known is None:
            data = pack(value, what)
            known = self._shipped[id(value)] = (value, digest(data), data)
        shipped[known[1]] = known[2]
        return Ref(known[1])


class _Charged:
    """The coordinator's side of one job: answers what it asks, and takes in what came of it."""

    def __init__(self, scope: Scope, funds: Allowance | None, opened: int | None) -> None:
        self._scope, self._funds, self._opened = scope, funds, opened

    def answer(self, question: Mapping[str, Any]) -> Any:
        """Of a question about calls: None where they were taken, else why not. Of one about what a resumed run has
        kept: that. From any thread."""
        if "calls" not in question:
            return self._scope.context.interceptor(Place.RESUME_LOG).answer(question)
        try:
            (self._funds or self._scope).take(question["calls"], question["metric_calls"])
        except BudgetExhausted as error:
            return str(error)
        return None

    def take_in(self, reply: Reply) -> Any:
        """Charge what was spent, tell the events, and give or raise the result."""
        scope = self._scope
        (self._funds or scope).give_back(*reply.left)
        scope.charge(*reply.used, reply.usage, reply.estimate)
        spans = _Spans({0: scope.open_span, reply.opened: self._opened})
        events, result = unpack_reply(reply.packed, scope.open_run, spans.here, spans.moved)
        for place, event in enumerate(events):
            _tell(event, masked=place in reply.masked)
        if reply.raised:
            raise result
        return result


def _tell(event: Event, *, masked: bool) -> None:
    """Emit an event of a job here; one that a mask hid from traces there, under a mask."""
    if isinstance(event, PredictorCalled):
        remember(event)
    if masked:
        with mask() as scope:
            scope.emit(event)
    else:
        current_scope().emit(event)


class _Spans:
    """Span numbers of another process, as numbers of this one. ``known``: those of spans that were begun here."""

    def __init__(self, known: Mapping[Any, Any]) -> None:
        self._here: dict[int, int] = dict(known)

    def here(self, span: int) -> int:
        """Its number here."""
        if span not in self._here:
            self._here[span] = new_span()
        return self._here[span]

    def moved(self, event: Event) -> Event:
        """The event with numbers of this process."""
        return replace(event, span=self.here(event.span), parent=self.here(event.parent))
