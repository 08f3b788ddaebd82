"""Settings of optimizers: declared once, shown by the signature, checked when made, recorded for resuming."""

from __future__ import annotations

import asyncio
import copy
import inspect
import math
import pickle
import subprocess
import sys
import typing
import typing as t
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest

import dspynb as dn
from dspynb.errors import ConfigurationError
from dspynb.running.journal import flush_journals
from tests.optimizers.worlds import SMALL, TRAIN, VAL, World, fitted, one, optimized, right, small

run = asyncio.run
every = pytest.mark.parametrize("kind", SMALL, ids=lambda kind: kind.__name__)

WHOLE = "a whole number of at least 0"
POSITIVE = "a whole number of at least 1"
AT_LEAST_2 = "a whole number of at least 2"
FINITE = "a finite number"
FROM_0 = "a finite number of at least 0"
ABOVE_0 = "a number above 0"
BOOL = "True or False"
MODEL = None  # its messages have a test of their own
COMMON = {
    "budget": (None, 3, "a dn.Budget, or None"),
    "seed": (0, 0.5, "a whole number"),
    "concurrency": (None, 0, f"{POSITIVE}, or None"),
    "failure_score": (0.0, math.nan, FINITE),
    "prompt_lm": (None, 3, MODEL),
    "patience": (5, 0, POSITIVE),
    "executor": (None, "dask", None),
}
DEMOS = {
    "metric_threshold": (None, "high", f"{FINITE}, or None"),
    "max_bootstrapped_demos": (4, 0, POSITIVE),
    "max_labeled_demos": (16, -1, WHOLE),
    "max_rounds": (1, 1.5, POSITIVE),
    "teacher": (None, "gpt", "a program, or None"),
    "teacher_lm": (None, 3, MODEL),
}
DECLARED = {
    dn.BootstrapFewShot: DEMOS,
    dn.BootstrapRandomSearch: {"num_candidates": (16, 0, POSITIVE), **DEMOS},
    dn.COPRO: {
        "breadth": (10, 1, AT_LEAST_2),
        "depth": (3, 0, POSITIVE),
        "init_temperature": (1.4, -1, FROM_0),
    },
    dn.MIPROv2: {
        "auto": ("light", "tiny", "one of light, medium, heavy, or None"),
        "num_candidates": (None, 1, f"{AT_LEAST_2}, or None"),
        "num_trials": (None, 0, f"{POSITIVE}, or None"),
        "max_bootstrapped_demos": (4, -1, WHOLE),
        "max_labeled_demos": (4, True, WHOLE),
        "metric_threshold": (None, math.inf, f"{FINITE}, or None"),
        "teacher_lm": (None, 3, MODEL),
        "init_temperature": (1.0, "hot", FROM_0),
        "minibatch": (True, 1, BOOL),
        "minibatch_size": (35, 0, POSITIVE),
        "full_eval_steps": (5, None, POSITIVE),
        "in_flight": (None, 0, f"{POSITIVE}, or None"),
        "shown_rows": (0, -1, WHOLE),
    },
    dn.GEPA: {
        "auto": ("light", None, "one of light, medium, heavy"),
        "max_steps": (None, 0, f"{POSITIVE}, or None"),
        "minibatch_size": (3, "3", POSITIVE),
        "components": ("round_robin", "some", "one of round_robin, all"),
        "max_merges": (5, -1, WHOLE),
        "perfect_score": (1.0, True, FINITE),
        "temperature": (1.0, -0.1, f"{FROM_0}, or None"),
        "in_flight": (2, 0, POSITIVE),
        "confirm": (9, 1.0, WHOLE),
        "recall": (None, -1, f"{WHOLE}, or None"),
        "racing": (True, "yes", BOOL),
    },
    dn.SIMBA: {
        "minibatch_size": (32, 0, POSITIVE),
        "num_candidates": (6, 1, AT_LEAST_2),
        "max_steps": (8, 1.5, POSITIVE),
        "max_demos": (4, -1, WHOLE),
        "temperature_for_sampling": (0.2, 0, ABOVE_0),
        "temperature_for_candidates": (0.2, "hot", ABOVE_0),
        "combine": (True, 1, BOOL),
    },
    dn.DistillHints: {
        "run": (None, None, None),
        "max_hints": (3, 0, POSITIVE),
        "rewrite": (True, 1, BOOL),
        "level": (0.95, 1, "a number above 0 and below 1"),
    },
}
"""Optimizer → setting → its default, a refused value, and what the message says that a value must be."""
CASES = [
    pytest.param(kind, name, *setting[1:], id=f"{kind.__name__}-{name}")
    for kind, own in DECLARED.items()
    for name, setting in {**own, **COMMON}.items()
    if name != "run"
]


