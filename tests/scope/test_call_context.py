"""The call context: typed fields that blocks replace, and how each of them enters a snapshot."""

import pickle
from dataclasses import dataclass, fields, replace

import pytest

import dspynb as dn
from dspynb.errors import ScopeError
from dspynb.pricing.price_list import as_price_list
from dspynb.scope import CallContext, Layer, RolloutId, Sampling, Settings, current_scope, setting
from dspynb.scope.call_context import UNSET, Place, as_snapshot, snapshot_rule
from dspynb.scope.settings import SettingArguments

WARM = Sampling(RolloutId(7), {"temperature": 0.5})


class Link:
    """An interceptor of which another one stands in another process."""

    def __init__(self, place=Place.RESUME_LOG, there=None):
        self.place, self._there = place, there

    def for_snapshot(self):
        return self._there


class There(Link):
    def __eq__(self, other):
        return type(other) is There

    __hash__ = None


OTHER_VALUES = {
    "lm": ("openai/another", "openai/another"),
    "sampling": (WARM, WARM),
    "outside_attempt": (WARM, WARM),
    "retries": (False, False),
    "interceptors": ((Link(there=There()), Link(Place.CACHE)), (There(),)),
    "learned_profiles": ({"key": {"refused": ["temperature"]}}, {"key": {"refused": ["temperature"]}}),
    "role": ("judge", "judge"),
}
"""By field of the context: a value that is not the default, and what it is in another process."""


def test_every_field_of_the_context_is_tried_in_a_snapshot():
    assert {declared.name for declared in fields(CallContext)} == OTHER_VALUES.keys()


@pytest.mark.parametrize("name", OTHER_VALUES)
def test_a_snapshot_carries_each_field_of_the_context(name):
    here, there = OTHER_VALUES[name]
    with Layer(None, context=replace(CallContext(), **{name: here})):
        sent = pickle.dumps(dn.snapshot())
    with pickle.loads(sent).enter():
        assert getattr(current_scope().context, name) == there


@pytest.mark.parametrize("kind", [Settings, CallContext])
def test_every_field_declares_how_it_enters_a_snapshot(kind):
    assert all(callable(snapshot_rule(declared)) for declared in fields(kind))


def test_a_field_that_declares_nothing_is_refused_when_a_snapshot_reads_it():
    @dataclass
    class Undeclared:
        value: int = 1

    with pytest.raises(KeyError, match="snapshot"):
        as_snapshot(Undeclared())


SETTINGS = {
    "lm": "openai/another",
    "adapter": "json",
    "cache": True,
    "concurrency": 3,
    "view": "text",
    "runs_dir": None,
    "history": 5,
    "track": "otel",
    "prices": as_price_list({"openai/my-model": {"input": 1, "output": 2}}),
}


@pytest.mark.parametrize("name", [declared.name for declared in fields(Settings)])
def test_a_snapshot_carries_each_setting(name):
    with dn.context(**{name: SETTINGS[name]}):
        sent = pickle.dumps(dn.snapshot())
    with pickle.loads(sent).enter():
        assert setting(name) == SETTINGS[name]


def test_a_setting_that_no_block_has_set_is_the_process_wide_one_at_any_time():
    with dn.context(history=5):
        assert current_scope().settings.concurrency is UNSET
        dn.configure(concurrency=9)
        assert (setting("concurrency"), setting("history")) == (9, 5)


def test_what_is_not_set_is_left_to_the_other_process():
    snapshot = dn.snapshot()
    assert snapshot.context == {}
    assert {"lm", "adapter"}.isdisjoint(snapshot.settings)


def test_an_interceptor_that_must_stay_refuses_a_snapshot():
    class Staying(Link):
        def for_snapshot(self):
            raise ScopeError("it stays")

    with (
        Layer(None, context=CallContext().with_interceptor(Staying())),
        pytest.raises(ScopeError, match="it stays"),
    ):
        dn.snapshot()


def test_interceptors_stand_in_the_order_of_their_places_one_of_each():
    replay, log, other = Link(Place.REPLAY), Link(Place.RESUME_LOG), Link(Place.RESUME_LOG)
    context = CallContext().with_interceptor(log).with_interceptor(replay)
    assert context.interceptors == (replay, log)
    assert context.with_interceptor(other).interceptors == (replay, other)
    assert context.interceptor(Place.RESUME_LOG) is log
    assert context.interceptor(Place.CACHE) is None


# ── rollouts ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_numbers_of_nested_rollouts_are_those_of_every_release():
    base = 1 << 20
    outer = RolloutId(2)
    assert RolloutId().child(0).number == base
    assert outer.child(4).number == 3 * base + 4
    assert outer.child(4).child(1).number == (3 * base + 5) * base + 1


def test_nested_rollouts_are_all_different_and_none_is_an_outer_one():
    outer = [RolloutId(n) for n in range(4)]
    inner = [rollout.child(n) for rollout in outer for n in range(4)]
    innermost = [rollout.child(n) for rollout in inner for n in range(4)]
    numbers = [rollout.number for rollout in (*outer, *inner, *innermost)]
    assert len(set(numbers)) == len(numbers)


def rollouts_of(program):
    seen = []

    def answer(request):
        seen.append(request.rollout)
        return "answer: no"

    with dn.context(lm=dn.FunctionLM(answer)):
        program(dn.Predict("question -> answer")).run_sync(question="?")
    return seen


def never(row, prediction):
    return 0.0


def test_attempts_number_their_calls_from_zero_and_searches_inside_them_below():
    base = 1 << 20
    assert rollouts_of(lambda ask: dn.BestOfN(ask, never, n=3)) == [0, 1, 2]
    nested = rollouts_of(lambda ask: dn.BestOfN(dn.BestOfN(ask, never, n=2), never, n=2))
    assert nested == [base, base + 1, 2 * base, 2 * base + 1]


def test_a_reward_is_sampled_as_outside_the_attempt():
    seen = []

    async def judging(row, prediction):
        seen.append(current_scope().context.sampling)
        return 0.0

    with Layer(None, context=CallContext(sampling=WARM)), dn.context(lm=dn.FunctionLM(lambda request: "answer: 4")):
        dn.BestOfN(dn.Predict("question -> answer"), judging, n=2, temperature=1.0).run_sync(question="?")
    assert seen == [WARM, WARM]


def test_the_data_of_a_context_has_only_what_is_not_the_default():
    assert as_snapshot(CallContext()) == {}
    assert as_snapshot(CallContext(retries=False)) == {"retries": False}


def test_configure_and_context_take_exactly_the_settings_that_a_scope_has():
    arguments = set(SettingArguments.__annotations__)
    assert arguments == {declared.name for declared in fields(Settings)}
