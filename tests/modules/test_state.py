"""States: what is kept, that it comes back with its types, and what is refused, whole."""

from __future__ import annotations

import copy
import datetime
import decimal
import json
import math
import os
import stat
import uuid
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

import dspynb as dn
from dspynb.errors import StateError
from dspynb.signatures import as_signature
from tests.helpers import Caption, prompt
from tests.modules.programs import PATHS, Mood, Program, Source, hints_seen, model

DATA = Path(__file__).parent / "data"


class Rich(dn.Signature):
    """Fill in the form."""

    name: str = dn.Input(alias="Full name")
    when: datetime.datetime = dn.Input()
    sources: list[Source] = dn.Output()
    mood: Mood = dn.Output()
    tags: set[str] = dn.Output()
    raw: bytes = dn.Output()
    price: decimal.Decimal | None = dn.Output()


DEMO = {
    "name": "x",
    "when": datetime.datetime(2024, 5, 1, 12, tzinfo=datetime.UTC),
    "sources": [Source(title="a", year=1)],
    "mood": Mood.GOOD,
    "tags": {"a", "b"},
    "raw": b"\xff\x00",
    "price": decimal.Decimal("1.50"),
}


def learned():
    """A program in which every predictor has learned something."""
    program = Program()
    for path, predictor in program.named_predictors():
        predictor.instruction = f"instruction of {path}"
    program.answer.predict.demos = [{"question": "q", "context": ["c"], "reasoning": "r", "answer": "a"}]
    program.by["x"].demos = [
        {"answer": "4", "sources": [Source(title="Sums", year=1901)], "ok": True, "when": datetime.date(2024, 5, 1)}
    ]
    return program


def contents(program):
    return {path: (p.instruction, p.demos) for path, p in program.named_predictors()}


def through_json(state):
    return json.loads(json.dumps(state))


# ── round trips ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_state_brings_instructions_and_typed_demos_back_under_the_same_paths():
    program, new = learned(), Program()
    state = through_json(program.dump_state())
    assert list(state["predictors"]) == PATHS
    new.load_state(state)
    assert contents(new) == contents(program)
    assert new.by["x"].demos[0]["when"] == datetime.date(2024, 5, 1)


def test_discovery_states_hints_and_refine_agree_on_the_paths(tmp_path):
    learned().save(tmp_path / "p.json")
    program, lm = Program(), model()
    program.load(tmp_path / "p.json")
    hints = {path: f"hint for {path}" for path in PATHS}
    with dn.context(lm=lm):
        run = dn.Refine(program, lambda r, p: 0.0, n=2, hints=lambda *_: hints).run_sync(question="why?").run
    assert list(run.calls.predictor) == PATHS * 2
    assert hints_seen(lm)[5:] == list(hints.values())
    assert [f"instruction of {path}" in prompt(r) for path, r in zip(PATHS * 2, lm.requests, strict=True)] == [
        True
    ] * 10


def test_values_of_all_kinds_come_back_as_they_were(tmp_path):
    predictor, new = dn.Predict(Rich, demos=[DEMO, {"Full name": "y", "price": None}]), dn.Predict(Rich)
    predictor.save(tmp_path / "p.json")
    new.load(tmp_path / "p.json")
    assert new.demos == [DEMO, {"name": "y", "price": None}]


TYPES: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(st.characters(exclude_categories=["Cs"])),
    int: st.integers(),
    float: st.floats(allow_nan=False),
    bool: st.booleans(),
    bytes: st.binary(),
    datetime.date: st.dates(),
    datetime.datetime: st.datetimes(),
    datetime.time: st.times(),
    datetime.timedelta: st.timedeltas(datetime.timedelta(days=-3650), datetime.timedelta(days=3650)),
    decimal.Decimal: st.decimals(allow_nan=False, allow_infinity=False),
    uuid.UUID: st.uuids(),
    Mood: st.sampled_from(Mood),
    Literal["a", 1]: st.sampled_from(["a", 1]),
    Source: st.builds(Source, title=st.text(st.characters(exclude_categories=["Cs"])), year=st.integers()),
}
LEAVES = st.sampled_from(list(TYPES.items()))


