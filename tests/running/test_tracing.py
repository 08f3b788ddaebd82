"""Traces: spans with their parents, tables, files."""

from __future__ import annotations

import asyncio
import datetime
import itertools
import json
import threading
from dataclasses import dataclass

import pandas as pd
import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dspynb as dn
from dspynb import events
from dspynb.errors import DamagedFileWarning, JournalError
from dspynb.running.record import RunRecord
from dspynb.running.tables.spans import spans_of
from tests.helpers import Caption, chat, echo_hint, scores
from tests.lm.server import Server

HOSTILE = "<script>alert(1)</script>"


class Captions(dn.Module):
    """Two predictors, one after the other."""

    def __init__(self, lm):
        self.draft = dn.Predict(Caption, lm=lm)
        self.steps = [dn.Predict(Caption, lm=lm)]

    async def forward(self, subject):
        draft = await self.draft(subject=subject)
        return await self.steps[0](subject=draft.sentence)


def traced(work):
    async def main():
        with dn.trace() as t:
            await work()
        return t

    return asyncio.run(main())


def refined(**changes):
    program = Captions(echo_hint())
    refine = dn.Refine(program, scores(0.2, 1.0), n=2, hints=lambda a, p, i: {"steps[0]": "be <b>brief</b>"}, **changes)
    return traced(lambda: refine(subject="sea"))


def plain_call(lm=None):
    predict = dn.Predict(Caption, lm=lm or dn.ScriptedLM([chat(sentence="blue")]))
    return traced(lambda: predict(subject="sea"))


# ── what a span holds ─────────────────────────────────────────────────────────────────────────────────────────────
def test_a_span_of_a_call_has_its_prompt_reply_and_outputs():
    reply = dn.LMReply(chat(sentence="blue"), usage=dn.Usage(calls=1, prompt_tokens=7, completion_tokens=3))
    (span,) = plain_call(dn.ScriptedLM([reply], name="some/model")).spans
    assert (span.kind, span.path, span.parent, span.depth) == ("call", "self", 0, 0)
    assert span.inputs == {"subject": "sea"}
    assert span.outputs == {"sentence": "blue"}
    assert [m["role"] for m in span.messages] == ["system", "user"]
    assert span.reply == chat(sentence="blue")
    assert (span.usage.tokens, span.model, span.error, span.hint, span.candidate) == (
        10,
        "some/model",
        None,
        None,
        None,
    )
    assert span.seconds >= 0


def test_the_tree_of_a_refine_is_search_attempts_module_and_calls():
    t = refined()
    shape = [("  " * s.depth + s.kind, s.path) for s in t.spans]
    assert shape == [
        ("search", "Refine(Captions)"),
        ("  attempt", "attempt 1"),
        ("    module", "Captions"),
        ("      call", "draft"),
        ("      call", "steps[0]"),
        ("  attempt", "attempt 2"),
        ("    module", "Captions"),
        ("      call", "draft"),
        ("      call", "steps[0]"),
    ]
    assert [s.score for s in t.spans if s.kind == "attempt"] == [0.2, 1.0]
    by_number = {s.span: s for s in t.spans}
    for span in t.spans[1:]:
        assert by_number[span.parent].depth == span.depth - 1


def test_a_hint_is_a_field_of_its_own_and_never_among_the_inputs():
    spans = refined().spans
    hinted = [s for s in spans if s.hint]
    assert [(s.path, s.hint) for s in hinted] == [
        ("attempt 2", {"steps[0]": "be <b>brief</b>"}),
        ("steps[0]", "be <b>brief</b>"),
    ]
    assert not any("be <b>brief</b>" in str(s.inputs) for s in spans if s.path != "steps[0]")
    with dn.hints("shine"):
        (span,) = plain_call().spans
    assert (span.hint, span.inputs) == ("shine", {"subject": "sea"})


def test_a_call_has_the_hash_of_the_candidate_in_force():
    predict = dn.Predict(Caption, lm=dn.FunctionLM(lambda r: chat(sentence="s")))
    parts = [{"self": "Be brief."}, {"self": "Be brief."}, {"self": {"demos": [{"subject": "a", "sentence": "b"}]}}]

    async def work():
        for part in parts:
            with dn.candidate(part, of=predict):
                await predict(subject="sea")
        await predict(subject="sea")

    first, repeated, demos, none = (span.candidate for span in traced(work).spans)
    assert first == repeated
    assert first != demos
    assert len(first) == 12
    assert none is None


