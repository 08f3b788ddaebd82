"""Files of earlier versions: each opens, has the same content as then, and its run can be resumed.

If a test fails, the code is wrong and not the file; see fixtures/README.md.
"""

from __future__ import annotations

import asyncio
import csv
import hashlib
import importlib
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import nbformat
import pytest

import dspynb as dn
from dspynb.errors import ConfigurationError, RecordingMiss
from tests.fixtures.facts import calls, facts

FOLDERS = sorted(path.parent for path in (Path(__file__).parent / "fixtures").glob("v*/about.json"))
VERSIONS = [folder.name for folder in FOLDERS]
KINDS = {
    "call",
    "refine",
    "best_of_n",
    "batch",
    "evaluate",
    "compare",
    "grid",
    "bootstrap_few_shot",
    "bootstrap_random_search",
    "copro",
    "mipro_v2",
    "gepa",
    "simba",
    "distill_hints",
    "optimizer",
}
UNFINISHED = {"stopped", "stopped_twice", "interrupted", "killed", "torn"}
FACTS = {folder.name: json.loads((folder / "facts.json").read_text()) for folder in FOLDERS}
RUNS = [(version, name) for version in VERSIONS for name in FACTS[version]]
every_version = pytest.mark.parametrize("version", VERSIONS)
every_run = pytest.mark.parametrize(("version", "name"), RUNS, ids=[f"{v}-{name}" for v, name in RUNS])


def world_of(version):
    return importlib.import_module(f"tests.fixtures.{version}.world")


def folder_of(version):
    return Path(__file__).parent / "fixtures" / version


def copy_run_file(version, name, tmp_path):
    """Copy a run file to the folder of runs, and return its path."""
    target = tmp_path / "runs" / f"{name}.jsonl"
    target.parent.mkdir(exist_ok=True)
    shutil.copyfile(folder_of(version) / "runs" / target.name, target)
    return target


def finished_facts(version, name):
    """The facts of the finished run of the same work."""
    return FACTS[version][f"{name.partition('.')[0]}.finished"]


# ── the files ────────────────────────────────────────────────────────────────────────────────────────────────────────
@every_version
def test_no_file_of_a_version_was_changed(version):
    """The list of digests is written when a folder is committed. A file with another digest was changed."""
    folder = folder_of(version)
    listed = dict(reversed(line.split("  ")) for line in (folder / "SHA256").read_text().splitlines())
    digests = {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc") and path.name != "SHA256"
    }
    assert digests == listed


def test_there_is_a_file_for_every_kind_of_run_and_every_status():
    for version in VERSIONS:
        kinds = {json.loads(_first(version, name))["kind"] for name in FACTS[version] if name.endswith(".finished")}
        assert kinds == KINDS
        for name in world_of(version).RESUMABLE:
            assert {f"{name}.stopped", f"{name}.killed"} <= set(FACTS[version])
        states = {run_facts["status"] for run_facts in FACTS[version].values()}
        assert states == {"finished", "stopped", "unfinished", "interrupted", "exhausted", "failed", "cancelled"}


def _first(version, name):
    return (folder_of(version) / "runs" / f"{name}.jsonl").read_text().splitlines()[0]


# ── run files ────────────────────────────────────────────────────────────────────────────────────────────────────────
@every_run
def test_a_run_file_has_the_same_facts_as_when_it_was_written(version, name):
    expected = {key: value for key, value in FACTS[version][name].items() if key != "each call"}
    assert facts(dn.open_run(folder_of(version) / "runs" / f"{name}.jsonl")) == expected


@every_run
def test_a_run_file_can_be_shown_as_text_html_a_page_and_a_trace(version, name, tmp_path):
    run = dn.open_run(folder_of(version) / "runs" / f"{name}.jsonl")
    expected = FACTS[version][name]
    status = expected["status"]
    assert f": {status}, " in repr(run)
    html = run._repr_html_()
    assert f"dspynb-{status}" in html.partition("<script")[0].rpartition("</style>")[2]
    assert len(run.save_html(tmp_path / "run.html").read_text()) > len(html)
    trace = dn.Trace.load(folder_of(version) / "runs" / f"{name}.jsonl")
    assert len(trace.calls) == expected["calls"]
    assert len(trace.table()) >= expected["calls"]
    assert trace.tree()
    if expected["candidates"]:
        assert run.matrix.shape[1] in (3, 4)
        assert len(run.history) >= 1 or name.startswith(("gepa", "bootstrap", "distill", "mipro"))


