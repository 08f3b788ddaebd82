"""The demo of ``dspynb demo``: one Refine step by step, then a comparison with and without hints over 12 subjects."""

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

    from dspynb.lm.protocol import LMProtocol

__all__ = ["SUBJECTS", "Caption", "hints_or_not", "run_demo", "short_and_blue"]

SUBJECTS = (
    "the ocean", "a bicycle", "coffee", "the moon", "a library", "winter", "a dog", "the city", "a garden", "music",
    "a train", "the desert", "breakfast", "a river", "the school", "an old house", "rain", "a kite", "the market",
    "a mountain", "tea", "a bird", "the beach", "a book",
)  # fmt: skip
_SUBJECTS_OF_DEMO = SUBJECTS[:12]
"""So many that the demo takes about a minute on two cores."""
TEMPERATURE = 0.7
THRESHOLD = 1.0


class Caption(dn.Signature):
    """Write a sentence about the subject."""

    subject: str = dn.Input()
    sentence: str = dn.Output()


def short_and_blue(_: Example, prediction: Prediction) -> Score:
    """The score: 0.5 for fewer than 10 words, and 0.5 for the word 'blue'."""
    text = prediction.sentence
    score = 0.5 * (len(text.split()) < 10) + 0.5 * ("blue" in text.lower())
    return Score(score, feedback="Use fewer than 10 words and the word 'blue'.")


Progress = Callable[[int, int], None]


async def hints_or_not(
    subjects: tuple[str, ...] = SUBJECTS, n: int = 3, progress: Progress | None = None
) -> tuple[pd.DataFrame, list[Any]]:
    """Run BestOfN without hints and Refine with hints over all subjects.

    ``n``: attempts per subject. ``progress``: called with the number of finished calls and of all calls. Returns a
    table of both programs, and Refine's result for each subject: a Prediction or AllAttemptsFailed.
    """
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
        started = time.perf_counter()
        results = []
        for subject in subjects:
            results.append(await _outcome(program(subject=subject)))
            done += 1
            if progress:
                progress(done, len(programs) * len(subjects))
        rows.append({"program": name, **_summary(results), "seconds": round(time.perf_counter() - started, 1)})
    return pd.DataFrame(rows).set_index("program"), results


async def _outcome(call: Awaitable[Prediction]) -> Prediction | dn.AllAttemptsFailed:
    try:
        return await call
    except dn.AllAttemptsFailed as error:
        return error


def _summary(results: list[Any]) -> dict[str, Any]:
    scores = []
    calls: list[Any] = []
    for result in results:
        if isinstance(result, Prediction):
            scores.append(result.score.value)
            calls.extend(result.meta.run.record.calls)
        else:
            scores.append(0.0)
    successes = sum(score >= THRESHOLD for score in scores)
    return {
        "subjects": len(results),
        "met threshold": successes,
        "rate": f"{successes / len(results):.0%}",
        "mean score": round(sum(scores) / len(results), 2),
        "attempts": len(calls),
        "sampled anew": sum(not call.cached for call in calls),
    }


def run_demo(lm: LMProtocol | None = None, subjects: tuple[str, ...] = _SUBJECTS_OF_DEMO) -> int:
    """Run the demo and return the exit status of the process. ``lm``: by default LocalLM."""
    with tempfile.TemporaryDirectory() as folder, dn.context(lm=_recorded(lm or dn.LocalLM(), folder), view="off"):
        _write("One Refine: three attempts. Each has a hint from the reward's feedback on the previous attempt.\n\n")
        settings: dict[str, Any] = {"hints": "feedback", "threshold": THRESHOLD, "temperature": TEMPERATURE}
        refine = dn.Refine(dn.Predict(Caption), short_and_blue, n=3, **settings)
        prediction = refine.run_sync(subject=subjects[0])
        _write(_attempts_text(prediction) + "\n\n")
        _write(f"The same for {len(subjects)} subjects, with and without hints, at temperature {TEMPERATURE}:\n\n")
        table, _ = run_sync(lambda: hints_or_not(subjects, progress=_progress))
        _write(f"{table.reset_index().to_string(index=False)}\n")
    lab = "`dspynb lab` opens the tutorials"
    if importlib.util.find_spec("jupyterlab") is None:
        lab += '; it needs JupyterLab: pip install "dspynb[lab]"'
    _write(f"\nMeasured in this run. Next: {lab}.\n")
    return 0


def _recorded(lm: LMProtocol, folder: str) -> Any:
    """The model with recorded replies, so that both programs get the same reply in their first attempts."""
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
    if not sys.stdout.isatty():
        return
    if done < total:
        _write(f"\r{done} of {total} calls of a program")
    else:
        _write(f"\r{' ' * 40}\r")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
