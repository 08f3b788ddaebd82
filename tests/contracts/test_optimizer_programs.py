"""Programs with any attributes, through every optimizer: predictors are copied, what cannot be copied is shared."""

from __future__ import annotations

import asyncio
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dspynb as dn
from tests.modules.test_copying import UNCOPYABLE
from tests.optimizers.worlds import SMALL, TRAIN, VAL, World, fitted, small


class Slotted:
    """An object with slots that holds another value."""

    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value


def nested(values):
    """Containers and objects around other values."""
    return st.one_of(
        st.lists(values, min_size=1, max_size=3),
        st.dictionaries(st.text(max_size=3), values, min_size=1, max_size=3),
        st.tuples(values, values),
        values.map(Slotted),
    )


RESOURCES = [make() for make in UNCOPYABLE.values()]
resources = st.sampled_from(RESOURCES)
attributes = st.lists(st.recursive(resources, nested, max_leaves=4), min_size=1, max_size=4)


class AnyAttributes(dn.Module):
    """A program with predictors beside and between values that cannot be copied."""

    def __init__(self, world, values):
        self.lock = threading.Lock()
        for number, value in enumerate(values):
            setattr(self, f"value{number}", value)
        self.parts = [values[0], dn.Predict("question -> answer", lm=world.lm), {"last": values[-1]}]

    async def forward(self, question):
        with self.lock:
            pass
        return await self.parts[1](question=question)


@pytest.mark.parametrize("kind", SMALL, ids=lambda kind: kind.__name__)
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(values=attributes)
def test_a_program_with_any_attributes_is_optimized(kind, values):
    async def main():
        program = fitted(kind, AnyAttributes(World(), values))
        uids = {predictor.uid for _, predictor in program.named_predictors()}
        better = await small(kind).compile(program, TRAIN, VAL)
        assert [path for path, _ in better.named_predictors()] == [path for path, _ in program.named_predictors()]
        assert not uids & {predictor.uid for _, predictor in better.named_predictors()}
        inside = getattr(better, "module", better)
        assert inside.lock is getattr(program, "module", program).lock
        assert (await better(question="3")).answer

    asyncio.run(main())