def _nested(inner):
    return st.one_of(
        inner.map(lambda tv: (list[tv[0]], st.lists(tv[1], max_size=3))),
        inner.map(lambda tv: (dict[str, tv[0]], st.dictionaries(st.sampled_from("abc"), tv[1], max_size=2))),
        inner.map(lambda tv: (tv[0] | None, st.none() | tv[1])),
        st.tuples(inner, inner).map(lambda two: (tuple[two[0][0], two[1][0]], st.tuples(two[0][1], two[1][1]))),
    )


@given(st.lists(st.recursive(LEAVES, _nested, max_leaves=4), min_size=1, max_size=4), st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_demos_of_any_typed_signature_survive_a_state(types, data):
    signature = as_signature("given -> wanted")
    for i, (kind, _) in enumerate(types):
        signature = signature.append(f"f{i}", dn.Output() if i % 2 else dn.Input(), kind)
    demo = {f"f{i}": data.draw(values) for i, (_, values) in enumerate(types)}
    demo = {name: value for name, value in demo.items() if value is not None}
    predictor, new = dn.Predict(signature, demos=[demo]), dn.Predict(signature)
    new.load_state(through_json(predictor.dump_state()))
    assert new.demos == [demo]
    assert {name: type(value) for name, value in new.demos[0].items()} == {n: type(v) for n, v in demo.items()}


def test_infinity_and_nan_come_back():
    predictor, new = dn.Predict("a: float -> b"), dn.Predict("a: float -> b")
    predictor.demos = [{"a": value} for value in (math.inf, -math.inf, math.nan)]
    state = predictor.dump_state()
    new.load_state(json.loads(json.dumps(state, allow_nan=False)))
    assert [demo["a"] for demo in new.demos][:2] == [math.inf, -math.inf]
    assert math.isnan(new.demos[2]["a"])


def test_with_state_returns_a_copy_and_does_not_change_the_program():
    program, state = Program(), learned().dump_state()
    new = program.with_state(state)
    assert contents(new) == contents(learned())
    assert contents(program) == contents(Program())
    assert {p.uid for _, p in new.named_predictors()}.isdisjoint(p.uid for _, p in program.named_predictors())


def test_a_program_that_cannot_be_copied_raises_an_error():
    class Single(dn.Module):
        def __init__(self):
            self.predict = dn.Predict("a -> b")

        def __deepcopy__(self, memo):
            raise TypeError("there is one only")

    program = Single()
    with pytest.raises(StateError, match="Single cannot be copied .*there is one only.*use its load_state"):
        program.with_state(program.dump_state())


def test_a_shared_predictor_stands_once_and_loads_under_an_alias():
    class Shared(dn.Module):
        def __init__(self, *names):
            shared = dn.Predict(Caption)
            for name in names:
                setattr(self, name, shared)

    program = Shared("first", "second")
    program.first.instruction = "Sing."
    state = program.dump_state()
    assert list(state["predictors"]) == ["first"]
    other = Shared("second", "first")
    other.load_state(state)
    assert other.second.instruction == "Sing."
    entry = state["predictors"]["first"]
    with pytest.raises(StateError, match="two different entries for it, 'first' and 'second'"):
        program.load_state({**state, "predictors": {"first": entry, "second": {**entry, "instruction": "Dance."}}})


# ── what is kept ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_state_contains_no_hint_candidate_model_setting_or_secret(monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "hidden-value-123")
    lm = dn.LM("openai/m", api_key="sk-abcdefghijklmnopqrstuvwxyz", api_base="http://127.0.0.1:9/v1")
    predictor = dn.Predict(Caption, lm=lm, temperature=0.123, extra_headers={"x": "y"})
    predictor.instruction = "Use sk-abcdefghijklmnopqrstuvwxyz."
    predictor.demos = [{"subject": "hidden-value-123", "sentence": "s", "api_key": "not a field"}]
    with dn.hints("a hint"), dn.candidate({"self": "a candidate"}, of=predictor):
        text = json.dumps(predictor.dump_state())
    for secret in ("sk-abc", "hidden-value", "a hint", "a candidate", "0.123", "127.0.0.1", "not a field", "headers"):
        assert secret not in text
    assert "Use ***." in text


def test_an_instruction_is_saved_only_if_the_predictor_has_its_own():
    state = dn.Predict(Caption).dump_state()
    entry = state["predictors"]["self"]
    assert (state["dspynb_state"], state["dspynb_version"], state["program"]) == (1, dn.__version__, "Predict")
    assert entry["instruction"] is None
    assert entry["signature"]["fingerprint"] == Caption.fingerprint()
    program = dn.Predict(Caption, instruction="Old.")
    program.load_state(state)
    assert program.instruction is None


def test_a_demo_that_json_cannot_represent_or_that_has_another_type_raises_an_error():
    program = Program()
    program.answer.predict.demos = [{"question": "q"}, {"question": "q", "context": "x"}]
    with pytest.raises(
        StateError, match="answer.predict: demo 1 field 'context': Input should be a valid list, got 'x'"
    ):
        program.dump_state()

    class Odd:
        pass

    signature = as_signature("a -> b").append("odd", dn.Output(), Odd)
    with pytest.raises(StateError, match="self: demo 0 cannot be written as JSON"):
        dn.Predict(signature, demos=[{"odd": Odd()}]).dump_state()


def test_a_number_in_a_text_field_is_kept_as_the_text_that_a_prompt_shows():
    predictor = dn.Predict("a -> b", demos=[{"a": 5, "b": "x"}])
    new = predictor.with_state(predictor.dump_state())
    assert new.demos == [{"a": "5", "b": "x"}]


# ── what is refused ───────────────────────────────────────────────────────────────────────────────────────────────────


class Changed(Program):
    def __init__(self):
        super().__init__()
        self.retrieve = dn.Predict("question -> query, note: int")
        self.steps = [dn.Predict("a: int -> b", instruction="mine")]
        self.by = {"y": dn.Predict(Caption)}


def test_a_changed_program_is_refused_with_all_that_differs_and_nothing_is_loaded():
    program = Changed()
    before = contents(program)
    with pytest.raises(StateError, match="so nothing was loaded") as raised:
        program.load_state(learned().dump_state())
    differences = raised.value.differences
    assert [line for line in differences if "instruction was" not in line] == [
        "retrieve: field 'note' is not in the state",
        "steps[0]: type of field 'a' was str, is int",
        "steps[1]: not in the program. Did you mean 'steps[0]'?",
        "by['x']: not in the program. Did you mean \"by['y']\"?",
        "by['y']: missing in the state",
    ]
    assert contents(program) == before
    assert all(line in str(raised.value) for line in differences)


def test_constraints_and_what_is_inside_a_type_are_part_of_a_signature():
    class Source(BaseModel):  # as the other one, with one more field
        title: str
        year: int
        page: int

    state = dn.Predict("a -> b").with_state(dn.Predict("a -> b").dump_state()).dump_state()
    with pytest.raises(StateError, match=r"type of field 'b' was str, is str, max_length=3"):
        dn.Predict(as_signature("a -> b").with_field("b", max_length=3)).load_state(state)
    check = Program().by["x"].signature
    with pytest.raises(StateError, match=r"type of field 'sources' was .*year: int}\], is .*page: int"):
        dn.Predict(check.with_field("sources", type=list[Source])).load_state(dn.Predict(check).dump_state())
    with pytest.raises(StateError, match="the order of fields was a, c, b, is c, a, b"):
        dn.Predict("c, a -> b", instruction="x").load_state(dn.Predict("a, c -> b").dump_state())


def test_not_strict_ignores_further_paths_and_accepts_other_wording():
    state = learned().dump_state()
    small = dn.Predict("question -> query")
    holder = dn.Module()
    holder.retrieve = small
    with pytest.raises(StateError, match="not in the program"):
        holder.load_state(state)
    holder.load_state(state, strict=False)
    assert small.instruction == "instruction of retrieve"
    reworded = dn.Predict(Caption.with_instruction("New.").with_field("subject", desc="new"))
    old = dn.Predict(Caption, demos=[{"subject": "s", "sentence": "t"}]).dump_state()
    with pytest.raises(StateError, match="desc of field 'subject' was None, is new"):
        reworded.load_state(old)
    with pytest.warns(UserWarning, match="instruction was"):
        reworded.load_state(old, strict=False)
    assert reworded.demos == [{"subject": "s", "sentence": "t"}]
    with pytest.raises(StateError, match="by.*: missing in the state"):
        Program().load_state({**state, "predictors": {}}, strict=False)


def edited(**changes):
    state = through_json(dn.Predict(Caption, demos=[{"subject": "s"}]).dump_state())
    state["predictors"]["self"].update(changes)
    return state


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ([], "a state is a dict as dump_state"),
        ({}, "this is not a saved program: it has no 'dspynb_state'"),
        ({"a": {"b": 1}}, "this is not a saved program"),
        (
            {"dspynb_state": 2, "dspynb_version": "9.0"},
            r"version 2 \(dspynb 9.0\); this dspynb reads up to 1: update it",
        ),
        ({"dspynb_state": 0, "dspynb_version": "0", "program": "x", "predictors": {}}, "no state version 0"),
        ({"dspynb_state": "1"}, "damaged or was edited"),
        ({"dspynb_state": 1}, "predictors: Field required"),
        (edited(instruction=5), "predictors → self → instruction: Input should be a valid string, got 5"),
        (edited(demos={}), "predictors → self → demos: Input should be a valid list"),
        (edited(demos=["x"]), "demos → 0: Input should be a valid dict"),
        (edited(demos=[{"subjct": "x"}]), "self: demo 0 has 'subjct', which is not a field. Did you mean 'subject'"),
        (
            edited(demos=[{"subject": 5.5}, {"subject": []}]),
            "self: demo 1 field 'subject': Input should be a valid string",
        ),
        (edited(hint="x"), "predictors → self → hint: Extra inputs are not permitted"),
        (edited(signature={}), "signature → fingerprint: Field required"),
    ],
)
def test_an_edited_or_foreign_state_is_refused_in_one_error(state, says):
    program = dn.Predict(Caption, instruction="Old.")
    with pytest.raises(StateError, match=says):
        program.load_state(state)
    assert (program.instruction, program.demos) == ("Old.", [])