@every_version
def test_a_folder_of_old_runs_is_listed(version):
    dn.configure(runs_dir=str(folder_of(version) / "runs"))
    table = dn.runs().assign(name=lambda runs: [Path(path).stem for path in runs.path])
    assert dict(zip(table.name, table.status, strict=True)) == {n: s["status"] for n, s in FACTS[version].items()}
    assert set(table.kind) == KINDS
    assert table.id.is_unique


@every_version
def test_an_old_run_has_all_of_its_calls(version):
    run = dn.open_run(folder_of(version) / "runs" / "call.finished.jsonl")
    assert calls(run) == FACTS[version]["call.finished"]["each call"]
    text = (folder_of(version) / "runs" / "call.finished.jsonl").read_text()
    assert ";base64," not in text
    assert run.usage.usd is None  # the price of one call is unknown


def test_old_run_files_have_the_known_contents():
    """The expected values are not from facts.json, which would contain the mistakes of the tables of that version."""
    runs = folder_of("v0_1") / "runs"
    call = dn.open_run(runs / "call.finished.jsonl")
    assert call.calls.predictor.tolist() == [
        "agent.react", "agent.react", "agent.extract", "caption", "caption", "twice", "twice",
    ]  # fmt: skip
    assert call.calls.cached.tolist() == [False, False, False, False, True, False, False]
    (events,) = [dn.Trace.load(runs / "call.finished.jsonl").events]
    called = [event for event in events if type(event).__name__ == "PredictorCalled"]
    assert [event.repair for event in called] == [False, False, False, False, True, False, False]
    assert [c["function"]["name"] for c in called[0].tool_calls] == ["population", "population"]
    assert json.loads(called[0].tool_calls[0]["function"]["arguments"]) == {"city": "Tōkyō 🗼"}
    assert called[4].outputs == {"caption": "Ein rotes Pünktchen 🔴", "stars": 4}
    assert [event.usage.usd for event in called[:3]] == [None, 0.002, 0.001]
    hinted = dn.open_run(runs / "refine_hinted.finished.jsonl").attempts
    assert hinted.hint.tolist() == [None, "A person's: 数を倍に", "Use sepia.", None]
    assert hinted.hint_by.tolist() == ["", "person", "", ""]
    rows = dn.open_run(runs / "evaluate.finished.jsonl").rollouts
    assert rows.question[1] == "twice #6#, bitte, für 東京 🗼 \u202e\u2028"
    assert rows.question[4] == "twice #9# \ud83d"
    assert rows.error.notna().tolist() == [False, False, True, False, False] * 2
    steered = dn.open_run(runs / "copro_steered.finished.jsonl")
    assert "Answer with umber. — 人" in [c["self"] for c in steered.candidates.instructions]
    actions = [event.action for event in dn.Trace.load(steered.path).events if type(event).__name__ == "Steered"]
    assert sorted(actions) == ["budget", "drop", "pause", "pin", "propose", "unpause", "unpin"]
    simba = dn.open_run(runs / "simba.finished.jsonl")
    assert simba.summary
    assert simba.best_parts["self"]["instruction"].endswith("\n\nAnswer with umber and teal and sepia.")


# ── resuming ─────────────────────────────────────────────────────────────────────────────────────────────────────────
CONTINUED = [
    (version, name)
    for version, name in RUNS
    if name.rpartition(".")[2] in UNFINISHED
    and (name.partition(".")[0] in world_of(version).RESUMABLE or name.startswith("copro_steered"))
]


def resume(version, path, name, **more):
    """Resume a run to its end, and return the run and the number of model calls that this took."""
    w = world_of(version)
    world = w.World()

    async def main():
        run = w.RESUMABLE[name.partition(".")[0].removesuffix("_steered")].resume(path, world, **more)
        await run
        return run

    return asyncio.run(main()), world.asked


