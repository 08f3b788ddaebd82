"""The contract of everything that can be configured: each setting is listed, documented and held to its bounds."""

from __future__ import annotations

import ast
import asyncio
import inspect
import itertools
import math
import re
from pathlib import Path

import pytest

import dspynb as dn
from dspynb.errors import ConfigurationError
from dspynb.evaluation.settings import EvaluateSettings
from dspynb.keywords import UNSET, Declaration
from dspynb.lm import request_settings
from dspynb.lm.request_settings import RequestSettings
from dspynb.options import Number, Whole, is_checked, metadata, requirement
from dspynb.scope import settings as scope_settings
from dspynb.scope.settings import Settings


def _declaration(configurable):
    owner = configurable.__init__ if inspect.isclass(configurable) else configurable
    declared = getattr(owner, "__declaration__", None)
    return declared if isinstance(declared, Declaration) else None


def _configurable():
    public = {name: getattr(dn, name) for name in dn.__all__}
    configurables = {
        name: configurable
        for name, configurable in public.items()
        if _declaration(configurable) is not None and not inspect.isabstract(configurable)
    }
    return {**configurables, "Module.batch": dn.Module.batch}


CONFIGURABLE = _configurable()
FIELDS = [
    (name, field) for name, configurable in CONFIGURABLE.items() for field in _declaration(configurable).fields.values()
]
CHECKED = [(name, field) for name, field in FIELDS if is_checked(field.annotation)]


def _outside(annotation):
    """The values next to the bounds of a type that it does not take, and some that no number is."""
    values = []
    for option in metadata(annotation):
        if isinstance(option, Whole | Number):
            values += [True, "1", math.nan]
        if isinstance(option, Whole):
            values += [1.5]
            values += [] if option.least is None else [option.least - 1]
            values += [] if option.most is None else [option.most + 1]
        if isinstance(option, Number):
            values += [] if option.above is None else [option.above]
            values += [] if option.below is None else [option.below]
            values += [] if option.least is None else [math.nextafter(option.least, -math.inf)]
            values += [] if option.most is None else [math.nextafter(option.most, math.inf)]
            values += [math.inf, -math.inf] if option.finite else []
    return values


def _bounds(annotation):
    """The values at the bounds of a type, which it takes."""
    values = []
    for option in metadata(annotation):
        if isinstance(option, Whole | Number):
            values += [bound for bound in (option.least, option.most) if bound is not None]
    return values


BOUNDED = [(name, field) for name, field in CHECKED if _outside(field.annotation)]


def _ids(pairs):
    return [f"{name}-{field.name}" for name, field in pairs]


def _call(name, **keywords):
    result = CONFIGURABLE[name](**keywords)
    if inspect.isawaitable(result):
        asyncio.run(result)


def test_every_configurable_has_a_declaration():
    optimizers = {"BootstrapFewShot", "BootstrapRandomSearch", "COPRO", "DistillHints", "GEPA", "MIPROv2", "SIMBA"}
    models = {"LM", "LocalLM", "Budget", "configure", "context", "DaskExecutor"}
    modules = {"Predict", "ChainOfThought", "MultiChainComparison", "ReAct", "ProgramOfThought", "Refine", "BestOfN"}
    evaluation = {"Evaluate", "evaluate", "compare", "grid", "score_table"}
    assert optimizers | models | modules | evaluation <= set(CONFIGURABLE)


@pytest.mark.parametrize("name", CONFIGURABLE)
def test_the_signature_names_every_argument_with_a_type(name):
    for parameter in inspect.signature(CONFIGURABLE[name]).parameters.values():
        assert parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL), parameter
        assert parameter.annotation is not parameter.empty or parameter.name == "self", parameter
        assert "Annotated" not in str(parameter.annotation), parameter


@pytest.mark.parametrize("name", CONFIGURABLE)
def test_the_docstring_speaks_of_every_setting(name):
    configurable = CONFIGURABLE[name]
    classes = configurable.__mro__ if inspect.isclass(configurable) else [dn.Evaluate]
    texts = [configurable.__doc__ or "", *(cls.__doc__ or "" for cls in classes), *_documented(configurable)]
    named = [field.name for field in _declaration(configurable).fields.values() if field.default is not UNSET]
    assert [setting for setting in named if not any(re.search(rf"\b{setting}\b", text) for text in texts)] == []


