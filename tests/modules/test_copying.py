"""What cannot be copied is shared by a copy of a program; predictors, and what can be copied, never are."""

from __future__ import annotations

import asyncio
import collections
import copy
import dataclasses
import socket
import sqlite3
import sys
import threading
import types
from collections.abc import Mapping, MutableMapping
from typing import NamedTuple

import pytest

import dspynb as dn


class Refuses:
    """Anything with a copy protocol that fails."""

    def __deepcopy__(self, memo):
        raise RuntimeError("I cannot be copied")


class Client:
    """A client that holds a connection, as httpx's does."""

    def __init__(self):
        self.pool, self.options = threading.Lock(), {"retries": 3}


UNCOPYABLE = {
    "lock": threading.Lock,
    "condition": threading.Condition,
    "generator": lambda: (n for n in range(3)),
    "module": lambda: sys,
    "connection": lambda: sqlite3.connect(":memory:"),
    "socket": socket.socket,
    "file": lambda: open(__file__),  # noqa: PTH123, SIM115
    "client": Client,
    "refuses": Refuses,
    "memoryview": lambda: memoryview(b"abc"),
    "coroutine function's frame": sys._getframe,
    "thread local": threading.local,
}


@dataclasses.dataclass(frozen=True)
class Parts:
    resource: object
    predict: dn.Predict


class Program(dn.Module):
    def __init__(self, resource):
        self.client = resource
        self.steps = [dn.Predict("question -> plan"), resource]
        self.by = {"answer": dn.Predict("plan -> answer"), "resource": resource}
        self.both = (dn.Predict("plan -> note"), resource)
        self.parts = Parts(resource, dn.Predict("plan -> check"))
        self.limits = {"words": [1, 2]}

    async def forward(self, question):
        plan = await self.steps[0](question=question)
        return await self.by["answer"](plan=plan.plan)


@pytest.fixture(params=UNCOPYABLE)
def resource(request):
    value = UNCOPYABLE[request.param]()
    yield value
    if hasattr(value, "close"):
        value.close()


def predictors(program):
    return [predictor for _, predictor in program.named_predictors()]


def test_a_deep_copy_shares_the_resource_and_nothing_else(resource):
    program = Program(resource)
    new = copy.deepcopy(program)
    assert new.client is resource
    assert new.steps[1] is new.by["resource"] is new.both[1] is new.parts.resource is resource
    assert [path for path, _ in new.named_predictors()] == [path for path, _ in program.named_predictors()]
    assert not {id(p) for p in predictors(new)} & {id(p) for p in predictors(program)}
    assert not {p.uid for p in predictors(new)} & {p.uid for p in predictors(program)}
    assert new.limits == program.limits
    assert new.limits["words"] is not program.limits["words"]


def test_with_state_leaves_the_program_as_it_is(resource):
    program, learned = Program(resource), Program(None)
    for predictor in predictors(learned):
        predictor.instruction = "Be brief."
    new = program.with_state(learned.dump_state())
    assert {p.instruction for p in predictors(new)} == {"Be brief."}
    assert {p.instruction for p in predictors(program)} == {None}
    assert new.client is resource


def test_an_optimizer_takes_a_program_with_a_resource(resource):
    lm = dn.FunctionLM(lambda request: "plan: add\nanswer: 4")
    program = Program(resource)
    rows = [{"question": "2+2?", "answer": "4"}, {"question": "1+3?", "answer": "4"}]
    with dn.context(lm=lm):
        better = dn.BootstrapFewShot(dn.metrics.exact_match()).compile_sync(program, rows)
    assert better is not program
    assert better.client is resource
    assert better.by["answer"].demos
    assert not program.by["answer"].demos


@pytest.mark.parametrize("wrap", [lambda p: dn.Refine(p, lambda row, prediction: 1.0), lambda p: p.map(dict)])
def test_a_resource_inside_a_library_module_is_shared_too(resource, wrap):
    program = Program(resource)
    new = copy.deepcopy(wrap(program))
    inner = next(module for module in vars(new).values() if isinstance(module, Program))
    assert inner is not program
    assert inner.client is resource