# ── the signature ─────────────────────────────────────────────────────────────────────────────────────────────────────
@every
def test_the_signature_names_every_setting_with_its_type_and_default(kind):
    metric, *settings = inspect.signature(kind).parameters.values()
    assert (metric.name, metric.kind) == ("metric", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in settings)
    assert {p.name: p.default for p in settings} == {
        name: default for name, (default, *_) in {**DECLARED[kind], **COMMON}.items()
    }
    assert all(p.annotation not in (p.empty, "Any", typing.Any) for p in [metric, *settings])
    own = [p.name for p in settings]
    assert own[-len(COMMON) :] == list(COMMON)  # the common settings come last


@every
def test_a_setting_is_an_attribute_of_that_name(kind):
    optimizer = kind(right)
    for name, (default, *_) in {**DECLARED[kind], **COMMON}.items():
        assert getattr(optimizer, name) == (30 if name == "recall" else default)


@every
def test_the_metric_is_passed_by_position_or_name_and_everything_else_by_name(kind):
    assert kind(metric=right).metric.fn is kind(right).metric.fn is right
    with pytest.raises(TypeError, match="too many positional arguments"):
        kind(right, 3)
    if kind in (dn.DistillHints, dn.BootstrapFewShot):
        assert kind().metric is None
    else:
        with pytest.raises(TypeError, match="missing a required argument: 'metric'"):
            kind()


# ── bad values ────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(("kind", "name", "refused", "says"), CASES)
def test_a_value_out_of_bounds_is_an_error_that_names_class_argument_value_and_bounds(kind, name, refused, says):
    with pytest.raises(ConfigurationError) as raised:
        kind(right, **{name: refused})
    said = str(raised.value)
    assert said.startswith(f"{kind.__name__}: {name}")
    if says is not None:
        assert said.startswith(f"{kind.__name__}: {name} must be {says}, got {refused!r}")


@every
def test_all_wrong_settings_are_in_one_error(kind):
    wrong = {name: refused for name, (_, refused, says) in {**DECLARED[kind], **COMMON}.items() if says}
    with pytest.raises(ConfigurationError) as raised:
        kind("accuracy", **wrong, seeds=3)
    said = str(raised.value)
    assert said.startswith(f"{kind.__name__} has no setting 'seeds'. Did you mean 'seed'?")
    assert "metric must be a function of (row, prediction), got str" in said
    for name, value in wrong.items():
        assert f"{name} must be " in said
        assert f"got {value!r}" in said


@pytest.mark.parametrize("half", [dn.Score(0.5), Decimal("0.5")])
def test_every_type_of_number_becomes_an_equal_float(half):
    assert dn.GEPA(right, perfect_score=half, failure_score=half).perfect_score == 0.5
    assert type(dn.MIPROv2(right, metric_threshold=half).metric_threshold) is float


