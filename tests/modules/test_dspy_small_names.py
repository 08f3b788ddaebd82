"""Names that programs of DSPy use: reset, sub-modules, ensembles, settings, semantic metrics, models in saved files."""

from __future__ import annotations

import json

import pytest

import dspynb as dn
from dspynb.errors import ConfigurationError, RewardError


def answering(text):
    return dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: f"answer: {text}"))


def test_reset_removes_demos_and_models_and_reset_copy_leaves_the_program():
    program = dn.ChainOfThought("question -> answer", instruction="Be brief.")
    program.predict.demos = [{"question": "1+1?", "answer": "2"}]
    program.predict.lm = dn.ScriptedLM([])
    new = program.reset_copy()
    assert (new.predict.demos, new.predict.lm, new.predict.instruction) == ([], None, "Be brief.")
    assert len(program.predict.demos) == 1
    program.reset()
    assert (program.predict.demos, program.predict.lm) == ([], None)


def test_sub_modules_have_paths_and_are_listed_once():
    program = answering("4").then(dn.ChainOfThought("answer -> b"))
    assert [path for path, _ in program.named_sub_modules()] == ["self", "steps[0]", "steps[1]", "steps[1].predict"]
    assert [path for path, _ in program.named_sub_modules(dn.Predict)] == ["steps[0]", "steps[1].predict"]


def test_an_ensemble_votes_and_its_choice_is_the_same_for_the_same_inputs():
    programs = [answering(text) for text in "454"]
    assert dn.Ensemble().compile(programs).run_sync(question="2+2?").answer == "4"
    one = dn.Ensemble(size=1).compile(programs)
    assert len({one.run_sync(question="2+2?").answer for _ in range(5)}) == 1
    with pytest.raises(ConfigurationError, match="Ensemble takes at least 4 programs, got 3"):
        dn.Ensemble(size=4).compile(programs)


def test_settings_are_read_saved_and_loaded_but_not_set(tmp_path):
    with dn.context(lm=dn.LM("openai/m", api_key="sk-hidden-0123456789abcdef"), concurrency=3):
        assert dn.settings.concurrency == dn.settings["concurrency"] == 3
        dn.settings.save(tmp_path / "settings.json", exclude=["view"])
    assert "hidden" not in (tmp_path / "settings.json").read_text()
    loaded = dn.settings.load(tmp_path / "settings.json")
    assert (loaded["lm"], loaded["concurrency"], "view" in loaded) == ("openai/m", 3, False)
    with dn.context(**loaded):
        assert dn.settings.lm == "openai/m"
    with pytest.raises(AttributeError, match="dn.configure"):
        dn.settings.concurrency = 4
    (tmp_path / "other.json").write_bytes(b"\x80\x04")
    with pytest.raises(ConfigurationError, match="A file of DSPy is a pickle"):
        dn.settings.load(tmp_path / "other.json")


def test_a_saved_program_names_its_model_and_temperature_and_loads(tmp_path):
    program = dn.Predict("question -> answer", lm=dn.LM("openai/m", api_key="k"), temperature=0.5)
    program.save(tmp_path / "program.json")
    saved = json.loads((tmp_path / "program.json").read_text())
    assert saved["models"] == {"self": {"model": "openai/m", "temperature": 0.5}}
    new = dn.Predict("question -> answer")
    new.load(tmp_path / "program.json")
    assert (new.lm, new.settings) == (None, {})


def test_semantic_metrics_read_the_fields_that_they_are_told():
    reply = "discussion: d\nrecall: 0.5\nprecision: 1.0"
    row, prediction = dn.Example(question="q", response="r"), dn.Prediction(response="p")
    score = dn.run_sync(lambda: dn.metrics.SemanticF1(lm=dn.ScriptedLM([reply]))(row, prediction))
    assert score.value == pytest.approx(2 / 3)
    assert score.parts == {"recall": 0.5, "precision": 1.0}
    strict = dn.metrics.SemanticF1(0.7, lm=dn.ScriptedLM([reply]))
    assert dn.run_sync(lambda: strict(row, prediction)).value == 0.0
    with pytest.raises(ConfigurationError, match="the row has no field 'respons'. Did you mean 'response'"):
        dn.run_sync(lambda: dn.metrics.SemanticF1(label="respons")(row, prediction))
    with pytest.raises(RewardError, match="the judge's reply cannot be used"):
        dn.run_sync(lambda: dn.metrics.SemanticF1(lm=dn.ScriptedLM(["?", "?"]))(row, prediction))