# ── files ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_beginning_of_a_file_is_refused(tmp_path):
    path = tmp_path / "p.json"
    learned().save(path)
    whole = path.read_bytes().rstrip()
    for end in range(0, len(whole), 97):
        path.write_bytes(whole[:end])
        with pytest.raises(StateError, match="is not JSON, or is cut off"):
            Program().load(path)


@pytest.mark.parametrize("body", [b"\xff\xfe", b"[" * 100_000, b"PK\x03\x04"])
def test_a_file_of_another_kind_is_refused(tmp_path, body):
    (tmp_path / "p.json").write_bytes(body)
    with pytest.raises(StateError, match="is not JSON"):
        Program().load(tmp_path / "p.json")


def test_a_folder_a_missing_file_and_a_pickle_raise_an_error(tmp_path):
    for act in (Program().save, Program().load):
        with pytest.raises(StateError, match=r"is a folder; give a file such as .*program.json"):
            act(tmp_path)
        with pytest.raises(StateError, match="reading a pickle runs code"):
            act(tmp_path / "p.pkl")
        with pytest.raises(StateError, match="give the path of a file"):
            act(None)
    with pytest.raises(StateError, match="cannot read .*No such file"):
        Program().load(tmp_path / "none.json")
    (tmp_path / "file").write_text("x")
    with pytest.raises(StateError, match="cannot write"):
        Program().save(tmp_path / "file" / "p.json")


