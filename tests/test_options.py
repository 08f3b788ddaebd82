"""Settings declared once: a signature gives checks, messages, what Shift+Tab shows and what run files hold."""

from __future__ import annotations

import asyncio
import copy
import decimal
import inspect
import math
import pickle
import sys
from typing import Annotated, Any, Literal, TypedDict, Unpack

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dspynb as dn
from dspynb.errors import ConfigurationError
from dspynb.keywords import (
    absent_settings,
    configurable,
    recorded_fields,
    recorded_settings,
    settings_of,
    settings_repr,
)
from dspynb.options import (
    NOT_RECORDED,
    Absent,
    Bool,
    Check,
    Concurrency,
    Float,
    FloatOrInf,
    Instance,
    Int,
    NonNegativeInt,
    Number,
    PositiveFloat,
    PositiveInt,
    Whole,
    requirement,
)


def _short(value):
    if len(value) > 3:
        raise ConfigurationError(f"label must be short, got {len(value)} letters")
    return value.upper()


class Common(TypedDict, total=False):
    seed: Int
    concurrency: Concurrency


class Base:
    @configurable()
    def __init__(self, metric: Any, *, seed: Int = 0, concurrency: Concurrency = None) -> None:
        self.metric, self.seed, self.concurrency = metric, seed, concurrency


class Tuner(Base):
    @configurable(passes_to=Base.__init__, renamed={"N": "n"})
    def __init__(
        self,
        metric: Any,
        n: PositiveInt = 3,
        *,
        threshold: FloatOrInf | None = 1.0,
        auto: Literal["light", "heavy"] = "light",
        racing: Annotated[Bool, Absent(False)] = True,
        label: Annotated[str, Check(_short, "a short text")] = "",
        budget: Annotated[dn.Budget, Instance("a dn.Budget"), NOT_RECORDED] | None = None,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(metric, **common)
        self.n, self.threshold, self.auto = n, threshold, auto
        self.racing, self.label, self.budget = racing, label, budget


def test_the_signature_lists_every_keyword_with_its_type_and_default():
    signature = inspect.signature(Tuner)
    assert list(signature.parameters) == [
        "metric", "n", "threshold", "auto", "racing", "label", "budget", "seed", "concurrency",
    ]  # fmt: skip
    assert signature.parameters["seed"].default == 0
    assert "n: 'int' = 3" in str(signature)
    assert "concurrency: 'int | None' = None" in str(signature)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n": 0}, "Tuner: n must be a whole number of at least 1, got 0"),
        ({"n": True}, "Tuner: n must be a whole number of at least 1, got True"),
        ({"n": "3"}, "Tuner: n must be a whole number of at least 1, got '3'"),
        ({"n": 3.0}, "Tuner: n must be a whole number of at least 1, got 3.0"),
        ({"threshold": math.nan}, "Tuner: threshold must be a number, or None, got nan"),
        ({"threshold": "1"}, "Tuner: threshold must be a number, or None, got '1'"),
        ({"auto": "hevy"}, "Tuner: auto must be one of light, heavy, got 'hevy'. Did you mean 'heavy'?"),
        ({"auto": []}, "Tuner: auto must be one of light, heavy, got []"),
        ({"racing": 1}, "Tuner: racing must be True or False, got 1"),
        ({"label": "long label"}, "Tuner: label must be short, got 10 letters"),
        ({"budget": 3}, "Tuner: budget must be a dn.Budget, or None, got 3"),
        ({"seed": 0.5}, "Tuner: seed must be a whole number, got 0.5"),
        ({"concurrency": 0}, "Tuner: concurrency must be a whole number of at least 1, or None, got 0"),
        (
            {"n": 0, "seed": None, "auto": 1},
            "Tuner: n must be a whole number of at least 1, got 0; seed must be a whole number, got None; "
            "auto must be one of light, heavy, got 1",
        ),
        (
            {"N": 3, "auto": "none"},
            "Tuner has no setting 'N'. Did you mean 'n'? Tuner: auto must be one of light, heavy, got 'none'",
        ),
    ],
)
def test_all_that_is_wrong_is_one_error_that_names_argument_value_and_bounds(settings, message):
    with pytest.raises(ConfigurationError) as raised:
        Tuner(len, **settings)
    assert str(raised.value) == message


def test_a_positional_value_is_checked_as_one_by_keyword_is():
    with pytest.raises(ConfigurationError, match="n must be a whole number of at least 1, got -1"):
        Tuner(len, -1)
    assert Tuner(len, 2).n == 2


def test_values_are_used_as_they_are_passed():
    tuner = Tuner(len, 7, threshold=1, label="abc", budget=dn.Budget(calls=1), seed=-3)
    assert (tuner.n, tuner.threshold, tuner.label, tuner.seed) == (7, 1, "ABC", -3)
    assert type(tuner.threshold) is int
    assert Tuner(len, threshold=math.inf).threshold == math.inf


