"""An optimizer's run as pandas tables: its candidates, the matrix of scores, how the best came about, the proposals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dspynb.data import Usage
from dspynb.errors import shorten
from dspynb.events import CandidateProposed, RolloutEnded
from dspynb.json_checks import is_count
from dspynb.running.record import Fold
from dspynb.running.tables.diffs import diff_words
from dspynb.running.tables.frames import encodable, with_costs
from dspynb.running.tables.hints import hints_text
from dspynb.running.tables.scores import failure_score
from dspynb.running.tables.statistics import Interval, PairedDifference, mean_interval, paired_difference

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "candidate_scores",
    "candidates_frame",
    "demos_of",
    "full_scores",
    "history_frame",
    "instructions_of",
    "matrix_frame",
    "proposals_frame",
    "scores_of",
    "summary_of",
    "winner_of",
]

_COLUMNS = (
    "id", "parents", "origin", "step", "score", "low", "high", "n", "full", "best", "instructions", "diff", "demos",
    "calls", "tokens", "usd",
)  # fmt: skip
_MOST_ROWS = 10_000_000  # a file may say anything, and a matrix has a column for each
_HISTORY = (
    "step", "candidate", "split", "score", "full", "best", "best_score", "calls", "metric_calls", "tokens", "usd",
    "seconds",
)  # fmt: skip


def candidates_frame(fold: Fold) -> pd.DataFrame:
    """One row a candidate, in the order in which they were made: id, parents, origin, step, score (mean over the
    validation rows it was run on) with its 95 % interval, n (those rows), full (all of them), best, instructions and
    diff (path → text; the diff to its parent, words in [-…-] and {+…+}), demos (path → how many), and what its rollouts
    cost: calls, tokens, usd."""
    import pandas as pd

    scores, costs, best = scores_of(fold), _costs(fold), winner_of(fold)
    rows = [_row(c, fold, scores.get(c.id, {}), costs.get(c.id, Usage()), best) for c in fold.candidates.values()]
    frame = pd.DataFrame(rows, columns=list(_COLUMNS), dtype=object)
    numbers = {"step": int, "score": float, "low": float, "high": float, "n": int, "full": bool, "best": bool}
    return with_costs(frame.astype({**numbers, "calls": int}))


def _row(
    candidate: CandidateProposed, fold: Fold, scores: Mapping[int, float], cost: Usage, best: str | None
) -> dict[str, Any]:
    interval = mean_interval(list(scores.values())) if scores else None
    instructions = instructions_of(candidate, fold)
    parent = next((fold.candidates[p] for p in candidate.parents if p in fold.candidates), None)
    before = instructions if parent is None else instructions_of(parent, fold)
    return {
        "id": candidate.id,
        "parents": list(candidate.parents),
        "origin": candidate.origin,
        "step": candidate.step,
        "score": None if interval is None else interval.mean,
        "low": None if interval is None else interval.low,
        "high": None if interval is None else interval.high,
        "n": len(scores),
        "full": bool(scores) and len(scores) == _rows(fold),
        "best": candidate.id == best,
        "instructions": instructions,
        "diff": {path: text for path in instructions if (text := _diff(before.get(path, ""), instructions[path]))},
        "demos": demos_of(candidate, fold),
        "calls": cost.calls,
        "tokens": cost.tokens,
        "usd": cost.usd,
    }


def instructions_of(candidate: CandidateProposed, fold: Fold) -> dict[str, str]:
    """Path → instruction: its own, else that of the start, which says all."""
    start = next(iter(fold.candidates.values()))
    parts = [*start.parts.items(), *candidate.parts.items()]
    return {path: part["instruction"] for path, part in parts if "instruction" in part}


def demos_of(candidate: CandidateProposed, fold: Fold) -> dict[str, int]:
    """Path → how many demos: its own, else those of the start."""
    start = next(iter(fold.candidates.values()))
    parts = [*start.parts.items(), *candidate.parts.items()]
    found = {path: len(part["demos"]) for path, part in parts if "demos" in part}
    return {path: count for path, count in found.items() if count}


def _diff(before: str, after: str) -> str:
    if before == after:
        return ""
    marks = {"same": "{}", "gone": "[-{}-]", "new": "{{+{}+}}"}
    return "".join(marks[piece.kind].format(piece.text) for piece in diff_words(before, after) if piece.text)


def matrix_frame(fold: Fold, split: str = "val") -> pd.DataFrame:
    """Candidates × rows of a split: the score of the first rollout; NaN where there is none."""
    import numpy as np
    import pandas as pd

    scores = scores_of(fold, split)
    known = [candidate for candidate in fold.candidates if candidate in scores]
    cells = np.full((len(known), _rows(fold, split)), np.nan)
    for line, candidate in zip(cells, known, strict=True):
        rows = {row: score for row, score in scores[candidate].items() if row < len(line)}
        line[list(rows)] = list(rows.values())
    return pd.DataFrame(cells, index=pd.Index(list(map(encodable, known)), name="candidate"))


def history_frame(fold: Fold) -> pd.DataFrame:
    """How the best came about: one row each time a candidate was scored, with the best so far and what had been spent
    by then (calls, metric_calls, tokens, usd, seconds since the run began)."""
    import pandas as pd

    best_scores: dict[str | None, float] = {}
    rows = []
    for milestone in fold.milestones:
        scored, usage = milestone.scored, milestone.usage
        if scored.full and scored.split == "val":
            best_scores[scored.candidate] = scored.score
        rows.append(
            {
                "step": scored.step,
                "candidate": scored.candidate,
                "split": scored.split,
                "score": scored.score,
                "full": scored.full,
                "best": scored.best,
                "best_score": best_scores.get(scored.best),
                "calls": usage.calls,
                "metric_calls": milestone.metric_calls,
                "tokens": usage.tokens,
                "usd": usage.usd,
                "seconds": scored.at - fold.began,
            }
        )
    frame = pd.DataFrame(rows, columns=list(_HISTORY), dtype=object)
    numbers = {"step": int, "score": float, "full": bool, "best_score": float, "calls": int, "metric_calls": int}
    return with_costs(frame.astype({**numbers, "seconds": float}))


def proposals_frame(fold: Fold) -> pd.DataFrame:
    """One row a proposal that was asked for: key (what for), outputs, error, seconds."""
    import pandas as pd

    rows = [{name: getattr(p, name) for name in ("key", "outputs", "error", "seconds")} for p in fold.proposals]
    return pd.DataFrame(rows, columns=["key", "outputs", "error", "seconds"], dtype=object).astype({"seconds": float})


def winner_of(fold: Fold) -> str | None:
    """The id of the best candidate so far; None where none was scored on all validation rows."""
    return fold.winner if fold.winner in fold.candidates else None


def summary_of(fold: Fold) -> str:
    """In a few plain sentences: what the winner scored beside the start, and whether the difference can be told from
    none; on the test rows, where there are."""
    best, start = winner_of(fold), next(iter(fold.candidates), None)
    if best is None or start is None:
        return "No candidate was evaluated on all validation rows."
    so_far = "" if fold.ended is not None else "So far: "
    made, cost = f"{len(fold.candidates):,}", f"{len(fold.rollouts):,} rollouts, {fold.usage.calls:,} calls"
    failed = sum(proposal.error is not None for proposal in fold.proposals)
    notes = [f"{failed} of {len(fold.proposals)} proposals failed."] if failed else []
    if failed < len(fold.proposals) and len(fold.candidates) == 1 and fold.ended is not None:
        notes += [f"No candidate came of {len(fold.proposals) - failed} proposals (see run.proposals)."]
    notes += [text] if (text := _all_failed_in_training(fold)) else []
    notes += [text for candidate in dict.fromkeys([start, best]) if (text := _failures(fold, candidate))]
    notes += [hints_text(fold)] if fold.started is not None and fold.started.kind == "distill_hints" else []
    notes += ["A person pinned it."] if _pinned(fold) == best else []
    if best == start:
        told = [_alone(fold, start, split) for split in ("val", "test")]
        lines = [f"{so_far}None of {made} candidates ({cost}) was better than the program as it is."]
        if _pinned(fold) == start:
            lines = [f"{so_far}The program stays as it is. There were {made} candidates ({cost})."]
        elif ahead := _ahead(fold, start):
            named = f"{ahead} ({fold.candidates[ahead].origin})"
            lines = [f"{so_far}The program stays as it is. Of {made} candidates ({cost}) {named} scored highest."]
            told[0] = f"{_difference(fold, start, ahead, 'val')} That is not enough to take it for better."
        return " ".join([*lines, *filter(None, told), *notes])
    lines = [f"{so_far}The best of {made} candidates ({cost}) is {best} ({fold.candidates[best].origin})."]
    lines += [text for split in ("val", "test") if (text := _compared(fold, start, best, split))]
    return " ".join([*lines, *notes])


def _failures(fold: Fold, candidate: str) -> str:
    """How many validation rows failed, where any did."""
    records = fold.tried.get((candidate, "val"), {}).values()
    failed = sum(record.error is not None for record in records)
    if not failed:
        return ""
    return (
        f"{candidate} ({fold.candidates[candidate].origin}) failed on {failed} of {len(records)} validation rows "
        f"(counted as {failure_score(fold):g}; see error in run.rollouts)."
    )


def _all_failed_in_training(fold: Fold) -> str:
    """That nothing could be learned from, where that is so."""
    errors = [rollout.error for rollout in fold.rollouts if rollout.split == "train"]
    if not errors or None in errors:
        return ""
    return f"All {len(errors)} rollouts on training rows failed, the first with: {shorten(errors[0], 300)}."


def _pinned(fold: Fold) -> str | None:
    """The candidate that a person made the result, by its id."""
    pinned: str | None = None
    for event in fold.steered:
        if event.action == "pin":
            pinned = event.values.get("candidate")
        elif event.action == "unpin" or (event.action == "drop" and event.values.get("candidate") == pinned):
            pinned = None
    return pinned


def _ahead(fold: Fold, start: str) -> str | None:
    """The candidate that scored highest on all validation rows, where that is more than the start did; none that failed
    on all of them."""
    worked = {c for (c, split), records in fold.tried.items() if split == "val" and not _all_failed(records)}
    full = {candidate: score for candidate, score in full_scores(fold).items() if candidate in worked}
    best = max(full, key=lambda c: full[c], default=start)
    return best if full and full[best] > full.get(start, math.inf) else None


def _all_failed(records: Mapping[int, RolloutEnded]) -> bool:
    return all(record.error is not None for record in records.values())


def full_scores(fold: Fold) -> dict[str, float]:
    """Candidate → mean score, of those that were run on all validation rows."""
    found = {c: scores for c, scores in scores_of(fold).items() if scores and len(scores) == _rows(fold)}
    return {candidate: sum(scores.values()) / len(scores) for candidate, scores in found.items()}


def _alone(fold: Fold, start: str, split: str) -> str:
    scores = list(scores_of(fold, split).get(start, {}).values())
    name = {"val": "validation", "test": "test"}[split]
    return f"It scores {mean_interval(scores)} on {len(scores)} {name} rows." if scores else ""


def _compared(fold: Fold, start: str, best: str, split: str) -> str:
    paired, text = _pairs(fold, start, best, split), _difference(fold, start, best, split)
    if paired is None:
        return ""
    if paired.low is None or paired.low <= 0:
        return f"{text} That cannot be told from no difference."
    return f"{text} It was chosen on these rows, so expect less on others." if split == "val" else text


def _difference(fold: Fold, start: str, best: str, split: str) -> str:
    paired = _pairs(fold, start, best, split)
    if paired is None:
        return ""
    before, after = (scores_of(fold, split)[candidate] for candidate in (start, best))
    rows = [row for row in before if row in after]
    told: list[Interval] = [mean_interval([scores[r] for r in rows]) for scores in (before, after)]
    name = {"val": "validation", "test": "test"}[split]
    return f"On {len(rows)} {name} rows it scores {told[1]}, the start {told[0]}: a difference of {paired}."


def _pairs(fold: Fold, start: str, best: str, split: str) -> PairedDifference | None:
    """The difference on the rows that both have; None where there is none."""
    before, after = (scores_of(fold, split).get(candidate, {}) for candidate in (start, best))
    rows = [row for row in before if row in after]
    return paired_difference([before[r] for r in rows], [after[r] for r in rows]) if rows else None


def scores_of(fold: Fold, split: str = "val") -> dict[str, dict[int, float]]:
    """Candidate → row → score of the first rollout; of one that was run again, the last counts."""
    known = [candidate for candidate, of in fold.tried if of == split and candidate in fold.candidates]
    return {candidate: candidate_scores(fold, candidate, split) for candidate in known}


def candidate_scores(fold: Fold, candidate: str, split: str = "val") -> dict[int, float]:
    """Row → score of one candidate's first rollouts, in order of the rows."""
    failed = failure_score(fold)
    records = fold.tried.get((candidate, split), {})
    return {row: _score(records[row], failed) for row in sorted(records)}


def _score(record: RolloutEnded, failed: float) -> float:
    return failed if record.error is not None or record.score is None else float(record.score)


def _costs(fold: Fold) -> dict[str, Usage]:
    found: dict[str, Usage] = {}
    for record in fold.rollouts:
        found[record.candidate or ""] = found.get(record.candidate or "", Usage()) + record.usage
    return found


def _rows(fold: Fold, split: str = "val") -> int:
    told = fold.started.inputs.get(split) if fold.started else None
    return int(told) if is_count(told) and told <= _MOST_ROWS else 0