def test_saving_replaces_a_file_whole_and_leaves_nothing_beside_it(tmp_path, monkeypatch):
    path = tmp_path / "new" / "p.json"
    learned().save(path)
    Program().save(path)
    assert contents(_loaded(path)) == contents(Program())
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(StateError, match="disk full"):
        learned().save(path)
    monkeypatch.undo()
    assert contents(_loaded(path)) == contents(Program())
    assert [p.name for p in path.parent.iterdir()] == ["p.json"]


def _loaded(path):
    program = Program()
    program.load(path)
    return program


def test_a_thousand_demos_take_well_under_a_second_or_two(tmp_path):
    demos = [
        {"question": f"q{i}", "context": ["c" * 200] * 5, "reasoning": "r" * 300, "answer": "a"} for i in range(1000)
    ]
    program = Program()
    program.answer.predict.demos = demos
    program.save(tmp_path / "p.json")
    assert _loaded(tmp_path / "p.json").answer.predict.demos == demos


# ── DSPy's files ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_program_saved_by_dspy_loads():
    program = _loaded(DATA / "dspy_program.json")
    assert program.retrieve.instruction is None
    assert program.answer.predict.instruction == "Answer in one word."
    assert program.answer.predict.demos == [
        {"question": "2+2?", "context": ["sums"], "reasoning": "Two and two.", "answer": "4"},
        {"question": "3+3?", "context": [], "answer": "6"},
    ]
    assert program.steps[1].demos == [{"b": "two", "c": 2.0}]
    assert program.by["x"].demos == [
        {"answer": "4", "sources": [Source(title="Sums", year=1901)], "ok": True, "when": datetime.date(2024, 5, 1)}
    ]
    assert [p.lm for _, p in program.named_predictors()] == [None] * 5
    predict = dn.Predict("question -> answer")
    predict.load(DATA / "dspy_predict.json")
    assert (predict.instruction, predict.demos) == (None, [{"question": "a", "answer": "b"}])