@every
@pytest.mark.parametrize(
    ("theirs", "says"),
    [
        ("num_threads", "Did you mean 'concurrency'"),
        ("reflection_lm", "Did you mean 'prompt_lm'"),
        ("max_metric_calls", r"budget=dn\.Budget\(metric_calls=…\)"),
        ("trainset", "the rows are arguments of compile"),
        ("log_dir", "every run is recorded"),
        ("max_errors", "failure_score="),
        ("task_model", "the program has its model"),
        ("prompt_mdel", "Did you mean 'prompt_lm'|'prompt_mdel'"),
    ],
)
def test_names_of_dspy_are_refused_with_the_names_to_use(kind, theirs, says):
    with pytest.raises(ConfigurationError, match=f"{kind.__name__} has no setting '{theirs}'.*{says}"):
        kind(right, **{theirs: 3})


def test_names_of_dspy_for_settings_of_one_optimizer_are_refused_too():
    for kind, theirs, ours in (
        (dn.GEPA, "reflection_minibatch_size", "minibatch_size"),
        (dn.GEPA, "component_selector", "components"),
        (dn.GEPA, "use_merge", "max_merges"),
        (dn.SIMBA, "bsize", "minibatch_size"),
        (dn.MIPROv2, "minibatch_full_eval_steps", "full_eval_steps"),
        (dn.MIPROv2, "view_data_batch_size", "shown_rows"),
        (dn.BootstrapFewShot, "teacher_settings", "teacher_lm"),
        (dn.MIPROv2, "teacher_settings", "teacher_lm"),
        (dn.BootstrapRandomSearch, "num_candidate_programs", "num_candidates"),
    ):
        with pytest.raises(ConfigurationError, match=f"'{theirs}'. Did you mean '{ours}'"):
            kind(right, **{theirs: 3})


# ── what a run file records ───────────────────────────────────────────────────────────────────────────────────────────
NOT_RECORDED = {"budget", "concurrency", "patience", "executor"}
OTHER = {
    "seed": 1,
    "failure_score": 0.25,
    "prompt_lm": dn.FunctionLM(str, name="writer"),
    "metric_threshold": 0.125,
    "max_bootstrapped_demos": 1,
    "max_labeled_demos": 1,
    "max_rounds": 3,
    "teacher": dn.Predict("question -> answer", instruction="Teach."),
    "teacher_lm": dn.FunctionLM(str, name="teacher"),
    "num_candidates": 4,
    "breadth": 4,
    "depth": 3,
    "init_temperature": 0.5,
    "num_trials": 6,
    "minibatch": False,
    "minibatch_size": 4,
    "full_eval_steps": 3,
    "in_flight": 3,
    "shown_rows": 2,
    "auto": "medium",
    "max_steps": 7,
    "components": "all",
    "max_merges": 1,
    "perfect_score": 2.0,
    "temperature": None,
    "confirm": 1,
    "recall": 1,
    "racing": False,
    "max_demos": 1,
    "temperature_for_sampling": 0.5,
    "temperature_for_candidates": 0.5,
    "combine": False,
    "max_hints": 1,
    "rewrite": False,
    "level": 0.5,
}
"""Another value of each setting than that of ``SMALL``, and than the default."""
IN_THE_FILE = {"max_bootstrapped_demos": "traces", "max_labeled_demos": "labeled"}
"""What run files of MIPROv2 call some settings."""


def resumed(kind, path, **settings):
    async def main():
        await small(kind, **settings).resume(path, fitted(kind, one(World())), TRAIN, VAL)
        flush_journals()

    run(main())


@every
def test_a_run_is_resumed_with_the_same_settings_and_with_no_other(kind):
    path = run(optimized(kind, World())).path
    resumed(kind, path)
    for name in {**DECLARED[kind], **COMMON}:
        if name in NOT_RECORDED or name == "run":
            continue
        settings = {name: OTHER[name]}
        if (kind, name) == (dn.MIPROv2, "auto"):
            settings |= {"num_candidates": None, "num_trials": None}
        written = IN_THE_FILE.get(name, name) if kind is dn.MIPROv2 else name
        with pytest.raises(ConfigurationError, match=rf"these settings changed: (.*, )?{written} \(.* then, .* now\)"):
            resumed(kind, path, **settings)


