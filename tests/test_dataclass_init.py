"""A record that is made quickly is the frozen dataclass that it was."""

from __future__ import annotations

import copy
import inspect
import pickle
from dataclasses import FrozenInstanceError, dataclass, field, fields, replace

import pytest

from dspynb.dataclass_init import fast_init
from dspynb.events import EVENT_TYPES, PredictorCalled


@dataclass(frozen=True, slots=True)
class Plain:
    a: int
    b: str = "x"
    c: list = field(default_factory=list)
    d: int = field(default=3, kw_only=True)


@fast_init
@dataclass(frozen=True, slots=True)
class Quick:
    a: int
    b: str = "x"
    c: list = field(default_factory=list)
    d: int = field(default=3, kw_only=True)


def values(instance):
    return [getattr(instance, f.name) for f in fields(instance)]


@pytest.mark.parametrize("arguments", [((1,), {}), ((1, "y", [2]), {"d": 4}), ((), {"a": 1, "c": None})])
def test_fast_init_takes_the_arguments_that_the_dataclass_takes(arguments):
    args, named = arguments
    assert values(Quick(*args, **named)) == values(Plain(*args, **named))
    assert inspect.signature(Quick) == inspect.signature(Plain)


@pytest.mark.parametrize("arguments", [((), {}), ((1, "y", [], 4), {}), ((1,), {"e": 5})])
def test_fast_init_refuses_the_arguments_that_the_dataclass_refuses(arguments):
    args, named = arguments
    for kind in (Plain, Quick):
        with pytest.raises(TypeError):
            kind(*args, **named)


def test_an_instance_is_frozen():
    instance = Quick(1)
    with pytest.raises(FrozenInstanceError):
        instance.a = 2
    with pytest.raises(FrozenInstanceError):
        del instance.a
    assert Quick(1).c is not instance.c


def test_an_instance_can_be_replaced_copied_and_pickled():
    instance = Quick(1, "y")
    assert replace(instance, a=2) == Quick(2, "y")
    assert copy.deepcopy(instance) == pickle.loads(pickle.dumps(instance)) == instance


def test_an_instance_has_its_own_class_and_a_subclass_may_have_further_attributes():
    class Further(Quick):
        pass

    further = Further(1, "y", d=5)
    object.__setattr__(further, "more", 6)
    assert values(further) == [1, "y", [], 5]
    assert vars(further) == {"more": 6}
    assert type(further) is Further
    assert type(Quick(1)) is Quick


def test_an_instance_of_a_derived_dataclass_has_the_fields_of_both():
    @fast_init
    @dataclass(frozen=True, slots=True)
    class Derived(Quick):
        e: int = 9

    derived = Derived(1, e=8)
    assert (type(derived), values(derived)) == (Derived, [1, "x", [], 3, 8])
    with pytest.raises(FrozenInstanceError):
        derived.e = 2


def test_every_event_is_frozen():
    for kind in EVENT_TYPES.values():
        assert kind.__dataclass_params__.frozen
    call = PredictorCalled(span=1, predictor="self", uid="u", inputs={}, messages=())
    with pytest.raises(FrozenInstanceError):
        call.reply = "changed"
