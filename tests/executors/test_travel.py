"""What is sent to workers: user code by value, no keys; objects that cannot be sent are named."""

from __future__ import annotations

import asyncio
import threading

import pytest
from aiohttp import web

import dspynb as dn
from dspynb.contrib.dask.cluster import Cluster
from dspynb.contrib.dask.serialization import pack, unpack
from dspynb.errors import ConfigurationError
from tests.executors.programs import doubled, program, right, rows
from tests.helpers import chat
from tests.lm.server import Server

run = asyncio.run
KEY = "sk-planted-0123456789abcdef"


@pytest.fixture
def sent_bytes(monkeypatch):
    """All bytes that are sent to workers."""
    sent = []
    submit = Cluster._submit

    def record_and_submit(self, client, job, worker):
        sent.extend([job.payload, *job.shared_values.values()])
        return submit(self, client, job, worker)

    monkeypatch.setattr(Cluster, "_submit", record_and_submit)
    return sent


def test_keys_of_models_are_not_sent(dask, sent_bytes, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY + "-env")
    lm = dn.LM(
        "openai/x", api_key=KEY, api_base="http://127.0.0.1:9/v1", retries=0, extra_headers={"X-Key": KEY + "-h"}
    )

    async def main():
        with dn.context(lm=dn.LM("openai/y", api_key=KEY + "-set")):
            return await dn.evaluate(dn.Predict("question -> answer", lm=lm), rows(3), right, executor=dask)

    evaluation = run(main())
    assert "ConnectionFailed" in evaluation.table.error.iloc[0]
    assert len(sent_bytes) >= 6
    assert not any(b"planted" in data for data in sent_bytes)
    assert any(b"openai/x" in data for data in sent_bytes)


@pytest.mark.parametrize(
    ("where", "message"),
    [("attribute", "program.client['token']"), ("closure", "'s variable 'key'"), ("row", "['question']")],
)
def test_a_key_elsewhere_is_refused_and_its_place_named(where, message, dask, sent_bytes, monkeypatch):
    monkeypatch.setenv("SERVICE_TOKEN", KEY)
    monkeypatch.setattr("dspynb.redact._known", (-9.0, frozenset()))  # the environment is looked at once a second
    subject, judged, data = program(), right, rows(2)
    if where == "attribute":
        subject.client = {"token": KEY}
    elif where == "closure":
        judged = keyed(KEY)
    else:
        data[1]["question"] = f"what is {KEY}?"
    with pytest.raises(dn.ExecutorError, match="holds a key that this process knows") as caught:
        dn.Evaluate(judged, executor=dask).run_sync(subject, data)
    assert message in str(caught.value)
    assert KEY not in str(caught.value)
    assert not any(b"planted" in data for data in sent_bytes)


def keyed(key):
    def metric(row, prediction):
        return float(len(key))

    return metric


def test_a_worker_without_a_key_says_that_it_needs_its_own(dask):
    def refuse(body, number):
        return web.json_response({"error": {"message": "no"}}, status=401)

    with Server(refuse) as server:
        lm = dn.LM("openai/x", api_base=server.base, api_key=KEY)
        evaluation = dn.Evaluate(right, executor=dask).run_sync(dn.Predict("question -> answer", lm=lm), rows(1))
    (error,) = evaluation.table.error
    assert "AuthenticationError" in error
    assert "no key was sent: pass api_key=, or set OPENAI_API_KEY, and OPENAI_API_BASE to this address" in error
    assert "in the environment of the process that makes the call" in error


class Locked(dn.Module):
    def __init__(self):
        self.ask = dn.Predict("question -> answer", lm=dn.FunctionLM(doubled))
        self.tools = [{"lock": threading.Lock()}]

    async def forward(self, question):
        return await self.ask(question=question)


def locking():
    lock = threading.Lock()

    def metric(row, prediction):
        with lock:
            return 1.0

    return metric