def test_a_reward_or_a_tool_with_a_resource_is_shared():
    class Reward:
        def __init__(self):
            self.lock = threading.Lock()

        def __call__(self, row, prediction):
            return 1.0

    class Helper(dn.Module):
        def __init__(self):
            self.lock, self.predict = threading.Lock(), dn.Predict("text -> summary")

        async def forward(self, text):
            return await self.predict(text=text)

    reward, helper = Reward(), Helper()
    refine = copy.deepcopy(dn.Refine(dn.Predict("question -> answer"), reward))
    assert refine.plan.reward.fn is reward
    agent = dn.ReAct("question -> answer", tools=[helper])
    new = copy.deepcopy(agent)
    assert not {p.uid for p in predictors(new)} & {p.uid for p in predictors(agent)}


def test_parts_that_are_shared_inside_a_program_are_shared_inside_its_copy():
    class Shares(dn.Module):
        def __init__(self):
            self.first = dn.Predict("question -> answer")
            self.again, self.numbers = [self.first, threading.Lock()], [1]
            self.same = {"numbers": self.numbers, "lock": self.again[1]}
            self.again.append(self.again)
            self.owner = self

    new = copy.deepcopy(Shares())
    assert new.again[0] is new.first
    assert new.again[2] is new.again
    assert new.same["numbers"] is new.numbers
    assert new.owner is new


def test_slots_and_a_copy_protocol_of_the_users_own_are_honoured():
    class Slotted(dn.Module):
        __slots__ = ("lock", "predict")

        def __init__(self):
            self.lock, self.predict = threading.Lock(), dn.Predict("question -> answer")

    class Without(dn.Module):
        def __init__(self):
            self.lock, self.predict = threading.Lock(), dn.Predict("question -> answer")

        def __getstate__(self):
            return {"predict": self.predict}

        def __setstate__(self, state):
            self.predict, self.lock = state["predict"], "a new one"

    slotted = Slotted()
    new = copy.deepcopy(slotted)
    assert new.lock is slotted.lock
    assert new.predict is not slotted.predict
    assert copy.deepcopy(Without()).lock == "a new one"


def test_models_are_shared_and_keep_their_keys():
    lm = dn.LM("openai/some-model", api_key="sk-a-very-secret-key-0123456789")

    class Holder:
        def __init__(self):
            self.lm = lm

    class Judged(dn.Module):
        def __init__(self):
            self.lm, self.script, self.holder = lm, dn.ScriptedLM(["answer: 4"]), Holder()
            self.predict = dn.Predict("question -> answer", lm=lm)

    program = Judged()
    new = copy.deepcopy(program)
    assert new.lm is new.predict.lm is new.holder.lm is lm
    assert new.script is program.script


def test_an_asyncio_primitive_and_a_running_task_do_not_stop_an_optimizer():
    class Waits(dn.Module):
        def __init__(self):
            self.predict, self.slots = dn.Predict("question -> answer"), asyncio.Semaphore(2)
            self.task = asyncio.get_running_loop().create_future()

        async def forward(self, question):
            async with self.slots:
                return await self.predict(question=question)

    async def main():
        optimizer = dn.BootstrapFewShot(dn.metrics.exact_match())
        with dn.context(lm=dn.FunctionLM(lambda request: "answer: 4")):
            return await optimizer.compile(Waits(), [{"question": "2+2?", "answer": "4"}])

    assert dn.run_sync(main).predict.demos


class Named(NamedTuple):
    predict: dn.Predict
    resource: object


class Table(Mapping):
    """A mapping with a place of its own for its items."""

    def __init__(self, **items):
        self.items_by_name = items

    def __getitem__(self, name):
        return self.items_by_name[name]

    def __iter__(self):
        return iter(self.items_by_name)

    def __len__(self):
        return len(self.items_by_name)


class Settable(Table, MutableMapping):
    def __setitem__(self, name, value):
        self.items_by_name[name] = value

    def __delitem__(self, name):
        del self.items_by_name[name]


class Listed(list):
    pass


class Frozen(dict):
    def __setitem__(self, name, value):
        raise TypeError("a frozen dict")


@dataclasses.dataclass
class Uncopied:
    predict: dn.Predict
    resource: object

    def __copy__(self):
        raise TypeError("not to be copied")