def _documented(configurable):
    """The docstring of Predict, for modules that hand keywords on to it."""
    return [dn.Predict.__doc__] if inspect.isclass(configurable) and issubclass(configurable, dn.Module) else []


@pytest.mark.parametrize(
    ("module", "settings"),
    [(request_settings, RequestSettings), (scope_settings, Settings)],
    ids=["request", "process"],
)
def test_every_entry_of_a_typed_dict_has_a_line_of_documentation(module, settings):
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    documented = set()
    for node in [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]:
        for entry, after in itertools.pairwise(node.body):
            if isinstance(entry, ast.AnnAssign) and isinstance(after, ast.Expr):
                documented.add(entry.target.id)
    assert set(settings.__annotations__) <= documented


@pytest.mark.parametrize(("name", "field"), BOUNDED, ids=_ids(BOUNDED))
def test_a_value_next_to_a_bound_is_one_error_that_names_argument_value_and_bounds(name, field):
    for value in _outside(field.annotation):
        with pytest.raises(ConfigurationError) as raised:
            _call(name, **{field.name: value})
        assert str(raised.value) == f"{name}: {field.name} must be {requirement(field.annotation)}, got {value!r}"


@pytest.mark.parametrize(("name", "field"), BOUNDED, ids=_ids(BOUNDED))
def test_a_value_at_a_bound_is_taken(name, field):
    check = _declaration(CONFIGURABLE[name]).checks[field.name]
    for value in _bounds(field.annotation):
        problems: list[str] = []
        assert check(value, problems) == value
        assert problems == []


DEFAULTS = [(name, field) for name, field in CHECKED if field.has_default and field.default is not UNSET]


@pytest.mark.parametrize(("name", "field"), DEFAULTS, ids=_ids(DEFAULTS))
def test_a_default_is_a_value_that_may_be_passed(name, field):
    problems: list[str] = []
    assert _declaration(CONFIGURABLE[name]).checks[field.name](field.default, problems) == field.default
    assert problems == []


@pytest.mark.parametrize("name", ["evaluate", "compare", "grid"])
def test_functions_that_evaluate_take_the_settings_of_evaluate(name):
    own = dict(inspect.signature(dn.Evaluate).parameters)
    shown = inspect.signature(CONFIGURABLE[name]).parameters
    settings = [parameter for parameter in own.values() if parameter.kind is parameter.KEYWORD_ONLY]
    assert [shown[parameter.name] for parameter in settings] == settings


def test_what_type_checkers_see_of_evaluate_is_what_it_takes():
    own = [field.parameter for field in _declaration(dn.Evaluate).fields.values()]
    written = {parameter.name: parameter.annotation for parameter in own if parameter.kind is parameter.KEYWORD_ONLY}
    assert written == {name: hint.__forward_arg__ for name, hint in EvaluateSettings.__annotations__.items()}


def test_settings_of_a_request_that_are_not_passed_stay_absent():
    assert dn.LM("openai/gpt-4.1-mini").settings == {}
    assert dn.Predict("question -> answer", top_p=None, max_tokens=5).settings == {"top_p": None, "max_tokens": 5}


def test_a_repr_shows_what_was_set():
    def short(row, prediction):
        return 1.0

    ask = dn.Predict("a -> b")
    shown = repr(ask)
    assert shown == "Predict(a: str -> b: str)"
    assert repr(dn.Evaluate(short, repeats=3, concurrency=2)) == "Evaluate(short, concurrency=2, repeats=3)"
    assert repr(dn.Refine(ask, short)) == f"Refine({shown}, short)"
    assert repr(dn.BestOfN(ask, short, n=5, width=5)) == f"BestOfN({shown}, short, n=5, width=5)"
    assert repr(dn.Refine(ask, short, hints="feedback")) == f"Refine({shown}, short, hints='feedback')"