def test_a_predictor_that_the_candidate_does_not_name_has_no_candidate():
    program = Captions(echo_hint())
    with dn.candidate({"draft": "Be brief."}, of=program):
        t = traced(lambda: program(subject="sea"))
    assert {s.path: s.candidate is not None for s in t.spans if s.kind == "call"} == {"draft": True, "steps[0]": False}


def test_errors_are_on_the_call_and_on_the_spans_around_it():
    program = Captions(dn.ScriptedLM([chat(sentence="x"), dn.errors.RateLimited("too many")]))

    async def work():
        with pytest.raises(dn.errors.RateLimited):
            await program(subject="sea")

    t = traced(work)
    assert {s.path: s.error and s.error.split(":")[0] for s in t.spans} == {
        "Captions": "RateLimited",
        "draft": None,
        "steps[0]": "RateLimited",
    }


def test_rows_of_a_batch_hold_their_calls():
    predict = dn.Predict(Caption, lm=dn.FunctionLM(lambda r: chat(sentence="s")))
    t = traced(lambda: predict.batch([{"subject": str(i)} for i in range(5)], concurrency=3))
    rows = {s.span: s for s in t.spans if s.kind == "row"}
    assert sorted(s.path for s in rows.values()) == [f"row {i}" for i in range(5)]
    assert all(rows[s.parent].inputs == s.inputs for s in t.spans if s.kind == "call")


def test_a_span_sums_the_usage_of_its_calls_and_is_cached_if_all_of_them_are():
    paid = dn.LMReply(chat(sentence="a"), usage=dn.Usage(calls=1, prompt_tokens=5))
    free = dn.LMReply(chat(sentence="b"), usage=dn.Usage(prompt_tokens=4), cached=True)
    for replies, cached in (([paid, free], False), ([free, free], True)):
        program = Captions(dn.ScriptedLM(replies))
        module = traced(lambda program=program: program(subject="sea")).spans[0]
        assert module.usage.prompt_tokens == sum(r.usage.prompt_tokens for r in replies)
        assert module.cached is cached


def test_a_span_that_has_not_ended_has_no_seconds():
    gate = asyncio.Event()

    async def wait(request):
        await gate.wait()

    async def main():
        program = Captions(dn.FunctionLM(wait))
        with dn.trace() as t:
            task = asyncio.create_task(program(subject="sea"))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        task.cancel()
        return t

    t = asyncio.run(main())
    assert [(s.path, s.seconds) for s in t.spans] == [("Captions", None)]
    assert "not ended" in repr(t)
    assert pd.isna(t.table().seconds[0])


def test_the_calls_of_rewards_and_advisors_are_not_in_the_programs_trace():
    judge = dn.Predict(Caption, lm=dn.FunctionLM(lambda r: chat(sentence="judged")))
    advice = dn.FunctionLM(lambda r: '[[ ## advice ## ]]\n{"self": "shine"}\n[[ ## completed ## ]]')

    async def reward(row, prediction):
        await judge(subject="judge")
        return 0.5

    refine = dn.Refine(dn.Predict(Caption, lm=echo_hint()), reward, n=2, hints="advisor", advisor_lm=advice)
    prediction = None

    async def work():
        nonlocal prediction
        prediction = await refine(subject="sea")

    t = traced(work)
    assert [s.path for s in t.spans if s.kind == "call"] == ["self", "self"]
    assert [s.hint for s in t.spans if s.kind == "call"] == [None, "shine"]
    assert len(prediction.run.calls) == 5


def test_a_task_that_outlives_the_block_adds_nothing():
    gate = asyncio.Event()

    async def wait(request):
        await gate.wait()
        return chat(sentence="late")

    async def main():
        program = Captions(dn.FunctionLM(wait))
        with dn.trace() as t:
            task = asyncio.create_task(program(subject="sea"))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        before = list(t.events)
        gate.set()
        with pytest.warns(dn.ScopeClosedWarning):
            await task
        return before, t.events

    before, after = asyncio.run(main())
    assert before == after


