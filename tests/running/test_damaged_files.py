"""Run files that are damaged or come from a stranger: what is whole opens, the rest is reported, and nothing hangs."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import os
import warnings

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dspynb as dn
from dspynb.errors import DamagedFileWarning, DspynbError, JournalError
from dspynb.running.journal import flush_journals
from dspynb.views.html.static import static_html
from tests.helpers import chat

ROWS = [{"subject": str(i), "sentence": "s"} for i in range(3)]


def score(row, prediction):
    return dn.Score(0.5 if row.subject == "1" else 1.0, feedback="say more", parts={"short": 1.0})


def refine():
    predict = dn.Predict("subject -> sentence", lm=dn.FunctionLM(lambda request: chat(sentence="s")))
    return dn.Refine(predict, score, n=2, threshold=0.9, hints="feedback")


def written(make, tmp_path_factory, name):
    folder = tmp_path_factory.mktemp(name)
    with dn.context(runs_dir=str(folder), cache=False, view="off"):
        make()
        flush_journals()
    (path,) = folder.glob("*.jsonl")
    return path.read_bytes().splitlines(keepends=True)


@pytest.fixture(scope="session")
def evaluation_lines(tmp_path_factory):
    return written(lambda: dn.Evaluate(score, concurrency=1).run_sync(refine(), ROWS), tmp_path_factory, "evaluation")


@pytest.fixture(scope="session")
def optimizer_lines(tmp_path_factory):
    def make():
        program = dn.Predict("subject -> sentence", lm=dn.FunctionLM(lambda request: chat(sentence="s")))
        writer = dn.FunctionLM(lambda request: "proposed_instruction: Be brief.")
        dn.COPRO(score, breadth=2, depth=1, prompt_lm=writer).compile_sync(program, ROWS)

    return written(make, tmp_path_factory, "optimizer")


@pytest.fixture
def evaluated(tmp_path, evaluation_lines):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"".join(evaluation_lines))
    return path


def read_all(run):
    """Everything that a run offers for reading."""
    readings = [run.status, repr(run), run._repr_html_(), run.usage, run.summary, run.best_parts]
    tables = [run.attempts, run.calls, run.rollouts, run.hints, run.candidates, run.matrix, run.history, run.proposals]
    readings += [table.to_string() for table in tables]
    readings.append(static_html(run.record))
    for first, second in ((1, 2), (1, 1)):
        with contextlib.suppress(DspynbError):
            readings.append(repr(run.diff(first, second)) + run.diff(first, second)._repr_html_())
    return readings


def read_trace(path):
    trace = dn.Trace.load(path)
    assert len(trace.tree().splitlines()) >= len(trace.spans)
    return [repr(trace), trace._repr_html_(), trace.table().to_string(), trace.spans]


def opened(path):
    """The run, if the file can be opened; all of it is read, as a run, as a trace and by a replay."""
    assert len(dn.runs()) == 1
    try:
        with warnings.catch_warnings(action="ignore", category=DamagedFileWarning):
            run = dn.open_run(path)
            read_all(run)
            read_trace(path)
            with contextlib.suppress(DspynbError), dn.context(runs_dir=None):
                asyncio.run(dn.replay(run, refine()))
    except JournalError:
        return None
    return run


def edited(lines, change):
    """Lines with the values of one event changed, by ``change(body)``."""
    bodies = [json.loads(line) for line in lines]
    change(bodies)
    return [json.dumps(body, separators=(",", ":")).encode() + b"\n" for body in bodies]


def body_of(bodies, kind):
    return next(body for body in bodies if body.get("type") == kind)


# ── damaged lines ─────────────────────────────────────────────────────────────────────────────────────────────────────
DAMAGE = {
    "no json": b"what cannot be read\n",
    "zero bytes": b"\0" * 50 + b"\n",
    "no utf-8": b'{"type":"RunEnded","span":1,"status":"fin\xff\xfe"}\n',
    "cut": b'{"type":"SpanStarted","span":99\n',
    "a list": b"[1, 2]\n",
    "a number": b"7\n",
    "no type": b'{"span":99}\n',
    "a type that is a list": b'{"type":["RunEnded"],"span":99}\n',
    "an unknown type": b'{"type":"Teleported","span":99}\n',
    "fields that are missing": b'{"type":"PredictorCalled","span":99}\n',
    "a text as span": b'{"type":"SpanEnded","span":"99"}\n',
    "a bool as span": b'{"type":"SpanEnded","span":true}\n',
    "a negative span": b'{"type":"SpanEnded","span":-5}\n',
    "a huge span": b'{"type":"SpanEnded","span":%d}\n' % 10**400,
    "a fraction as span": b'{"type":"SpanEnded","span":1.5}\n',
    "infinite time": b'{"type":"SpanEnded","span":99,"at":Infinity}\n',
    "a date beyond all dates": b'{"type":"SpanEnded","span":99,"at":1e18}\n',
    "an odd status": b'{"type":"RunEnded","span":99,"status":"wonderful"}\n',
    "deep": b'{"type":"SpanEnded","span":99,"outputs":{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}}\n",
    "deep, but not for the reader": b'{"type":"SpanEnded","span":99,"outputs":{"a":'
    + b"[" * 700
    + b"]" * 700
    + b"}}\n",
    "its own parent": b'{"type":"SpanStarted","span":99,"parent":99,"kind":"module","name":"m"}\n',
}


@pytest.mark.parametrize(
    "usage", [b'{"calls":"many","prompt_tokens":"12"}', b"[1]", b"null", b'"lots"', b'{"usd":NaN}']
)
def test_invalid_usage_in_a_file_is_unknown_and_its_row_is_read(tmp_path, usage):
    path = tmp_path / "x.jsonl"
    row = b'{"type":"RolloutEnded","span":2,"row":0,"score":1.0,"usage":' + usage + b"}"
    path.write_bytes(b'{"dspynb":1,"id":"x","kind":"evaluate"}\n' + row + b"\n")
    run = dn.open_run(path)
    assert not run.damaged
    assert run.rollouts.score.tolist() == [1.0]
    assert run.rollouts.usd.isna().all() or run.rollouts.tokens.isna().all()


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_line_is_reported_and_the_rest_opens_but_is_not_resumed(evaluated, evaluation_lines, what):
    lines = list(evaluation_lines)
    lines.insert(5, DAMAGE[what])
    evaluated.write_bytes(b"".join(lines))
    with pytest.warns(DamagedFileWarning, match="1 damaged line: 6 ") as caught:
        run = dn.open_run(evaluated)
    assert len(caught) == 1
    assert list(run.damaged) == [6]
    assert run.status == "finished"
    assert run.rollouts.score.tolist() == [1.0, 0.5, 1.0]
    read_all(run)
    with pytest.raises(JournalError, match="cannot resume .*1 damaged line: 6 "):
        dn.run_sync(lambda: dn.Evaluate(score, concurrency=1).resume(evaluated, refine(), ROWS))
    assert evaluated.read_bytes() == b"".join(lines)
    with pytest.warns(DamagedFileWarning):
        assert len(dn.Trace.load(evaluated).calls) == len(run.calls)


def test_a_whole_file_has_no_damage(evaluated):
    run = dn.open_run(evaluated)
    assert dict(run.damaged) == {}
    assert len(run.calls) == 4


def test_of_many_damaged_lines_the_first_ten_are_named(evaluated, evaluation_lines):
    evaluated.write_bytes(b"".join([*evaluation_lines, *[b"x\n"] * 50]))
    with pytest.warns(DamagedFileWarning, match="50 damaged lines: .*, … ") as caught:
        assert len(dn.open_run(evaluated).damaged) == 50
    assert len(str(caught[0].message)) < 500


def starts(parents):
    """A file of spans with these parents."""
    lines = [{"dspynb": 1, "id": "x"}, {"type": "RunStarted", "span": 1, "kind": "call", "name": "n", "at": 1e9}]
    for span, parent in parents.items():
        body = {"type": "SpanStarted", "span": span, "parent": parent, "kind": "module", "name": "m", "at": 1e9}
        lines += [body, {"type": "SpanEnded", "span": span, "parent": parent, "at": 1e9}]
    for span in parents:
        call = {"predictor": "p", "uid": "u", "inputs": {}, "messages": [], "at": 1e9}
        lines.append({"type": "PredictorCalled", "span": span + 10**6, "parent": span, **call})
    return "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)


@pytest.mark.parametrize("length", [1, 2, 3, 50, 20_000])
@pytest.mark.timeout(120)
def test_spans_in_a_circle_are_damage_and_nothing_hangs(tmp_path, length):
    dn.configure(runs_dir=str(tmp_path))
    path = tmp_path / "x.jsonl"
    path.write_text(starts(circle(length)))
    with pytest.warns(DamagedFileWarning, match="damaged line"):
        run = dn.open_run(path)
    assert run.status == "unfinished"
    if length <= 50:
        assert opened(path) is not None
        assert len(run.damaged) == 1
        assert len(run.calls) == length


def circle(length):
    spans = range(2, length + 2)
    return {span: spans[(i + 1) % length] for i, span in enumerate(spans)}


@pytest.mark.timeout(120)
def test_a_chain_of_spans_that_no_program_creates_is_cut_quickly(tmp_path):
    dn.configure(runs_dir=str(tmp_path))
    path = tmp_path / "x.jsonl"
    path.write_text(starts({span: span - 1 for span in range(2, 20_000)}))
    with pytest.warns(DamagedFileWarning, match="deep"):
        run = dn.open_run(path)
    assert 500 < len(run.calls) <= 1000
    with warnings.catch_warnings(action="ignore", category=DamagedFileWarning):
        read_trace(path)
    read_all(run)


def test_a_call_that_is_in_the_file_twice_is_counted_once(evaluated, evaluation_lines):
    call = next(line for line in evaluation_lines if b'"PredictorCalled"' in line)
    evaluated.write_bytes(b"".join([*evaluation_lines, call]))
    with pytest.warns(DamagedFileWarning, match="begins twice"):
        assert len(dn.open_run(evaluated).calls) == 4


# ── files that are no run files ───────────────────────────────────────────────────────────────────────────────────────
def test_everything_that_is_named_like_a_run_file_is_listed(tmp_path, evaluation_lines):
    dn.configure(runs_dir=str(tmp_path))
    (tmp_path / "good.jsonl").write_bytes(b"".join(evaluation_lines))
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "loop.jsonl").symlink_to(tmp_path / "loop.jsonl")
    (tmp_path / "nowhere.jsonl").symlink_to(tmp_path / "not there")
    (tmp_path / "device.jsonl").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe.jsonl")
    contents = {
        "binary": os.urandom(5_000),
        "empty": b"",
        "list": b'[{"dspynb": 1}]\n',
        "text": b'"dspynb"\n',
        "deep": b"[" * 100_000 + b"\n",
        "deep dict": b'{"dspynb": 1, "id": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n",
        "no line": b"x" * 3_000_000,
        "version": b'{"dspynb": "1"}\n',
        "versions": b'{"dspynb": [1]}\n',
    }
    for name, content in contents.items():
        (tmp_path / f"{name}.jsonl").write_bytes(content)
    listed = dn.runs().set_index("id").status
    assert listed.pop("good" if "good" in listed else json.loads(evaluation_lines[0])["id"]) == "finished"
    assert set(listed) == {"unreadable"}
    assert len(listed) == len(contents) + 5
    for name in listed.index:
        for which in (name, tmp_path / f"{name}.jsonl"):
            with pytest.raises(JournalError):
                dn.open_run(which)
            with pytest.raises(JournalError):
                dn.Trace.load(tmp_path / f"{name}.jsonl")


@pytest.mark.parametrize("which", ["x" * 5_000, "a\0b", "", "..", 5, None, b"x"])
def test_opening_an_invalid_name_is_a_journal_error(which):
    with pytest.raises(JournalError):
        dn.open_run(which)


def test_a_file_with_only_a_header_is_a_pending_run(tmp_path):
    dn.configure(runs_dir=str(tmp_path))
    path = tmp_path / "x.jsonl"
    path.write_text('{"dspynb": 1, "id": {"a": [1]}, "kind": 7}\n')
    assert dn.open_run(path).status == "pending"
    assert opened(path) is not None


@pytest.mark.parametrize("value", [10**12, 10**30, -1, True, "3", None, [], {}, 1.5])
def test_a_number_of_rows_that_a_file_declares_takes_no_memory(tmp_path, optimizer_lines, value):
    dn.configure(runs_dir=str(tmp_path))

    def claim(bodies):
        body_of(bodies, "RunStarted")["inputs"] |= {"train": value, "val": value}
        body_of(bodies, "RunStarted")["settings"] |= {"failure_score": value, "n": value, "threshold": value}

    (tmp_path / "x.jsonl").write_bytes(b"".join(edited(optimizer_lines, claim)))
    run = opened(tmp_path / "x.jsonl")
    for kind in ("best", "pareto", "heatmap", "attempts"):
        with contextlib.suppress(DspynbError):
            run.plot(kind).figure.clear()


# ── arbitrary changes ─────────────────────────────────────────────────────────────────────────────────────────────────
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.integers(0, 60)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
DEEP = st.sampled_from([[[[]]], 0, -1, 2**63, 10**30, 1e308, float("nan"), float("inf"), "\ud800", {"a": "\udfff"}])


def places(value, path=()):
    """The paths of all values in a value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def put(body, path, value):
    if not path:
        return value
    *above, last = path
    place = body
    for key in above:
        place = place[key]
    place[last] = value
    return body


