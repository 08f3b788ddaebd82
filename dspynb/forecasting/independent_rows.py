"""Possible costs of a run whose rows do not depend on each other: a batch or an evaluation."""

from __future__ import annotations

import random
from collections.abc import Sequence

from dspynb.forecasting.cost_model import CostModel, Sample
from dspynb.forecasting.forecast import Totals

__all__ = ["courses_of_rows"]

_COURSES = 1000


def courses_of_rows(model: CostModel, samples: Sequence[Sample], count: int, width: int) -> list[Totals]:
    """Possible courses of a run of ``count`` independent rollouts, of which ``samples`` have been run."""
    rng = random.Random(f"{count} rollouts")  # noqa: S311  # keeps no secret
    done = model.totals[: len(samples)]
    courses = []
    for _ in range(_COURSES):
        rest = model.draw_rest(count - len(done), rng, model.draw_factors(rng))
        usd = rest.usd
        if usd is not None:
            usd += sum(total.usd or 0.0 for total in done)
        work = rest.seconds + sum(total.seconds for total in done)
        seconds = work / min(width, count) + (model.mean.seconds if count > width else 0.0)
        calls = rest.calls + sum(total.calls for total in done)
        tokens = rest.tokens + sum(total.tokens for total in done)
        courses.append(Totals(count, calls, tokens, usd, seconds, count))
    return courses