def missing_calls(finished, unfinished):
    """The number of model calls that a run file lacks.

    An evaluation repeats the calls of an unfinished row; an optimizer does not. Each attempt of a Refine is one call.
    """
    if not finished["candidates"]:
        all_attempts = sum(row["attempts"] for row in finished["rollouts"])
        return all_attempts - sum(row["attempts"] for row in unfinished["rollouts"])
    return finished["calls"] - unfinished["calls"]


def result_of(run_facts):
    """The facts that must not depend on where a run stopped. The order of rows and cached calls may depend on it."""
    rollouts = [row | {"cached": None} for row in run_facts["rollouts"]]
    tables = [sorted(map(str, table)) for table in (rollouts, run_facts["candidates"], run_facts["proposals"])]
    return tables, run_facts["winner"], run_facts["status"]


@pytest.mark.parametrize(("version", "name"), CONTINUED, ids=[f"{v}-{name}" for v, name in CONTINUED])
def test_an_old_run_is_resumed_and_ends_like_an_uninterrupted_run(version, name, tmp_path):
    path = copy_run_file(version, name, tmp_path)
    finished = finished_facts(version, name)
    run, paid = resume(version, path, name)
    assert paid == missing_calls(finished, FACTS[version][name])
    assert paid > 0
    assert result_of(facts(dn.open_run(path))) == result_of(finished)
    assert run.best_parts == dn.open_run(path).best_parts
    live = run.best
    if finished["winner"]:
        for at, predictor in live.named_predictors():
            part = finished["winner"].get(at, {})
            default = predictor.signature.instruction
            assert (predictor.instruction or default) == part.get("instruction", default)
            assert [dict(demo) for demo in predictor.demos] == part.get("demos", [])
    else:
        assert len(live) == len(finished["rollouts"]) == 10
        assert float(live) == pytest.approx(sum(row.get("score", 0) for row in finished["rollouts"]) / 10)


@every_version
@pytest.mark.parametrize("name", ["evaluate_exhausted.exhausted", "evaluate_max_errors.finished"])
def test_an_old_evaluation_whose_budget_was_spent_can_be_finished(version, name, tmp_path):
    path = copy_run_file(version, name, tmp_path)
    _, paid = resume(version, path, "evaluate")
    finished = FACTS[version]["evaluate.finished"]
    assert paid == missing_calls(finished, FACTS[version][name])
    assert result_of(facts(dn.open_run(path))) == result_of(finished)


@every_version
def test_resuming_an_old_optimizer_run_whose_budget_was_spent_makes_no_calls(version, tmp_path):
    name = "mipro_v2_exhausted.exhausted"
    path = copy_run_file(version, name, tmp_path)
    run, paid = resume(version, path, "mipro_v2", budget=dn.Budget(metric_calls=7))
    assert (run.status, paid) == ("exhausted", 0)
    assert result_of(facts(dn.open_run(path))) == result_of(FACTS[version][name])


@every_version
@pytest.mark.parametrize("kind", ["evaluate", "copro", "gepa"])
def test_resuming_an_old_finished_run_makes_no_calls(version, kind, tmp_path):
    path = copy_run_file(version, f"{kind}.finished", tmp_path)
    _, paid = resume(version, path, kind)
    assert paid == 0
    assert result_of(facts(dn.open_run(path))) == result_of(FACTS[version][f"{kind}.finished"])
    assert dn.runs().status.tolist() == ["finished"]


