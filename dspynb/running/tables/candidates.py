"""An optimizer's run as pandas tables: its candidates, the matrix of scores, how the best came about, the proposals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dspynb.data import Usage
from dspynb.errors import shorten
from dspynb.events import CandidateProposed, RolloutEnded
from dspynb.json_checks import is_count
from dspynb.running.record import RunRecord
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


def candidates_frame(record: RunRecord) -> pd.DataFrame:
    """One row a candidate, in the order in which they were made: id, parents, origin, step, score (mean over the
    validation rows it was run on) with its 95 % interval, n (those rows), full (all of them), best, instructions and
    diff (path → text; the diff to its parent, words in [-…-] and {+…+}), demos (path → how many), and what its rollouts
    cost: calls, tokens, usd."""
    import pandas as pd

    scores, costs, best = scores_of(record), _costs(record), winner_of(record)
    rows = [_row(c, record, scores.get(c.id, {}), costs.get(c.id, Usage()), best) for c in record.candidates.values()]
    frame = pd.DataFrame(rows, columns=list(_COLUMNS), dtype=object)
    numbers = {"step": int, "score": float, "low": float, "high": float, "n": int, "full": bool, "best": bool}
    return with_costs(frame.astype({**numbers, "calls": int}))


def _row(
    candidate: CandidateProposed, record: RunRecord, scores: Mapping[int, float], cost: Usage, best: str | None
) -> dict[str, Any]:
    interval = mean_interval(list(scores.values())) if scores else None
    instructions = instructions_of(candidate, record)
    parent = next((record.candidates[p] for p in candidate.parents if p in record.candidates), None)
    before = instructions if parent is None else instructions_of(parent, record)
    return {
        "id": candidate.id,
        "parents": list(candidate.parents),
        "origin": candidate.origin,
        "step": candidate.step,
        "score": None if interval is None else interval.mean,
        "low": None if interval is None else interval.low,
        "high": None if interval is None else interval.high,
        "n": len(scores),
        "full": bool(scores) and len(scores) == _rows(record),
        "best": candidate.id == best,
        "instructions": instructions,
        "diff": {path: text for path in instructions if (text := _diff(before.get(path, ""), instructions[path]))},
        "demos": demos_of(candidate, record),
        "calls": cost.calls,
        "tokens": cost.tokens,
        "usd": cost.usd,
    }


def instructions_of(candidate: CandidateProposed, record: RunRecord) -> dict[str, str]:
    """Path → instruction: its own, else that of the start, which says all."""
    start = next(iter(record.candidates.values()))
    parts = [*start.parts.items(), *candidate.parts.items()]
    return {path: part["instruction"] for path, part in parts if "instruction" in part}


def demos_of(candidate: CandidateProposed, record: RunRecord) -> dict[str, int]:
    """Path → how many demos: its own, else those of the start."""
    start = next(iter(record.candidates.values()))
    parts = [*start.parts.items(), *candidate.parts.items()]
    found = {path: len(part["demos"]) for path, part in parts if "demos" in part}
    return {path: count for path, count in found.items() if count}


def _diff(before: str, after: str) -> str:
    if before == after:
        return ""
    marks = {"same": "{}", "gone": "[-{}-]", "new": "{{+{}+}}"}
    return "".join(marks[piece.kind].format(piece.text) for piece in diff_words(before, after) if piece.text)


def matrix_frame(record: RunRecord, split: str = "val") -> pd.DataFrame:
    """Candidates × rows of a split: the score of the first rollout; NaN where there is none."""
    import numpy as np
    import pandas as pd

    scores = scores_of(record, split)
    known = [candidate for candidate in record.candidates if candidate in scores]
    cells = np.full((len(known), _rows(record, split)), np.nan)
    for line, candidate in zip(cells, known, strict=True):
        rows = {row: score for row, score in scores[candidate].items() if row < len(line)}
        line[list(rows)] = list(rows.values())
    return pd.DataFrame(cells, index=pd.Index(list(map(encodable, known)), name="candidate"))


def history_frame(record: RunRecord) -> pd.DataFrame:
    """How the best came about: one row each time a candidate was scored, with the best so far and what had been spent
    by then (calls, metric_calls, tokens, usd, seconds since the run began)."""
    import pandas as pd

    best_scores: dict[str | None, float] = {}
    rows = []
    for milestone in record.milestones:
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
                "seconds": scored.at - record.began,
            }
        )
    frame = pd.DataFrame(rows, columns=list(_HISTORY), dtype=object)
    numbers = {"step": int, "score": float, "full": bool, "best_score": float, "calls": int, "metric_calls": int}
    return with_costs(frame.astype({**numbers, "seconds": float}))


def proposals_frame(record: RunRecord) -> pd.DataFrame:
    """One row a proposal that was asked for: key (what for), outputs, error, seconds."""
    import pandas as pd

    rows = [{name: getattr(p, name) for name in ("key", "outputs", "error", "seconds")} for p in record.proposals]
    return pd.DataFrame(rows, columns=["key", "outputs", "error", "seconds"], dtype=object).astype({"seconds": float})


def winner_of(record: RunRecord) -> str | None:
    """The id of the best candidate so far; None where none was scored on all validation rows."""
    return record.winner if record.winner in record.candidates else None


def summary_of(record: RunRecord) -> str:
    """In a few plain sentences: what the winner scored beside the start, and whether the difference can be told from
    none; on the test rows, where there are."""
    best, start = winner_of(record), next(iter(record.candidates), None)
    if best is None or start is None:
        return "No candidate was evaluated on all validation rows."
    so_far = "" if record.ended is not None else "So far: "
    made, cost = f"{len(record.candidates):,}", f"{len(record.rollouts):,} rollouts, {record.usage.calls:,} calls"
    failed = sum(proposal.error is not None for proposal in record.proposals)
    notes = [f"{failed} of {len(record.proposals)} proposals failed."] if failed else []
    if failed < len(record.proposals) and len(record.candidates) == 1 and record.ended is not None:
        notes += [f"No candidate came of {len(record.proposals) - failed} proposals (see run.proposals)."]
    notes += [text] if (text := _all_failed_in_training(record)) else []
    notes += [text for candidate in dict.fromkeys([start, best]) if (text := _failures(record, candidate))]
    notes += [hints_text(record)] if record.started is not None and record.started.kind == "distill_hints" else []
    notes += ["A person pinned it."] if _pinned(record) == best else []
    if best == start:
        told = [_alone(record, start, split) for split in ("val", "test")]
        lines = [f"{so_far}None of {made} candidates ({cost}) was better than the program as it is."]
        if _pinned(record) == start:
            lines = [f"{so_far}The program stays as it is. There were {made} candidates ({cost})."]
        elif ahead := _ahead(record, start):
            named = f"{ahead} ({record.candidates[ahead].origin})"
            lines = [f"{so_far}The program stays as it is. Of {made} candidates ({cost}) {named} scored highest."]
            told[0] = f"{_difference(record, start, ahead, 'val')} That is not enough to take it for better."
        return " ".join([*lines, *filter(None, told), *notes])
    lines = [f"{so_far}The best of {made} candidates ({cost}) is {best} ({record.candidates[best].origin})."]
    lines += [text for split in ("val", "test") if (text := _compared(record, start, best, split))]
    return " ".join([*lines, *notes])


def _failures(record: RunRecord, candidate: str) -> str:
    """How many validation rows failed, where any did."""
    rollouts = record.rollouts_of(candidate).values()
    failed = sum(rollout.error is not None for rollout in rollouts)
    if not failed:
        return ""
    return (
        f"{candidate} ({record.candidates[candidate].origin}) failed on {failed} of {len(rollouts)} validation rows "
        f"(counted as {failure_score(record):g}; see error in run.rollouts)."
    )


def _all_failed_in_training(record: RunRecord) -> str:
    """That nothing could be learned from, where that is so."""
    errors = [rollout.error for rollout in record.rollouts if rollout.split == "train"]
    if not errors or None in errors:
        return ""
    return f"All {len(errors)} rollouts on training rows failed, the first with: {shorten(errors[0], 300)}."


def _pinned(record: RunRecord) -> str | None:
    """The candidate that a person made the result, by its id."""
    pinned: str | None = None
    for event in record.steered:
        if event.action == "pin":
            pinned = event.values.get("candidate")
        elif event.action == "unpin" or (event.action == "drop" and event.values.get("candidate") == pinned):
            pinned = None
    return pinned


def _ahead(record: RunRecord, start: str) -> str | None:
    """The candidate that scored highest on all validation rows, where that is more than the start did; none that failed
    on all of them."""
    scores = full_scores(record)
    full = {candidate: scores[candidate] for candidate in scores if not _all_failed(record.rollouts_of(candidate))}
    best = max(full, key=lambda c: full[c], default=start)
    return best if full and full[best] > full.get(start, math.inf) else None


def _all_failed(rollouts: Mapping[int, RolloutEnded]) -> bool:
    return all(rollout.error is not None for rollout in rollouts.values())


def full_scores(record: RunRecord) -> dict[str, float]:
    """Candidate → mean score, of those that were run on all validation rows."""
    found = {c: scores for c, scores in scores_of(record).items() if scores and len(scores) == _rows(record)}
    return {candidate: sum(scores.values()) / len(scores) for candidate, scores in found.items()}


def _alone(record: RunRecord, start: str, split: str) -> str:
    scores = list(scores_of(record, split).get(start, {}).values())
    name = {"val": "validation", "test": "test"}[split]
    return f"It scores {mean_interval(scores)} on {len(scores)} {name} rows." if scores else ""


def _compared(record: RunRecord, start: str, best: str, split: str) -> str:
    paired, text = _pairs(record, start, best, split), _difference(record, start, best, split)
    if paired is None:
        return ""
    if paired.low is None or paired.low <= 0:
        return f"{text} That cannot be told from no difference."
    return f"{text} It was chosen on these rows, so expect less on others." if split == "val" else text


def _difference(record: RunRecord, start: str, best: str, split: str) -> str:
    paired = _pairs(record, start, best, split)
    if paired is None:
        return ""
    before, after = (scores_of(record, split)[candidate] for candidate in (start, best))
    rows = [row for row in before if row in after]
    told: list[Interval] = [mean_interval([scores[r] for r in rows]) for scores in (before, after)]
    name = {"val": "validation", "test": "test"}[split]
    return f"On {len(rows)} {name} rows it scores {told[1]}, the start {told[0]}: a difference of {paired}."


def _pairs(record: RunRecord, start: str, best: str, split: str) -> PairedDifference | None:
    """The difference on the rows that both have; None where there is none."""
    before, after = (scores_of(record, split).get(candidate, {}) for candidate in (start, best))
    rows = [row for row in before if row in after]
    return paired_difference([before[r] for r in rows], [after[r] for r in rows]) if rows else None


def scores_of(record: RunRecord, split: str = "val") -> dict[str, dict[int, float]]:
    """Candidate → row → score of the first rollout; of one that was run again, the last counts."""
    known = [name for name, of in record.rollouts_by_candidate if of == split and name in record.candidates]
    return {candidate: candidate_scores(record, candidate, split) for candidate in known}


def candidate_scores(record: RunRecord, candidate: str, split: str = "val") -> dict[int, float]:
    """Row → score of one candidate's first rollouts, in order of the rows."""
    failed = failure_score(record)
    rollouts = record.rollouts_of(candidate, split)
    return {row: _score(rollouts[row], failed) for row in sorted(rollouts)}


def _score(rollout: RolloutEnded, failed: float) -> float:
    return failed if rollout.error is not None or rollout.score is None else float(rollout.score)


def _costs(record: RunRecord) -> dict[str, Usage]:
    found: dict[str, Usage] = {}
    for rollout in record.rollouts:
        found[rollout.candidate or ""] = found.get(rollout.candidate or "", Usage()) + rollout.usage
    return found


def _rows(record: RunRecord, split: str = "val") -> int:
    told = record.started.inputs.get(split) if record.started else None
    return int(told) if is_count(told) and told <= _MOST_ROWS else 0