@every
def test_settings_without_effect_on_the_result_may_differ_when_a_run_is_resumed(kind):
    path = run(optimized(kind, World())).path
    others = {"budget": dn.Budget(metric_calls=5000), "patience": 9}
    if kind is not dn.MIPROv2:  # there it decides how many results the sampler knows
        others["concurrency"] = 2
    resumed(kind, path, **others)


@every
def test_equal_settings_are_recorded_equally_however_they_are_written(kind):
    assert kind(right).described() == kind(right, **defaults(kind)).described() == kind(metric=right).described()


def defaults(kind):
    return {name: default for name, (default, *_) in {**DECLARED[kind], **COMMON}.items() if name != "recall"}


@every
def test_every_setting_with_an_effect_on_the_result_is_recorded(kind):
    names = {**DECLARED[kind], **COMMON}.keys() - NOT_RECORDED
    if kind is dn.MIPROv2:
        names = {IN_THE_FILE.get(name, name) for name in names} | {"concurrency"}
    if kind is dn.DistillHints:
        names = names - {"run"} | {"hints"}
    assert set(kind(right).described()) == names


async def refined():
    program = fitted(dn.DistillHints, one(World()))
    await program.batch([{"question": row["question"]} for row in TRAIN])


# ── repr, copies ──────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_repr_shows_the_settings_that_were_passed():
    assert repr(dn.GEPA(right)) == "GEPA(metric=right)"
    assert repr(dn.GEPA(right, seed=1, auto="light")) == "GEPA(metric=right, auto='light', seed=1)"
    assert repr(dn.GEPA(dn.metrics.exact_match())) == "GEPA(metric=exact_match)"
    assert repr(dn.DistillHints()) == "DistillHints()"
    run(refined())
    hints_of = dn.DistillHints(right, run=dn.last_run())
    assert repr(hints_of) == f"DistillHints(metric=right, run={dn.last_run().id!r})"
    assert copy.deepcopy(hints_of).described() == hints_of.described()
    assert "sk-secret" not in repr(dn.COPRO(right, prompt_lm=dn.LM("openai/m", api_key="sk-secret-0123456789abcdef")))