# ── parents of concurrent spans ───────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class Node:
    how: str  # sequence, gather, tasks, carried
    children: tuple  # of Node, or None for a call


nodes = st.recursive(
    st.none(),
    lambda inner: st.builds(
        Node,
        st.sampled_from(["sequence", "gather", "tasks", "carried"]),
        st.lists(inner, min_size=1, max_size=3).map(tuple),
    ),
    max_leaves=10,
)


class Nested(dn.Module):
    """A module whose calls carry, as their subject, the path down to them."""

    def __init__(self, node, predict):
        self.node, self.predict = node, predict

    async def forward(self, subject):
        steps = [
            lambda i=i, child=child: self.step(f"{subject}.{i}", child) for i, child in enumerate(self.node.children)
        ]
        if self.node.how == "sequence":
            for step in steps:
                await step()
        elif self.node.how == "gather":
            await asyncio.gather(*(step() for step in steps))
        elif self.node.how == "tasks":
            async with asyncio.TaskGroup() as tasks:
                for step in steps:
                    tasks.create_task(step())
        else:
            loop = asyncio.get_running_loop()
            threads = [loop.run_in_executor(None, dn.carry(lambda step=step: asyncio.run(step()))) for step in steps]
            await asyncio.gather(*threads)
        return {"sentence": "s"}

    async def step(self, subject, child):
        await asyncio.sleep(len(subject) % 3 / 3000)
        await (self.predict if child is None else Nested(child, self.predict))(subject=subject)


def expected(node, path="root"):
    yield path
    for i, child in enumerate(node.children):
        if child is None:
            yield f"{path}.{i}"
        else:
            yield from expected(child, f"{path}.{i}")


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(node=nodes.filter(lambda node: node is not None))
def test_every_span_has_the_right_parent_whatever_runs_concurrently(node):
    dn.configure(runs_dir=None)
    predict = dn.Predict(Caption, lm=dn.FunctionLM(lambda request: chat(sentence="s")))
    spans = traced(lambda: Nested(node, predict)(subject="root")).spans
    assert sorted(s.inputs["subject"] for s in spans) == sorted(expected(node))
    by_number = {s.span: s for s in spans}
    earlier = set()
    for span in spans:
        subject = span.inputs["subject"]
        above = by_number[span.parent].inputs["subject"] if span.parent else ""
        assert above == subject.rpartition(".")[0]
        assert span.depth == subject.count(".")
        assert not span.parent or span.parent in earlier  # each parent comes before its children
        earlier.add(span.span)


def test_two_concurrent_traces_each_have_their_own_spans():
    async def one(subject):
        predict = dn.Predict(Caption, lm=dn.FunctionLM(lambda r: chat(sentence="s")))
        with dn.trace() as t:
            await asyncio.gather(*(predict(subject=subject) for _ in range(3)))
        return {s.inputs["subject"] for s in t.spans}, len(t)

    async def main():
        return await asyncio.gather(one("a"), one("b"))

    assert asyncio.run(main()) == [({"a"}, 3), ({"b"}, 3)]


def test_a_thread_without_a_scope_adds_nothing():
    predict = dn.Predict(Caption, lm=dn.FunctionLM(lambda r: chat(sentence="s")))
    with dn.trace() as t:
        thread = threading.Thread(target=lambda: asyncio.run(predict(subject="sea")))
        thread.start()
        thread.join()
    assert t.spans == ()


# ── tables and display ────────────────────────────────────────────────────────────────────────────────────────────
def test_the_table_has_one_row_a_span():
    t = refined()
    table = t.table()
    assert list(table.columns) == [
        "span", "parent", "depth", "kind", "path", "inputs", "outputs", "hint", "candidate", "score", "messages",
        "reply", "error", "tokens", "usd", "cached", "seconds", "started", "model", "rollout",
    ]  # fmt: skip
    assert list(table.span) == [s.span for s in t.spans]
    assert list(table[table.kind == "call"].rollout) == [0, 0, 1, 1]
    assert table.started.dt.tz is not None
    assert table.started[0].timestamp() == pytest.approx(t.spans[0].started)
    assert table.started.is_monotonic_increasing