def test_an_agent_saved_by_dspy_loads_though_it_reasons_in_its_last_step():
    agent = dn.ReAct("question -> answer", [weather])
    agent.load(DATA / "dspy_react.json")
    assert agent.react.instruction.startswith("Call the tools.")
    assert agent.extract.instruction == "Answer in one word."
    assert agent.extract.demos == [{"question": "Rain?", "trajectory": "it rains", "answer": "yes"}]


def weather(city: str) -> str:
    """The weather in a city."""
    return "rain"


def test_the_long_prefix_of_reasoning_that_dspy_3_0_wrote_is_known():
    state = json.loads((DATA / "dspy_program.json").read_text())
    state["answer.predict"]["signature"]["fields"][2]["prefix"] = "Reasoning: Let's think step by step in order to"
    program = Program()
    program.load_state(state)
    assert program.answer.predict.instruction == "Answer in one word."


def test_a_dspy_program_that_differs_is_refused_whole():
    program = Changed()
    before = contents(program)
    with pytest.raises(StateError) as raised:
        program.load(DATA / "dspy_program.json")
    assert raised.value.differences == (
        "retrieve: the signature has 2 fields in the state (Question:, Query:), 3 in the program",
        "steps[1]: not in the program. Did you mean 'steps[0]'?",
        "by['x']: not in the program. Did you mean \"by['y']\"?",
        "by['y']: missing in the state",
    )
    assert contents(program) == before
    with pytest.raises(StateError, match="the field 'Answer:' of the state stands where the program has 'reply'"):
        dn.Predict("question -> reply").load(DATA / "dspy_predict.json")


def test_texts_that_dspy_wrote_for_values_are_read():
    state = json.loads((DATA / "dspy_program.json").read_text())
    state["by['x']"]["demos"] = [
        {"answer": "4", "sources": '[{"title": "t", "year": 1}]', "ok": "yes", "when": "2024-05-01"}
    ]
    program = Program()
    program.load_state(state)
    assert program.by["x"].demos[0] | {"answer": ""} == {
        "answer": "", "sources": [Source(title="t", year=1)], "ok": True, "when": datetime.date(2024, 5, 1),
    }  # fmt: skip
    state["by['x']"]["demos"] = [{"ok": "perhaps"}]
    with pytest.raises(StateError, match=r"by\['x'\]: demo 0 field 'ok': not a valid bool"):
        program.load_state(state)


@pytest.mark.parametrize(
    "damage", [("signature", {}), ("demos", [3]), ("signature", {"instructions": 1, "fields": []})]
)
def test_a_damaged_dspy_state_raises_an_error(damage):
    state = json.loads((DATA / "dspy_predict.json").read_text())
    with pytest.raises(StateError, match="self: the DSPy state is damaged"):
        dn.Predict("question -> answer").load_state({**copy.deepcopy(state), damage[0]: damage[1]})


def test_images_and_files_in_demos_are_saved_whole(tmp_path):
    class Look(dn.Signature):
        """Look."""

        image: dn.Image = dn.Input()
        papers: list[dn.File] = dn.Input()
        history: dn.History = dn.Input()
        answer: str = dn.Output()

    image, paper = dn.Image(b"\x89PNG\r\n\x1a\n12345"), dn.File(b"%PDF-1;2,3", name="a; paper,1.pdf")
    far = dn.Image("https://example.org/a.png")
    demo = {"image": image, "papers": [paper], "history": dn.History([{"image": far, "answer": "x"}]), "answer": "y"}
    program, other = dn.Predict(Look, demos=[demo]), dn.Predict(Look)
    program.save(tmp_path / "p.json")
    other.load(tmp_path / "p.json")
    (loaded,) = other.demos
    assert (loaded["image"], loaded["papers"], loaded["answer"]) == (image, [paper], "y")
    other.lm = dn.ScriptedLM(["[[ ## answer ## ]]\nz"])
    other.run_sync(image=image, papers=[paper], history=loaded["history"])
    assert far.part() in other.lm.requests[0].messages[3]["content"]