# ── settings that a file lacks ───────────────────────────────────────────────────────────────────────────────────────
DEFAULTS = {
    "evaluate": {"failure_score": "failure_score"},
    "bootstrap_few_shot": {"max_rounds": "max_rounds", "metric_threshold": "metric_threshold", "teacher": "teacher"},
    "bootstrap_random_search": {"failure_score": "failure_score", "teacher_lm": "teacher_lm"},
    "copro": {"init_temperature": "init_temperature", "prompt_lm": "prompt_lm"},
    "mipro_v2": {
        "init_temperature": "init_temperature",
        "minibatch": "minibatch",
        "shown_rows": "shown_rows",
        "metric_threshold": "metric_threshold",
    },
    "gepa": {
        "auto": "auto",
        "components": "components",
        "max_merges": "max_merges",
        "perfect_score": "perfect_score",
        "temperature": "temperature",
        "in_flight": "in_flight",
        "racing": "racing",
    },
    "simba": {
        "temperature_for_sampling": "temperature_for_sampling",
        "temperature_for_candidates": "temperature_for_candidates",
        "combine": "combine",
    },
    "distill_hints": {"rewrite": "rewrite", "hints": "run"},
}
"""Settings of the killed runs that have their default values: name in the file → parameter."""
LACKING_SETTINGS = [
    pytest.param(kind, setting, parameter, id=f"{kind}-{setting}")
    for kind, settings in DEFAULTS.items()
    for setting, parameter in settings.items()
]


def without_setting(path, setting):
    """Remove a setting from the start event of a run, as in a file of a version without that setting."""
    lines = path.read_text().splitlines(keepends=True)
    for number, line in enumerate(lines):
        if line.startswith('{"type":"RunStarted"'):
            body = json.loads(line)
            del body["settings"][setting]
            lines[number] = json.dumps(body, separators=(",", ":")) + "\n"
    path.write_text("".join(lines))


@pytest.mark.parametrize(("kind", "setting", "parameter"), LACKING_SETTINGS)
def test_a_setting_that_an_old_file_lacks_has_the_value_of_that_version(kind, setting, parameter, tmp_path):
    path = copy_run_file("v0_1", f"{kind}.killed", tmp_path)
    without_setting(path, setting)
    _, paid = resume("v0_1", path, kind, without={parameter})
    finished = FACTS["v0_1"][f"{kind}.finished"]
    assert paid == missing_calls(finished, FACTS["v0_1"][f"{kind}.killed"])
    assert result_of(facts(dn.open_run(path))) == result_of(finished)


@pytest.mark.parametrize(
    ("kind", "setting", "other"),
    [
        ("evaluate", "failure_score", {"failure_score": 0.5}),
        ("copro", "init_temperature", {"init_temperature": 0.5}),
        ("copro", "seed", {"seed": 8}),
        ("gepa", "racing", {"racing": False}),
        ("simba", "combine", {"combine": False}),
        ("bootstrap_few_shot", "metric_threshold", {"metric_threshold": 0.5}),
    ],
)
def test_a_run_whose_file_lacks_a_setting_cannot_be_resumed_with_another_value(kind, setting, other, tmp_path):
    path = copy_run_file("v0_1", f"{kind}.killed", tmp_path)
    without_setting(path, setting)
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match=setting):
        resume("v0_1", path, kind, **other)
    assert path.read_bytes() == before


@every_version
@pytest.mark.parametrize("kind", ["evaluate", "copro"])
def test_an_old_run_cannot_be_resumed_with_other_rows_or_another_program(version, kind, tmp_path, monkeypatch):
    path = copy_run_file(version, f"{kind}.killed", tmp_path)
    w = world_of(version)
    for name, value in (("ROWS", w.ROWS[1:]), ("VAL", w.VAL[1:]), ("one", w.two)):
        with monkeypatch.context() as changed:
            changed.setattr(w, name, value)
            if name == "one":
                changed.setitem(w.OPTIMIZERS, "copro", (dn.COPRO, w.two, w.OPTIMIZERS["copro"][2]))
            if (kind, name) in (("evaluate", "VAL"), ("copro", "ROWS")):
                continue
            with pytest.raises(ConfigurationError, match="these settings changed: (data|val|program)"):
                resume(version, path, kind)