def test_an_empty_trace_has_an_empty_table_of_the_same_types():
    empty, full = dn.Trace().table(), refined().table()
    assert list(empty.columns) == list(full.columns)
    assert len(empty) == 0
    assert repr(dn.Trace()) == "<Trace: 0 spans, 0 calls>\n(no spans)"
    assert "no spans" in dn.Trace()._repr_html_()


def test_the_tree_is_text_and_is_shortened_only_in_the_repr():
    t = refined()
    lines = t.tree().splitlines()
    assert lines[0].startswith("search Refine(Captions) · ")
    assert lines[4].startswith("      steps[0] · ")
    many = dn.Trace(events.SpanStarted(span=i, kind="module", name="m") for i in range(1, 501))
    assert len(many.tree().splitlines()) == 500
    assert repr(many).endswith("… and 400 more spans")
    assert "more spans" in many._repr_html_()


def test_the_html_holds_no_markup_of_what_users_and_models_wrote():
    class Bad(dn.Module):
        def __init__(self):
            self.step = dn.Predict(Caption, lm=dn.FunctionLM(lambda r: chat(sentence=HOSTILE)))

        async def forward(self, subject):
            return await self.step(subject=subject)

    Bad.__name__ = HOSTILE
    with dn.hints(HOSTILE):
        t = traced(lambda: Bad()(subject=f"{HOSTILE} \ud800"))
    html = t._repr_html_()
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    html.encode()
    t.tree().encode()


# ── files ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_saved_trace_loads_with_equal_spans_and_the_same_table(tmp_path):
    t = refined()
    t.save(tmp_path / "t.jsonl")
    back = dn.Trace.load(str(tmp_path / "t.jsonl"))
    assert back.spans == t.spans
    assert len(back) == len(t) == 4
    pd.testing.assert_frame_equal(back.table(), t.table())
    assert back.tree() == t.tree()


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()))
    | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    inputs=st.dictionaries(st.text(st.characters(exclude_categories=()), max_size=5), VALUES, max_size=3),
    texts=st.lists(st.text(st.characters(exclude_categories=())), min_size=3, max_size=3),
)
def test_spans_of_any_values_and_texts_equal_those_read_from_a_file(tmp_path, inputs, texts):
    hint, reply, content = texts
    call = events.PredictorCalled(
        span=2, parent=1, predictor="p", uid="u", inputs=inputs, hint=hint, reply=reply, outputs=inputs,
        messages=({"role": "user", "content": content},),
    )  # fmt: skip
    t = dn.Trace([events.SpanStarted(span=1, kind="module", name=content, inputs=inputs), call])
    t.save(tmp_path / "t.jsonl")
    back = dn.Trace.load(tmp_path / "t.jsonl")
    assert back.spans == t.spans
    assert back.spans[1].reply == reply or has_surrogate_pair(reply)


def has_surrogate_pair(text):
    return any(a in map(chr, range(0xD800, 0xDC00)) and 0xDC00 <= ord(b) < 0xE000 for a, b in itertools.pairwise(text))


def test_spans_that_differ_are_not_equal():
    one = events.SpanStarted(span=1, kind="module", name="m", inputs={"when": datetime.date(2026, 1, 1)}, at=1.0)
    other = events.SpanStarted(span=1, kind="module", name="m", inputs={"when": datetime.date(2026, 1, 2)}, at=1.0)
    spans = spans_of(RunRecord([one]))
    assert spans != spans_of(RunRecord([other]))
    assert spans == spans_of(RunRecord([one]))
    assert len({*spans, *spans_of(RunRecord([one]))}) == 1


def test_a_trace_file_is_readable_by_its_owner_only_and_replaces_an_existing_file(tmp_path):
    path = tmp_path / "new" / "t.jsonl"
    plain_call().save(path)
    plain_call().save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(dn.Trace.load(path)) == 1
    assert [p.name for p in path.parent.iterdir()] == ["t.jsonl"]


def test_a_path_that_cannot_be_written_is_an_error_and_no_file_remains(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(JournalError, match="cannot write"):
        plain_call().save(tmp_path / "file" / "t.jsonl")
    (tmp_path / "folder").mkdir()
    with pytest.raises(JournalError, match="cannot write"):
        plain_call().save(tmp_path / "folder")
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "runs") == ["file", "folder"]


