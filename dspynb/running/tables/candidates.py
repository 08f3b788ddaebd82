"""An optimizer's run as pandas tables (candidates, matrix of scores, history, proposals), and as a few sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dspynb.data import Usage
from dspynb.errors import shorten
from dspynb.events import CandidateProposed, RolloutEnded
from dspynb.json_checks import is_count
from dspynb.running.record import RunRecord
from dspynb.running.tables.costs import usd_text
from dspynb.running.tables.diffs import diff_words
from dspynb.running.tables.estimates import estimates_in, with_estimates
from dspynb.running.tables.frames import with_costs
from dspynb.running.tables.hints import hints_text
from dspynb.running.tables.scores import failure_score
from dspynb.running.tables.statistics import PairedDifference, mean_interval, paired_difference

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
_MOST_ROWS = 10_000_000  # a damaged file may declare any number, and the matrix has a column per row
_SPLITS = {"val": "validation", "test": "test"}
_HISTORY = (
    "step", "candidate", "split", "score", "full", "best", "best_score", "calls", "metric_calls", "tokens", "usd",
    "seconds",
)  # fmt: skip


def candidates_frame(record: RunRecord) -> pd.DataFrame:
    """The candidates of an optimizer's run, one row each, in the order in which they were proposed.

    Columns: id (c0 for the start, c1, …), parents, origin, step; score (mean over the validation rows on which the
    candidate was evaluated) with its 95 % interval low and high; n (the number of those rows); full (whether they are
    all validation rows); best; instructions and diff (path → text; diff marks the words that differ from the parent's
    as [-…-] and {+…+}); demos (path → number of demos); and what its rollouts cost: calls, tokens, usd, and estimated
    if any tokens are.
    """
    import pandas as pd

    scores = scores_of(record)
    costs = _costs(record)
    best = winner_of(record)
    names = record.candidate_names
    rows = []
    for candidate in record.candidates.values():
        row_scores = scores.get(candidate.id, {})
        cost = costs.get(candidate.id, Usage())
        rows.append({**_identity(candidate, names), **_row(candidate, record, row_scores, cost, best)})
    frame = pd.DataFrame(rows, columns=list(_COLUMNS), dtype=object)
    numbers = {"step": int, "score": float, "low": float, "high": float, "n": int, "full": bool, "best": bool}
    return with_estimates(with_costs(frame.astype({**numbers, "calls": int})), _estimates(record))


def _identity(candidate: CandidateProposed, names: Mapping[str, str]) -> dict[str, Any]:
    return {
        "id": names[candidate.id],
        "parents": [names.get(parent, parent) for parent in candidate.parents],
        "origin": candidate.origin,
        "step": candidate.step,
    }


def _row(
    candidate: CandidateProposed, record: RunRecord, scores: Mapping[int, float], cost: Usage, best: str | None
) -> dict[str, Any]:
    mean = low = high = None
    if scores:
        interval = mean_interval(list(scores.values()))
        mean = interval.mean
        low = interval.low
        high = interval.high
    instructions = instructions_of(candidate, record)
    return {
        "score": mean,
        "low": low,
        "high": high,
        "n": len(scores),
        "full": bool(scores) and len(scores) == _rows(record),
        "best": candidate.id == best,
        "instructions": instructions,
        "diff": _diffs_to_parent(candidate, instructions, record),
        "demos": demos_of(candidate, record),
        "calls": cost.calls,
        "tokens": cost.tokens,
        "usd": cost.usd,
    }


def _diffs_to_parent(
    candidate: CandidateProposed, instructions: Mapping[str, str], record: RunRecord
) -> dict[str, str]:
    """Path → diff of the instructions that differ from those of the candidate's first known parent."""
    known_parents = [record.candidates[parent] for parent in candidate.parents if parent in record.candidates]
    if not known_parents:
        return {}
    parent_instructions = instructions_of(known_parents[0], record)
    diffs = {}
    for path, text in instructions.items():
        diff = _marked_diff(parent_instructions.get(path, ""), text)
        if diff:
            diffs[path] = diff
    return diffs