CONTAINERS = {
    "named tuple": Named,
    "view of a dict": lambda p, r: types.MappingProxyType({"predict": p, "resource": r}),
    "mapping": lambda p, r: Table(predict=p, resource=r),
    "mutable mapping": lambda p, r: Settable(predict=p, resource=r),
    "chain map": lambda p, r: collections.ChainMap({"resource": r}, {"predict": p}),
    "user dict": lambda p, r: collections.UserDict(predict=p, resource=r),
    "ordered dict": lambda p, r: collections.OrderedDict(predict=p, resource=r),
    "default dict": lambda p, r: collections.defaultdict(list, predict=[p, r]),
    "list of a class": lambda p, r: Listed([p, r]),
    "frozen dict": lambda p, r: Frozen(predict=p, resource=r),
    "dataclass that refuses copies": Uncopied,
    "nested": lambda p, r: {"a": [({"b": Named(p, r)}, r)]},
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_no_container_shares_its_predictors_because_of_a_resource_in_it(kind, resource):
    class Holds(dn.Module):
        def __init__(self):
            self.held = CONTAINERS[kind](dn.Predict("question -> answer"), resource)

    program = Holds()
    new = copy.deepcopy(program)
    assert type(new.held) is type(program.held)
    assert [path for path, _ in new.named_predictors()] == [path for path, _ in program.named_predictors()]
    assert len(predictors(new)) == 1
    for predictor in predictors(new):
        predictor.instruction = "Be brief."
    loaded = program.with_state(new.dump_state())
    assert [p.instruction for p in predictors(loaded)] == ["Be brief."]
    assert [p.instruction for p in predictors(program)] == [None]


@pytest.mark.parametrize("kind", [collections.deque, set, frozenset])
def test_predictors_in_containers_without_paths_are_copied_too(kind):
    class Holds(dn.Module):
        def __init__(self):
            self.held = kind([dn.Predict("question -> answer"), threading.Lock()])

    program = Holds()
    shared = {id(item) for item in program.held} & {id(item) for item in copy.deepcopy(program).held}
    assert len(shared) == 1  # the lock


def test_a_view_of_a_dict_shows_the_dict_of_the_copy():
    class Views(dn.Module):
        def __init__(self):
            self.by = {"lock": threading.Lock()}
            self.view = types.MappingProxyType(self.by)

    new = copy.deepcopy(Views())
    new.by["more"] = 1
    assert new.view["more"] == 1


def test_the_arguments_and_the_protocol_of_a_class_are_honoured():
    class Made(dn.Module):
        def __new__(cls, size):
            new = super().__new__(cls)
            new.size = size
            return new

        def __init__(self, size):
            self.lock, self.predict = threading.Lock(), dn.Predict("question -> answer")

    class Named(Made):
        def __getnewargs__(self):
            return (self.size,)

    class Reduced(Made):
        def __reduce__(self):
            return Reduced, (self.size + 1,)

    assert [copy.deepcopy(kind(3)).size for kind in (Made, Named, Reduced)] == [3, 3, 4]
    value = Made(3)
    assert copy.deepcopy(value).lock is value.lock
    assert copy.deepcopy(value).predict is not value.predict


def test_a_copy_takes_one_step_for_each_part_also_where_resources_are_nested():
    class Counted:
        copies = 0

        def __deepcopy__(self, memo):
            Counted.copies += 1
            return self

    class Nested(dn.Module):
        def __init__(self, inner):
            self.steps = [inner, threading.Lock()]

    program = Counted()
    for _ in range(20):
        program = Nested(program)
    copy.deepcopy(program)
    assert Counted.copies == 1


def test_a_tuple_and_a_list_that_contain_each_other_are_copied():
    class Rings(dn.Module):
        def __init__(self):
            self.ring = ([dn.Predict("question -> answer"), threading.Lock()],)
            self.ring[0].append(self.ring)

    new = copy.deepcopy(Rings())
    assert new.ring[0][2] is new.ring


def test_a_list_that_is_nested_deeply_is_copied():
    class Deep(dn.Module):
        def __init__(self):
            self.nested = ["bottom"]
            for _ in range(350):
                self.nested = [self.nested]

    program = Deep()
    new, depth = copy.deepcopy(program).nested, 0
    assert new is not program.nested
    while new[0] != "bottom":
        new, depth = new[0], depth + 1
    assert depth == 350