# ── traces, replays and recordings ───────────────────────────────────────────────────────────────────────────────────
@every_version
def test_old_traces_are_loaded_and_replayed_without_a_model(version):
    w = world_of(version)
    for name, program, inputs in (
        ("guide", w.guide(w.World(0)), w.GUIDE_INPUTS),  # the image is not in the file
        ("refine", w.refined(w.World(0), n=3, width=2), None),
    ):
        trace = dn.Trace.load(folder_of(version) / "traces" / f"{name}.jsonl")
        table = trace.table()
        assert table[table.kind == "call"].reply.notna().all()
        assert len(trace) == {"guide": 7, "refine": 3}[name]
        assert trace._repr_html_()
        replayed = dn.run_sync(
            lambda trace=trace, program=program, inputs=inputs: dn.replay(trace, program, inputs=inputs)
        )
        assert replayed.exact, replayed.divergences
        assert replayed.complete
    assert replayed.prediction.answer == "16"
    tools = dn.Trace.load(folder_of(version) / "traces" / "guide.jsonl").table().query("kind == 'tool'")
    assert tools.path.tolist() == ["population", "population"]


@every_version
def test_an_old_run_file_is_replayed(version):
    w = world_of(version)
    path = folder_of(version) / "runs" / "refine.finished.jsonl"
    replayed = dn.run_sync(lambda: dn.replay(path, w.refined(w.World(0), n=3, width=2)))
    assert replayed.exact
    assert replayed.prediction.answer == "16"


@every_version
def test_old_recordings_answer_again(version):
    w = world_of(version)
    folder = folder_of(version) / "recordings"
    prediction = w.refined_on(dn.recorded(folder / "world.jsonl")).run_sync(question="twice #8#, für 東京")
    assert prediction.run.attempts.score.tolist() == [0.0, 1.0]
    assert prediction.answer == "16"
    guide = w.Guide(dn.recorded(folder / "guide.jsonl"), w.World()).run_sync(**w.GUIDE_INPUTS)
    assert (guide.lives, guide.caption, guide.stars) == ("13,960,000", "Ein rotes Pünktchen 🔴", 4)
    with pytest.raises(RecordingMiss):
        w.refined_on(dn.recorded(folder / "world.jsonl")).module.run_sync(question="twice #9#")


# ── the reply cache ──────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.fixture
def cache(request, tmp_path, monkeypatch):
    """A copy of an old cache as the user's cache, without a server."""
    folder = tmp_path / "cache"
    shutil.copytree(folder_of(request.param) / "cache", folder)
    monkeypatch.setenv("DSPYNB_CACHE_DIR", str(folder))
    for name in ("OPENAI_BASE_URL", "OPENAI_API_BASE"):  # entries of this version have no address
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("DSPYNB_LIVE", raising=False)
    dn.configure(cache=True)
    return request.param


with_cache = pytest.mark.parametrize("cache", VERSIONS, indirect=True)


@with_cache
def test_an_old_cache_answers_equal_requests(cache):
    w = world_of(cache)

    async def main():
        replies = {}
        for name, request in w.requests().items():
            if name != "cut":
                lm = w.own_server() if name == "own server" else w.provider()
                replies[name] = await lm.complete(request)
        return replies

    replies = dn.run_sync(main)
    assert all(reply.cached and reply.usage.calls == 0 for reply in replies.values())
    assert {name: replies[name].text for name in ("text", "rollout", "settings", "schema", "own server")} == {
        "text": "text 東京 🗼 at 0",
        "rollout": "text 東京 🗼 at 0",
        "settings": "text 東京 🗼 at 0.7",
        "schema": "text 東京 🗼 at 0",
        "own server": "from your own server",
    }
    assert replies["tool calls"].tool_calls[0]["function"] == {"name": "population", "arguments": '{"city": "Tōkyō"}'}
    assert replies["tool calls"].text == ""
    assert (replies["reasoning"].text, replies["reasoning"].reasoning) == ("therefore", "because 東京")
    assert replies["completions"].completions == ("completions at 0", "second")
    assert replies["logprobs"].logprobs["content"][0]["logprob"] == -0.25
    assert replies["half a pair"].text == "half a pair \ud83d at 0"
    assert {reply.finish for name, reply in replies.items() if name != "own server"} == {"stop"}
    used = replies["text"].usage
    assert (used.prompt_tokens, used.completion_tokens, used.cached_tokens, used.reasoning_tokens) == (7, 3, 2, 1)