def instructions_of(candidate: CandidateProposed, record: RunRecord) -> dict[str, str]:
    """Path → instruction of a candidate. The start, which has them all, fills in those that the candidate lacks."""
    start = next(iter(record.candidates.values()))
    parts = [*start.parts.items(), *candidate.parts.items()]
    return {path: part["instruction"] for path, part in parts if "instruction" in part}


def demos_of(candidate: CandidateProposed, record: RunRecord) -> dict[str, int]:
    """Path → number of demos of a candidate, without those of 0. The start fills in paths that the candidate lacks."""
    start = next(iter(record.candidates.values()))
    parts = [*start.parts.items(), *candidate.parts.items()]
    counts = {path: len(part["demos"]) for path, part in parts if "demos" in part}
    return {path: count for path, count in counts.items() if count}


def _marked_diff(before: str, after: str) -> str:
    if before == after:
        return ""
    marks = {"same": "{}", "gone": "[-{}-]", "new": "{{+{}+}}"}
    return "".join(marks[piece.kind].format(piece.text) for piece in diff_words(before, after) if piece.text)


def matrix_frame(record: RunRecord, split: str = "val") -> pd.DataFrame:
    """Candidates × rows of a split: the score of the first rollout; NaN where there is none."""
    import numpy as np
    import pandas as pd

    scores = scores_of(record, split)
    candidates = [candidate for candidate in record.candidates if candidate in scores]
    cells = np.full((len(candidates), _rows(record, split)), np.nan)
    for line, candidate in zip(cells, candidates, strict=True):
        rows = {row: score for row, score in scores[candidate].items() if row < len(line)}
        line[list(rows)] = list(rows.values())
    names = record.candidate_names
    return pd.DataFrame(cells, index=pd.Index([names[candidate] for candidate in candidates], name="candidate"))