@pytest.mark.parametrize(
    ("subject", "metric", "data", "message"),
    [
        (Locked, right, rows(1), r"program\.tools\[0\]\['lock'\] \(_thread\.lock\) cannot travel"),
        (program, locking(), rows(1), r"metrics\['metric'\]\.fn's variable 'lock' \(_thread\.lock\) cannot travel"),
        (program, right, [{"question": "1", "answer": threading.Lock()}], r"answer'\] \(_thread\.lock\) cannot travel"),
        (
            lambda: dn.Predict("question -> answer", lm=dn.ScriptedLM([chat(answer="1")])),
            right,
            rows(1),
            r"program\.lm \(dspynb\.lm\.testing\.ScriptedLM\) cannot travel .*: a ScriptedLM gives its replies in one",
        ),
    ],
    ids=["program", "metric", "row", "ScriptedLM"],
)
def test_an_object_that_cannot_be_pickled_is_named(subject, metric, data, message, dask):
    with pytest.raises(dn.ExecutorError, match=message):
        dn.Evaluate(metric, executor=dask).run_sync(subject(), data)


def test_a_setting_that_cannot_be_sent_is_named(dask):
    lock = threading.Lock()

    async def main():
        with dn.context(lm=dn.FunctionLM(lambda request: str(lock))):
            await dn.evaluate(dn.Predict("question -> answer"), rows(1), right, executor=dask)

    with pytest.raises(dn.ExecutorError, match=r"the setting lm\.fn's variable 'lock' \(_thread\.lock\)"):
        run(main())


def test_a_module_that_workers_lack_is_an_error(dask, tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("def metric(row, prediction):\n    return 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    import only_here

    with pytest.raises(dn.ExecutorError, match=r"No module named 'only_here'.* client\.upload_file"):
        dn.Evaluate(only_here.metric, executor=dask).run_sync(program(), rows(1))


def test_a_replay_is_not_sent(dask):
    async def main():
        with dn.trace() as trace:
            await program()(question="1")
        return await dn.replay(trace, Evaluating(dask))

    with pytest.raises(dn.errors.ScopeError, match="a replay stays in its process"):
        run(main())


class Evaluating(dn.Module):
    def __init__(self, executor):
        self.executor, self.ask = executor, program()

    async def forward(self, question):
        evaluation = await dn.evaluate(self.ask, rows(1), right, executor=self.executor)
        return {"score": evaluation.score.mean}


def test_results_that_cannot_be_pickled_return_as_run_files_have_them(dask):
    async def main():
        return await dn.evaluate(Handing(), rows(2), lambda row, prediction: 1.0, executor=dask)

    evaluation = run(main())
    assert evaluation.table.error.isna().all()
    assert evaluation.predictions[0].number == 1
    assert "lock" in str(evaluation.predictions[0].thing)


class Handing(dn.Module):
    """Gives what stands in its process only."""

    async def forward(self, question):
        return {"thing": threading.Lock(), "number": 1}


def test_an_error_that_cannot_be_unpickled_returns_with_its_text(dask):
    async def main():
        return await Failing().batch(rows(1), executor=dask)

    (error,) = run(main())
    assert isinstance(error, dn.DspynbError)
    assert "Odd: 1 and 2" in str(error)


class Odd(Exception):
    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


class Failing(dn.Module):
    async def forward(self, question):
        raise Odd(1, 2)


def test_signatures_and_derived_ones_are_sent_by_value():
    class Ask(dn.Signature):
        """Ask."""

        question: str = dn.Input()
        answer: int = dn.Output(ge=0)

    derived = Ask.append("reason", dn.Output())
    for signature in (Ask, derived, dn.Predict("a -> b: list[int]").signature):
        copy = unpack(pack(signature, "it"))
        assert copy.describe() == signature.describe()
        assert copy.instruction == signature.instruction


@pytest.mark.parametrize("data", [3, None, object(), dn.DaskExecutor])
def test_other_objects_than_executors_and_clusters_are_refused(data):
    with pytest.raises(ConfigurationError, match="DaskExecutor"):
        dn.DaskExecutor(data)
    if data is not None:
        with pytest.raises(ConfigurationError, match="executor must be a dn.DaskExecutor"):
            dn.Evaluate(right, executor=data)
        with pytest.raises(ConfigurationError, match="executor must be a dn.DaskExecutor"):
            dn.GEPA(right, executor=data)
        with pytest.raises(ConfigurationError, match="executor must be a dn.DaskExecutor"):
            run(program().batch(rows(1), executor=data))