@with_cache
def test_an_old_cache_answers_a_programs_call(cache):
    prediction = world_of(cache).cached_program().run_sync(question="twice #2#")
    assert prediction.answer == "4, aus dem Speicher"
    assert prediction.run.calls.cached.tolist() == [True]


@with_cache
def test_a_request_that_is_not_in_an_old_cache_is_sent(cache, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    w = world_of(cache)
    other = dn.LMRequest(w.requests()["text"].messages, rollout=2)
    with pytest.raises(dn.errors.ConnectionFailed):
        dn.run_sync(lambda: w.provider().complete(other))


@every_version
def test_an_old_cache_has_an_entry_for_each_request(version):
    with closing(sqlite3.connect(f"file:{folder_of(version)}/cache/replies.sqlite?immutable=1", uri=True)) as file:
        keys = [key for (key,) in file.execute("select key from replies")]
    assert len(keys) == len(world_of(version).requests()) + 1
    assert all(len(key) == 32 for key in keys)


# ── programs, tables, pages ──────────────────────────────────────────────────────────────────────────────────────────
def learned_state(program):
    """Instruction, prefix and demos of each predictor of a program."""
    return [(at, p.instruction, p.prefix, list(map(dict, p.demos))) for at, p in program.named_predictors()]


@every_version
def test_old_saved_programs_are_loaded(version, tmp_path):
    w = world_of(version)
    blank = w.blank()
    learned = w.learned()
    assert {path.stem for path in (folder_of(version) / "programs").glob("*.json")} == set(blank)
    for name, program in blank.items():
        program.load(folder_of(version) / "programs" / f"{name}.json")
        assert learned_state(program) == learned_state(learned[name])
        program.save(tmp_path / "again.json")
        loaded = w.blank()[name]
        loaded.load(tmp_path / "again.json")
        assert loaded.dump_state() == program.dump_state()
    assert blank["predict"].prefix == "Well,"
    assert [dict(demo) for demo in blank["predict"].demos] == [w.double(1), w.double(2)]
    (demo,) = blank["chain_of_thought"].named_predictors()[0][1].demos
    assert (demo["context"], demo["answer"]) == (["a", "b"], 8)
    (demo,) = blank["refine"].named_predictors()[0][1].demos
    assert demo["picture"].data == w.PNG


@every_version
def test_old_tables_of_an_evaluation_are_read_as_rows(version):
    folder = folder_of(version) / "tables"
    tables = {
        suffix: dn.read_examples(folder / f"evaluation.{suffix}") for suffix in ("json", "jsonl", "csv", "parquet")
    }
    for rows in tables.values():
        assert [row.score for row in rows] == [1.0, 1.0, 0.0, 0.0]
        assert rows[2].error.startswith("AllAttemptsFailed: all 2 attempts failed")
        assert rows[1].question == "twice #6#, bitte, für 東京 🗼 \u202e\u2028"
        assert [str(row.predicted_answer) for row in rows][:2] == ["10", "12"]
    with (folder / "evaluation.csv").open(newline="", encoding="utf-8") as stream:
        assert len(list(csv.DictReader(stream))) == 4


@every_version
def test_old_pages_and_notebooks_contain_their_views(version):
    page = (folder_of(version) / "tables" / "copro.html").read_text()
    notebook = nbformat.read(folder_of(version) / "notebook.ipynb", as_version=4)
    nbformat.validate(notebook)
    outputs = [output.data for cell in notebook.cells for output in cell.outputs]
    view, table, attempts = outputs
    assert "4 of 4 rows" in view["text/html"]
    assert "finished" in view["text/plain"].splitlines()[0]
    for html, text in ((page, "0.6667"), (view["text/html"], "twice #6#")):
        plain, _, script = html.partition("<script type='module'>")
        assert text in plain
        assert "still('" in script
        data = json.loads(script.rpartition("still('")[2].partition("', ")[2].rpartition(");</script>")[0])
        assert data["header"]["state"] == "finished"
        assert data["rows"]
    assert "4 rows, 1 failed, counted as 0" in table["text/plain"]
    assert "Answer with umber and teal." in attempts["text/html"]