def history_frame(record: RunRecord) -> pd.DataFrame:
    """The best score over time: one row each time a candidate was scored, with the best candidate so far and what had
    been spent until then (calls, metric_calls, tokens, usd, seconds since the run began)."""
    import pandas as pd

    best_scores: dict[str | None, float] = {}
    names = record.candidate_names
    rows = []
    for milestone in record.milestones:
        scored = milestone.scored
        usage = milestone.usage
        if scored.full and scored.split == "val":
            best_scores[scored.candidate] = scored.score
        rows.append(
            {
                "step": scored.step,
                "candidate": names.get(scored.candidate, scored.candidate),
                "split": scored.split,
                "score": scored.score,
                "full": scored.full,
                "best": None if scored.best is None else names.get(scored.best, scored.best),
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
    """One row per proposal: key (what the proposal was for), outputs, error, seconds."""
    import pandas as pd

    rows = [(proposal.key, proposal.outputs, proposal.error, proposal.seconds) for proposal in record.proposals]
    return pd.DataFrame(rows, columns=["key", "outputs", "error", "seconds"], dtype=object).astype({"seconds": float})


def winner_of(record: RunRecord) -> str | None:
    """The id of the best candidate so far; None where none was scored on all validation rows."""
    return record.winner if record.winner in record.candidates else None


def summary_of(record: RunRecord) -> str:
    """A few plain sentences: the winner's score beside the start's, and whether the difference is significant; on the
    test rows too, where there are any."""
    best = winner_of(record)
    start = next(iter(record.candidates), None)
    if best is None or start is None:
        return " ".join(["No candidate was evaluated on all validation rows.", *_cost_note(record)])
    sentences = _start_won(record, start) if best == start else _start_was_beaten(record, start, best)
    return " ".join([*sentences, *_notes(record, start, best)])


def _so_far(record: RunRecord) -> str:
    return "" if record.ended is not None else "So far: "


def _size(record: RunRecord) -> str:
    """The number of candidates, and in brackets that of rollouts and calls."""
    rollouts = f"{len(record.rollouts):,} rollouts, {record.usage.calls:,} calls"
    return f"{len(record.candidates):,} candidates ({rollouts})"


def _named(record: RunRecord, candidate: str) -> str:
    """The name of a candidate, and in brackets its origin."""
    return f"{record.candidate_names[candidate]} ({record.candidates[candidate].origin})"


def _start_won(record: RunRecord, start: str) -> list[str]:
    pinned = _pinned(record)
    ahead = _ahead(record, start)
    validation = _score_text(record, start, "val")
    if pinned == start:
        result = f"The program stays as it is. There were {_size(record)}."
    elif ahead:
        result = f"The program stays as it is. Of {_size(record)} {_named(record, ahead)} scored highest."
        validation = f"{_difference(record, start, ahead, 'val')} That is not enough to prefer it."
    else:
        result = f"None of {_size(record)} was better than the program as it is."
    sentences = [_so_far(record) + result, validation, _score_text(record, start, "test")]
    return [sentence for sentence in sentences if sentence]


def _start_was_beaten(record: RunRecord, start: str, best: str) -> list[str]:
    sentences = [
        f"{_so_far(record)}The best of {_size(record)} is {_named(record, best)}.",
        _comparison_with_start(record, start, best, "val"),
        _comparison_with_start(record, start, best, "test"),
    ]
    return [sentence for sentence in sentences if sentence]


def _notes(record: RunRecord, start: str, best: str) -> list[str]:
    """What a reader should know beside the scores: failures, hints, and whether a person pinned the winner."""
    notes = []
    proposals = len(record.proposals)
    failed = sum(proposal.error is not None for proposal in record.proposals)
    if failed:
        notes.append(f"{failed} of {proposals} proposals failed.")
    if failed < proposals and len(record.candidates) == 1 and record.ended is not None:
        notes.append(f"None of {proposals - failed} proposals became a candidate (see run.proposals).")
    notes.append(_training_failures(record))
    notes.append(_validation_failures(record, start))
    if best != start:
        notes.append(_validation_failures(record, best))
    if record.started is not None and record.started.kind == "distill_hints":
        notes.append(hints_text(record))
    if _pinned(record) == best:
        notes.append("A person pinned it.")
    return [note for note in [*notes, *_cost_note(record)] if note]


def _cost_note(record: RunRecord) -> list[str]:
    usd = usd_text(record)
    return [f"The run cost {usd}."] if usd else []


def _validation_failures(record: RunRecord, candidate: str) -> str:
    """A sentence about the validation rows on which the candidate failed; empty where there are none."""
    rollouts = record.rollouts_of(candidate).values()
    failed = sum(rollout.error is not None for rollout in rollouts)
    if not failed:
        return ""
    return (
        f"{_named(record, candidate)} failed on {failed} of {len(rollouts)} validation rows "
        f"(counted as {failure_score(record):g}; see error in run.rollouts)."
    )


def _training_failures(record: RunRecord) -> str:
    """A sentence with the first error, where every rollout on training rows failed; else empty."""
    errors = [rollout.error for rollout in record.rollouts if rollout.split == "train"]
    if not errors or None in errors:
        return ""
    return f"All {len(errors)} rollouts on training rows failed, the first with: {shorten(errors[0], 300)}."


def _pinned(record: RunRecord) -> str | None:
    """The id of the candidate that a person pinned; None where there is none."""
    pinned: str | None = None
    for event in record.steered:
        candidate = event.values.get("candidate")
        if event.action == "pin":
            pinned = candidate
        elif event.action == "unpin" or (event.action == "drop" and candidate == pinned):
            pinned = None
    return pinned


def _ahead(record: RunRecord, start: str) -> str | None:
    """The candidate with the highest mean on all validation rows, if that mean is above the start's; else None.

    A candidate that failed on every row is left out.
    """
    means = full_scores(record)
    scores = {candidate: means[candidate] for candidate in means if not _all_failed(record.rollouts_of(candidate))}
    if not scores:
        return None
    best = max(scores, key=scores.__getitem__)
    if scores[best] > scores.get(start, math.inf):
        return best
    return None


def _all_failed(rollouts: Mapping[int, RolloutEnded]) -> bool:
    return all(rollout.error is not None for rollout in rollouts.values())


def full_scores(record: RunRecord) -> dict[str, float]:
    """Candidate → mean score, for the candidates that were evaluated on all validation rows."""
    rows = _rows(record)
    means = {}
    for candidate, scores in scores_of(record).items():
        if scores and len(scores) == rows:
            means[candidate] = sum(scores.values()) / len(scores)
    return means


def _score_text(record: RunRecord, start: str, split: str) -> str:
    scores = list(scores_of(record, split).get(start, {}).values())
    if not scores:
        return ""
    return f"It scores {mean_interval(scores)} on {len(scores)} {_SPLITS[split]} rows."


def _comparison_with_start(record: RunRecord, start: str, best: str, split: str) -> str:
    paired = _paired(record, start, best, split)
    if paired is None:
        return ""
    text = _difference(record, start, best, split)
    if paired.low is None or paired.low <= 0:
        return f"{text} That difference is not significant."
    if split == "val":
        return f"{text} It was chosen on these rows, so expect less on others."
    return text


def _difference(record: RunRecord, start: str, best: str, split: str) -> str:
    paired = _paired(record, start, best, split)
    if paired is None:
        return ""
    start_scores, best_scores = _shared_scores(record, start, best, split)
    return (
        f"On {len(start_scores)} {_SPLITS[split]} rows it scores {mean_interval(best_scores)}, "
        f"the start {mean_interval(start_scores)}: a difference of {paired}."
    )


def _paired(record: RunRecord, start: str, best: str, split: str) -> PairedDifference | None:
    """The difference between two candidates on the rows that both have; None where they share none."""
    start_scores, best_scores = _shared_scores(record, start, best, split)
    if start_scores:
        return paired_difference(start_scores, best_scores)
    return None


def _shared_scores(record: RunRecord, start: str, best: str, split: str) -> tuple[list[float], list[float]]:
    """The scores of two candidates on the rows of a split on which both have one, in the same order."""
    scores = scores_of(record, split)
    start_scores = scores.get(start, {})
    best_scores = scores.get(best, {})
    rows = [row for row in start_scores if row in best_scores]
    return [start_scores[row] for row in rows], [best_scores[row] for row in rows]


def scores_of(record: RunRecord, split: str = "val") -> dict[str, dict[int, float]]:
    """Candidate → row → score of the first rollout; of a rollout that was run again, the last one counts."""
    scores = {}
    for candidate, rollout_split in record.rollouts_by_candidate:
        if rollout_split == split and candidate in record.candidates:
            scores[candidate] = candidate_scores(record, candidate, split)
    return scores


def candidate_scores(record: RunRecord, candidate: str, split: str = "val") -> dict[int, float]:
    """Row → score of one candidate's first rollouts, in order of the rows."""
    failed = failure_score(record)
    rollouts = record.rollouts_of(candidate, split)
    return {row: _score(rollouts[row], failed) for row in sorted(rollouts)}


def _score(rollout: RolloutEnded, failed: float) -> float:
    if rollout.error is not None or rollout.score is None:
        return failed
    return float(rollout.score)


def _costs(record: RunRecord) -> dict[str, Usage]:
    """Candidate → usage of its rollouts; ``""`` for rollouts of no candidate."""
    costs: dict[str, Usage] = {}
    for rollout in record.rollouts:
        candidate = rollout.candidate or ""
        costs[candidate] = costs.get(candidate, Usage()) + rollout.usage
    return costs


def _estimates(record: RunRecord) -> list[int]:
    """How many tokens of each candidate's rollouts are estimated. Empty for a run without estimates."""
    estimates = estimates_in(record, [rollout.span for rollout in record.rollouts])
    if not estimates:
        return []
    totals = dict.fromkeys(record.candidates, 0)
    for rollout, estimate in zip(record.rollouts, estimates, strict=True):
        if rollout.candidate in totals:
            totals[rollout.candidate] += estimate
    return list(totals.values())


def _rows(record: RunRecord, split: str = "val") -> int:
    """The number of rows of a split that the run declares; 0 where it declares none that can be true."""
    count = record.started.inputs.get(split) if record.started else None
    if is_count(count) and count <= _MOST_ROWS:
        return int(count)
    return 0