def mutated(draw, lines):
    """The lines, with values replaced, lines deleted, repeated and swapped, bytes cut."""
    bodies = [json.loads(line) for line in lines]
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(bodies) - 1))
        how = draw(st.sampled_from(["value"] * 6 + ["span"] * 2 + ["delete", "repeat", "swap"]))
        if how == "value":
            body = copy.deepcopy(bodies[at])
            bodies[at] = put(body, draw(st.sampled_from(list(places(body)))), draw(VALUES | DEEP))
        elif how == "span" and isinstance(bodies[at], dict):
            bodies[at] = {**bodies[at], draw(st.sampled_from(["span", "parent"])): draw(st.integers(0, 80))}
        elif how == "delete" and len(bodies) > 1:
            del bodies[at]
        elif how == "repeat":
            bodies.insert(draw(st.integers(0, len(bodies))), bodies[at])
        elif how == "swap":
            other = draw(st.integers(0, len(bodies) - 1))
            bodies[at], bodies[other] = bodies[other], bodies[at]
    whole = "".join(json.dumps(body, separators=(",", ":")) + "\n" for body in bodies).encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 4)) == 0:
        begin = draw(st.integers(0, len(whole)))
        whole = whole[:begin] + whole[begin + draw(st.integers(1, 300)) :]
    return whole