@every
def test_an_optimizer_can_be_copied_and_pickled(kind):
    optimizer = small(kind)
    for other in (copy.copy(optimizer), copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert repr(other) == repr(optimizer)
        assert other.described() == optimizer.described()


# ── custom strategies ─────────────────────────────────────────────────────────────────────────────────────────────────
class TryOne(dn.Optimizer):
    async def search(self, engine):
        await engine.evaluate(engine.start)


class Rounds(dn.Optimizer):
    """Its attributes with a type are its settings."""

    kind: typing.ClassVar[str] = "rounds"
    rounds: int = 3
    texts: list[str]
    _pool: dict[str, int]

    def __post_init__(self):
        self._pool = dict.fromkeys(self.texts, self.rounds)

    async def search(self, engine):
        await engine.evaluate(engine.start)


class ByHand(dn.Optimizer):
    kind = "by_hand"
    limit: int = 9  # no setting, since the class has an __init__

    def __init__(self, metric, texts, **common):
        super().__init__(metric, **common)
        self.texts = texts

    def described(self):
        return {"texts": self.texts}

    async def search(self, engine):
        await engine.evaluate(engine.start)


def test_a_strategy_without_a_constructor_takes_the_common_settings():
    assert list(inspect.signature(TryOne).parameters) == ["metric", *COMMON]
    assert TryOne(right, seed=4).seed == 4
    with pytest.raises(ConfigurationError, match="TryOne: patience must be a whole number of at least 1, got 0"):
        TryOne(right, patience=0)
    with pytest.raises(ConfigurationError, match="TryOne has no setting 'num_threads'. Did you mean 'concurrency'"):
        TryOne(right, num_threads=4)


def test_attributes_with_a_type_are_settings_of_a_strategy():
    assert list(inspect.signature(Rounds).parameters) == ["metric", "rounds", "texts", *COMMON]
    optimizer = Rounds(right, texts=["a"], rounds=2, seed=1)
    assert (optimizer.rounds, optimizer._pool, optimizer.seed) == (2, {"a": 2}, 1)
    assert repr(optimizer) == "Rounds(metric=right, rounds=2, texts=['a'], seed=1)"
    assert optimizer.described() == {"rounds": 2, "texts": ["a"], "seed": 1, "failure_score": 0.0, "prompt_lm": None}
    with pytest.raises(TypeError, match="missing a required argument: 'texts'"):
        Rounds(right)
    with pytest.raises(ConfigurationError, match="Rounds has no setting 'round'. Did you mean 'rounds'"):
        Rounds(right, texts=[], round=3)


def test_a_setting_of_a_strategy_must_be_equal_when_the_run_is_resumed():
    def main(*, again=None, **settings):
        async def work():
            optimizer, program = Rounds(right, **settings), one(World())
            handle = (
                optimizer.start(program, TRAIN, VAL) if again is None else optimizer.resume(again, program, TRAIN, VAL)
            )
            await handle
            flush_journals()
            return handle.path

        return run(work())

    path = main(texts=["a"])
    main(texts=["a"], rounds=3, again=path)
    with pytest.raises(ConfigurationError, match=r"rounds \(3 then, 4 now\)"):
        main(texts=["a"], rounds=4, again=path)
    with pytest.raises(ConfigurationError, match=r"texts \(\['a'\] then, \['b'\] now\)"):
        main(texts=["b"], again=path)


def test_a_constructor_by_hand_passes_on_the_common_settings():
    optimizer = ByHand(right, ["a"], seed=2)
    assert (optimizer.seed, optimizer.texts, optimizer.limit) == (2, ["a"], 9)
    assert list(inspect.signature(ByHand).parameters) == ["metric", "texts", "common"]
    with pytest.raises(ConfigurationError, match="ByHand has no setting 'limit'"):
        ByHand(right, ["a"], limit=3)
    with pytest.raises(ConfigurationError, match="ByHand: seed must be a whole number, got 'x'"):
        ByHand(right, ["a"], seed="x")

    class Inherits(ByHand):
        more: int = 1

    assert Inherits(right, ["b"]).texts == ["b"]

    class Mine(dn.GEPA):
        def __init__(self, metric, size, **settings):
            super().__init__(metric, **settings)
            self.size = size

    assert (Mine(right, 3, max_steps=2).max_steps, Mine(right, 3).recall) == (2, 30)
    with pytest.raises(ConfigurationError, match="Mine: max_steps must be"):
        Mine(right, 3, max_steps=0)


def test_common_settings_are_recorded_whatever_a_strategy_describes():
    handle = run(_run_of(ByHand(right, ["a"], seed=2)))
    with pytest.raises(ConfigurationError, match=r"seed \(2 then, 3 now\), texts \(\['a'\] then, \['b'\] now\)"):
        ByHand(right, ["b"], seed=3).resume(handle.path, one(World()), TRAIN, VAL)


async def _run_of(optimizer):
    handle = optimizer.start(one(World()), TRAIN, VAL)
    await handle
    flush_journals()
    return handle


def test_a_subclass_may_have_other_defaults():
    class Wide(dn.GEPA):
        in_flight: int = 4

    class Plain(dn.GEPA):
        in_flight = 4

    assert Wide(right).in_flight == Plain(right).in_flight == 4
    assert inspect.signature(Wide).parameters["in_flight"].default == 4
    assert Wide(right, in_flight=1).in_flight == Plain(right, in_flight=1).in_flight == 1


def test_settings_of_several_bases_come_together():
    class Timed(dn.Optimizer):
        limit: int = 3

    class Mine(Timed, dn.DistillHints):
        more: int = 1

    assert list(inspect.signature(Mine).parameters) == ["metric", "more", "limit", *DECLARED[dn.DistillHints], *COMMON]
    assert Mine(limit=4, level=0.9).described()["limit"] == 4
    assert Mine().metric is None


NOTEBOOK = """
import threading
import typing as t

import cloudpickle
import dspynb as dn

api_key = "sk-do-not-ship"
lock = threading.Lock()


class Sized(dn.Optimizer):
    size: PositiveInt = 3
    kinds: t.ClassVar[int] = 2

    async def search(self, engine): ...


sys.stdout.buffer.write(cloudpickle.dumps(Sized(lambda row, prediction: 1.0, size=4)))
"""
READER = """
import pickle, sys

strategy = pickle.load(sys.stdin.buffer)
print(strategy.size)
try:
    type(strategy)(lambda row, prediction: 1.0, size=0)
except Exception as error:
    print(error)
"""


def test_a_class_of_a_notebook_pickles_without_the_notebooks_variables():

    source = f"from __future__ import annotations\nimport sys\nfrom dspynb.options import PositiveInt\n{NOTEBOOK}"
    pickled = subprocess.run([sys.executable, "-c", source], capture_output=True, timeout=60, check=True).stdout
    assert b"sk-do-not-ship" not in pickled
    read = subprocess.run([sys.executable, "-c", READER], input=pickled, capture_output=True, timeout=60, check=True)
    assert read.stdout.decode().splitlines() == ["4", "Sized: size must be a whole number of at least 1, got 0"]


def test_a_class_variable_is_no_setting_whatever_typing_is_called():
    class Tagged(TryOne):
        label: typing.ClassVar[str] = "one"
        other: t.ClassVar[str] = "two"

    assert {"label", "other"}.isdisjoint(inspect.signature(Tagged).parameters)


@pytest.mark.parametrize(("args", "says"), [((), "missing a required argument: 'metric'"), ((right, 3), "too many")])
def test_arguments_that_do_not_fit_are_a_type_error_that_names_the_class(args, says):
    with pytest.raises(TypeError, match=f"^GEPA: {says}"):
        dn.GEPA(*args)


def test_a_whole_number_beyond_all_floats_is_refused_when_the_setting_is_a_number():
    with pytest.raises(ConfigurationError, match=r"^LM: rpm must be a number above 0, or None, got 1000"):
        dn.LM("openai/gpt-4.1-mini", rpm=10**400)
    with pytest.raises(ConfigurationError, match=r"^GEPA: perfect_score must be a finite number, got 1000"):
        dn.GEPA(right, perfect_score=10**400)


# ── classes with a constructor by hand ────────────────────────────────────────────────────────────────────────────────
@dataclass
class AsDataclass(dn.Optimizer):
    metric: Any
    width: int = 3
    options: list = field(default_factory=list)

    def __post_init__(self):
        super().__init__(self.metric, seed=7)

    async def search(self, engine):
        """Nothing."""


def test_an_optimizer_may_be_a_dataclass_that_calls_its_base():
    one, other = AsDataclass(right, 4), AsDataclass(metric=right, options=["a"])
    assert (one.width, one.options, one.seed, one.patience) == (4, [], 7, 5)
    assert (other.width, other.options) == (3, ["a"])
    assert one.options is not AsDataclass(right).options


class LightGEPA(dn.GEPA):
    def __init__(self, metric, **common):
        super().__init__(metric, auto="light", **common)


class SeededLightGEPA(LightGEPA):
    seed = 5


def test_a_constructor_by_hand_can_call_that_of_its_base_and_is_inherited():
    optimizer = SeededLightGEPA(right, patience=2)
    assert (optimizer.auto, optimizer.patience) == ("light", 2)
    assert list(inspect.signature(SeededLightGEPA).parameters) == ["metric", "common"]
    with pytest.raises(ConfigurationError, match="patience"):
        LightGEPA(right, patience=0)