def test_an_incomplete_last_line_is_dropped(tmp_path):
    path = tmp_path / "t.jsonl"
    refined().save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    assert len(dn.Trace.load(path).events) == whole.count(b"\n") - 2


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "no header"),
        ("hello\n", "no header"),
        ('{"dspynb": 99, "kind": "trace"}\n', "upgrade dspynb"),
    ],
)
def test_loading_a_file_that_is_no_trace_is_an_error(tmp_path, content, says):
    path = tmp_path / "t.jsonl"
    path.write_text(content)
    with pytest.raises(JournalError, match=says):
        dn.Trace.load(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"dspynb": 1, "kind": "trace"}\n{"type": "PredictorCalled"}\n{}\n', "2 damaged lines: 2, 3 .*lacks span"),
        (
            '{"dspynb": 1}\n{"type": "SpanStarted", "span": 1, "kind": "k", "name": "n", "at": "now"}\n{}\n',
            "at of SpanStarted is 'now'",
        ),
    ],
)
def test_damaged_lines_of_a_trace_are_left_out_and_reported(tmp_path, content, says):
    path = tmp_path / "t.jsonl"
    path.write_text(content)
    with pytest.warns(DamagedFileWarning, match=says):
        assert len(dn.Trace.load(path).spans) == 0


def test_loading_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(JournalError, match="cannot read"):
        dn.Trace.load(tmp_path / "none.jsonl")


def test_spans_in_a_circle_or_without_their_parent_are_all_listed(tmp_path):
    started = [
        events.SpanStarted(span=i, parent=p, kind="module", name=str(i)) for i, p in ((1, 2), (2, 1), (3, 3), (4, 9))
    ]
    spans = dn.Trace(started).spans
    assert sorted(s.span for s in spans) == [1, 2, 3, 4]
    assert {s.parent for s in spans if s.depth == 0} == {0}


def test_a_run_file_loads_as_a_trace_with_the_run_as_its_root(tmp_path):
    prediction = asyncio.run(dn.Refine(Captions(echo_hint()), scores(1.0))(subject="sea"))
    dn.open_run(prediction.run.id)
    spans = dn.Trace.load(prediction.run.path).spans
    assert [s.kind for s in spans] == ["run", "search", "attempt", "module", "call", "call"]
    assert spans[0].error is None


def test_a_trace_file_holds_no_key(tmp_path, monkeypatch):
    key = "sk-abcdefghijklmnopqrstuvwxyz"
    refuse = {"error": {"message": f"Incorrect API key provided: {key}"}}
    with Server(lambda body, number: web.json_response(refuse, status=401)) as server:
        lm = dn.LM("openai/m", api_base=server.base, api_key=key)
        predict = dn.Predict(Caption, lm=lm)

        async def work():
            with pytest.raises(dn.errors.AuthenticationError):
                await predict(subject="sea")

        t = traced(work)
    t.save(tmp_path / "t.jsonl")
    text = (tmp_path / "t.jsonl").read_text()
    assert "AuthenticationError" in text
    assert key not in text


def test_ten_thousand_spans_are_saved_read_and_tabulated(tmp_path):
    t = many_spans(10_000)
    t.save(tmp_path / "t.jsonl")
    back = dn.Trace.load(tmp_path / "t.jsonl")
    table = back.table()
    assert len(table) == len(back.spans) == 10_000
    assert set(table.kind) == {"module", "call"}
    assert back.spans[::997] == t.spans[::997]
    assert len((tmp_path / "t.jsonl").read_text().splitlines()) == 1 + len(t.events)
    assert json.loads((tmp_path / "t.jsonl").read_text().splitlines()[0]) == {"dspynb": 1, "kind": "trace"}


def many_spans(count):
    t = dn.Trace()
    for first in range(1, count + 1, 5):
        t.emit(events.SpanStarted(span=first, kind="module", name="m", inputs={"q": "x"}))
        for span in range(first + 1, first + 5):
            messages = ({"role": "system", "content": "s" * 500}, {"role": "user", "content": f"q {span}"})
            t.emit(
                events.PredictorCalled(
                    span=span,
                    parent=first,
                    predictor="p",
                    uid="u",
                    inputs={"q": str(span)},
                    messages=messages,
                    reply="r",
                )
            )
        t.emit(events.SpanEnded(span=first, outputs={"a": "y"}))
    return t