@pytest.mark.parametrize("value", [dn.Score(0.5), np.float32(0.5), np.float64(0.5), decimal.Decimal("0.5")])
def test_scores_and_numbers_of_numpy_are_numbers(value):
    assert Tuner(len, threshold=value).threshold == 0.5
    assert isinstance(Tuner(len, threshold=value).threshold, float)


def test_a_missing_argument_stays_a_type_error():
    with pytest.raises(TypeError, match="missing"):
        Tuner()


def test_a_subclass_is_named_and_its_own_parameters_are_known():
    class Mine(Base):
        def __init__(self, metric, *, depth=1, **common):
            super().__init__(metric, **common)

    with pytest.raises(ConfigurationError, match="Mine has no setting 'dept'. Did you mean 'depth'"):
        Mine(len, dept=2)
    with pytest.raises(ConfigurationError, match="^Mine: seed must be a whole number, got 1.5"):
        Mine(len, depth=3, seed=1.5)


def test_fields_say_what_a_run_file_records_and_what_older_ones_count_as():
    assert recorded_fields(Tuner) == ["seed", "n", "threshold", "auto", "racing", "label"]
    assert recorded_settings(Tuner(len, 4))["n"] == 4
    assert absent_settings(Tuner)["racing"] is False
    assert absent_settings(Tuner)["n"] == 3
    assert settings_of(Tuner)["n"].annotation == Annotated[int, Whole(1)]


def test_the_repr_shows_settings_that_differ_from_their_defaults():
    assert settings_repr(Tuner(len), "len") == "Tuner(len)"
    assert settings_repr(Tuner(len, 5, seed=2, racing=True, auto="heavy")) == "Tuner(seed=2, n=5, auto='heavy')"


def test_objects_copy_and_pickle_as_before():
    tuner = Tuner(len, 5, seed=2)
    for other in (copy.copy(tuner), copy.deepcopy(tuner), pickle.loads(pickle.dumps(tuner))):
        assert vars(other) == vars(tuner)


def test_coroutine_functions_stay_coroutine_functions():
    @configurable()
    async def work(rows: Any, *, repeats: PositiveInt = 1) -> int:
        return repeats

    is_async = asyncio.iscoroutinefunction if sys.version_info < (3, 12) else inspect.iscoroutinefunction
    assert is_async(work)
    assert asyncio.run(work([], repeats=2)) == 2
    with pytest.raises(ConfigurationError, match=r"^work: repeats must be a whole number of at least 1, got 0"):
        asyncio.run(work([], repeats=0))


def test_keywords_that_are_truly_open_are_passed_on():
    @configurable()
    def call(n: PositiveInt = 1, **inputs: Any) -> dict[str, Any]:
        return inputs

    assert call(n=2, question="2+2?") == {"question": "2+2?"}
    with pytest.raises(ConfigurationError, match="n must be"):
        call(n=0, question="2+2?")


def test_keywords_of_a_typed_dict_have_no_default_and_stay_absent():
    @configurable(passes_to=Common)
    def call(**settings: Unpack[Common]) -> Common:
        return settings

    assert call(seed=1) == {"seed": 1}
    assert str(inspect.signature(call)).startswith("(*, seed: 'int' = <unset>")
    with pytest.raises(ConfigurationError, match="call: seed must be a whole number, got 'x'"):
        call(seed="x")
    with pytest.raises(ConfigurationError, match="call has no setting 'sed'. Did you mean 'seed'"):
        call(sed=1)


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (PositiveInt, "a whole number of at least 1"),
        (NonNegativeInt | None, "a whole number of at least 0, or None"),
        (PositiveFloat, "a number above 0"),
        (Annotated[float, Number(0, 1)], "a number from 0 to 1"),
        (Annotated[int, Whole(most=3)], "a whole number of at most 3"),
        (Float, "a finite number"),
        (Bool, "True or False"),
    ],
)
def test_bounds_are_written_in_plain_words(annotation, message):
    assert requirement(annotation) == message


SCALARS = (
    st.booleans() | st.integers() | st.floats() | st.text() | st.none() | st.binary() | st.lists(st.integers())
    | st.floats(width=32).map(np.float32) | st.integers(-9, 9).map(np.int64) | st.booleans().map(np.bool_)
)  # fmt: skip


@configurable()
def scalars(whole: PositiveInt = 1, number: Float = 1.0, above: PositiveFloat = 1.0, flag: Bool = True) -> Any:
    return whole, number, above, flag


@given(value=SCALARS, name=st.sampled_from(["whole", "number", "above", "flag"]))
def test_a_scalar_is_used_or_refused_by_name(value, name):
    numeric = isinstance(value, int | float | np.floating | np.integer) and not isinstance(value, bool)
    finite = numeric and math.isfinite(value)
    allowed = {
        "whole": isinstance(value, int) and not isinstance(value, bool) and value >= 1,
        "number": finite,
        "above": finite and value > 0,
        "flag": isinstance(value, bool),
    }[name]
    if allowed:
        assert value in scalars(**{name: value})
    else:
        with pytest.raises(ConfigurationError, match=rf"^scalars: {name} must be .*, got "):
            scalars(**{name: value})
