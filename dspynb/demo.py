"""The demo: one Refine watched, then hints against no hints over 24 subjects, measured as it runs."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dspynb as dn
from dspynb.data import Example, Prediction, Score
from dspynb.running.aio.sync import run_sync

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SUBJECTS", "Caption", "hints_or_not", "run_demo", "short_and_blue"]

SUBJECTS = (
    "the ocean", "a bicycle", "coffee", "the moon", "a library", "winter", "a dog", "the city", "a garden", "music",
    "a train", "the desert", "breakfast", "a river", "the school", "an old house", "rain", "a kite", "the market",
    "a mountain", "tea", "a bird", "the beach", "a book",
)  # fmt: skip
TEMPERATURE = 0.7
THRESHOLD = 1.0


class Caption(dn.Signature):
    """Write a sentence about the subject."""

    subject: str = dn.Input()
    sentence: str = dn.Output()


def short_and_blue(_: Example, prediction: Prediction) -> Score:
    """Half a point for fewer than 10 words, half for the word 'blue'."""
    text = prediction.sentence
    score = 0.5 * (len(text.split()) < 10) + 0.5 * ("blue" in text.lower())
    return Score(score, feedback="Use fewer than 10 words and the word 'blue'.")


Progress = Callable[[int, int], None]


async def hints_or_not(
    subjects: tuple[str, ...] = SUBJECTS, n: int = 3, progress: Progress | None = None
) -> tuple[pd.DataFrame, list[Any]]:
    """The table of both programs (how many subjects met the threshold, mean score, calls, seconds), and Refine's
    results a subject."""
    import pandas as pd

    caption = dn.Predict(Caption)
    settings: dict[str, Any] = {"reward": short_and_blue, "n": n, "threshold": THRESHOLD, "temperature": TEMPERATURE}
    programs = {
        "BestOfN, no hints": dn.BestOfN(caption, **settings),
        "Refine, with hints": dn.Refine(caption, hints="feedback", **settings),
    }
    rows: list[dict[str, Any]] = []
    results: list[Any] = []
    done = 0
    for name, program in programs.items():
        began, results = time.perf_counter(), []
        for subject in subjects:
            results.append(await _outcome(program(subject=subject)))
            done += 1
            if progress:
                progress(done, len(programs) * len(subjects))
        rows.append({"program": name, **_summary(results), "seconds": round(time.perf_counter() - began, 1)})
    return pd.DataFrame(rows).set_index("program"), results


async def _outcome(call: Awaitable[Prediction]) -> Prediction | dn.AllAttemptsFailed:
    try:
        return await call
    except dn.AllAttemptsFailed as error:
        return error


def _summary(results: list[Any]) -> dict[str, Any]:
    scores = [r.score.value if isinstance(r, Prediction) else 0.0 for r in results]
    met = sum(score >= THRESHOLD for score in scores)
    calls = [call for r in results if isinstance(r, Prediction) for call in r.meta.run.record.calls]
    return {
        "subjects": len(results),
        "met threshold": met,
        "rate": f"{met / len(results):.0%}",
        "mean score": round(sum(scores) / len(results), 2),
        "attempts": len(calls),
        "sampled anew": sum(not call.cached for call in calls),
    }


def run_demo(lm: Any = None, subjects: tuple[str, ...] = SUBJECTS) -> int:
    """What ``dspynb demo`` does; returns the process's exit status."""
    with tempfile.TemporaryDirectory() as folder, dn.context(lm=_sampled_once(lm or dn.LocalLM(), folder), view="off"):
        _say("One Refine: three attempts, each with a hint from the reward's feedback on the one before.\n\n")
        how: dict[str, Any] = {"hints": "feedback", "threshold": THRESHOLD, "temperature": TEMPERATURE}
        refine = dn.Refine(dn.Predict(Caption), short_and_blue, n=3, **how)
        prediction = refine.run_sync(subject=subjects[0])
        _say(_attempts_text(prediction) + "\n\n")
        _say(f"The same over {len(subjects)} subjects, with and without hints, at temperature {TEMPERATURE}:\n\n")
        table, _ = run_sync(lambda: hints_or_not(subjects, progress=_progress))
        _say(f"{table.reset_index().to_string(index=False)}\n")
    lab = "`dspynb lab` opens the tutorials"
    if importlib.util.find_spec("jupyterlab") is None:
        lab += '; it needs JupyterLab: pip install "dspynb[lab]"'
    _say(f"\nMeasured in this run. Next: {lab}.\n")
    return 0


def _sampled_once(lm: Any, folder: str) -> Any:
    """The model, with equal requests answered once: both programs begin with the same first attempt."""
    return dn.recorded(Path(folder) / "replies.jsonl", lm=lm)


def _attempts_text(prediction: Prediction) -> str:
    table = prediction.run.attempts[["attempt", "hint", "sentence", "score", "best"]]
    blocks = []
    for row in table.itertuples():
        mark = " <- best" if row.best else ""
        blocks.append(
            f"attempt {row.attempt}   score {row.score:.1f}{mark}\n  hint:     {row.hint or '(none)'}\n"
            f"  sentence: {row.sentence}"
        )
    return "\n".join(blocks)


def _progress(done: int, total: int) -> None:
    if sys.stdout.isatty():
        _say(f"\r{done} of {total} calls of a program" if done < total else f"\r{' ' * 40}\r")


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