ANY = settings(max_examples=40, suppress_health_check=list(HealthCheck))
MANY = settings(max_examples=1500, suppress_health_check=list(HealthCheck))


def whatever_is_changed(data, lines, folder):
    dn.configure(runs_dir=str(folder))
    path = folder / "x.jsonl"
    path.write_bytes(mutated(data.draw, lines))
    opened(path)


@ANY
@given(data=st.data())
@pytest.mark.timeout(300)
def test_an_evaluations_file_with_any_change_opens_or_is_refused(data, evaluation_lines, tmp_path):
    whatever_is_changed(data, evaluation_lines, tmp_path)


@ANY
@given(data=st.data())
@pytest.mark.timeout(300)
def test_an_optimizers_file_with_any_change_opens_or_is_refused(data, optimizer_lines, tmp_path):
    whatever_is_changed(data, optimizer_lines, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["evaluation_lines", "optimizer_lines"])
@MANY
@given(data=st.data())
def test_a_file_with_many_changes_opens_or_is_refused(data, kind, request, tmp_path):
    whatever_is_changed(data, request.getfixturevalue(kind), tmp_path)


def test_a_rollout_number_of_deeply_nested_searches_is_in_the_table(tmp_path, evaluation_lines):
    def nest(bodies):
        body_of(bodies, "PredictorCalled")["rollout"] = 2**90

    path = tmp_path / "x.jsonl"
    path.write_bytes(b"".join(edited(evaluation_lines, nest)))
    assert dn.Trace.load(path).table().rollout.max() == 2**90


def test_ordinary_lines_are_parsed_only_once(evaluation_lines, optimizer_lines):
    from dspynb.data import _complete_usage
    from dspynb.events import _compiled_reader, _read_slowly, from_json

    kinds = set()
    for line in [*evaluation_lines[1:], *optimizer_lines[1:]]:
        body = json.loads(line)
        kinds.add(body["type"])
        usages = [body[name] for name in ("usage", "metric_usage") if name in body]
        assert all(_complete_usage(usage) for usage in usages)
        quickly = _compiled_reader(body["type"])(body)
        assert quickly == from_json(body) == _read_slowly(body["type"], type(quickly), body)
    assert {"RunStarted", "PredictorCalled", "RolloutEnded", "CandidateScored", "RunEnded"} <= kinds
