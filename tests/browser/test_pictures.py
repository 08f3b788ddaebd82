"""The picture in the README: the output of a cell of the first tutorial, with recorded replies of the embedded model.

``DSPYNB_PICTURES=docs/images pytest -m slow tests/browser/test_pictures.py`` takes it again.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

RECORDING = Path(__file__).parents[2] / "notebooks" / "recordings" / "01_refine.jsonl"
PICTURES = os.environ.get("DSPYNB_PICTURES")
CELLS = (
    'dn.configure(lm=dn.recorded("01_refine.jsonl", lm=dn.LocalLM()))',
    '''class Caption(dn.Signature):
    """Write a sentence about the subject."""
    subject: str = dn.Input()
    sentence: str = dn.Output()


def short_and_blue(row, prediction):
    text = prediction.sentence
    score = 0.5 * (len(text.split()) < 10) + 0.5 * ("blue" in text.lower())
    return dn.Score(score, feedback="Use fewer than 10 words and the word 'blue'.")''',
    "refine = dn.Refine(dn.Predict(Caption, temperature=0.7), short_and_blue, n=3, threshold=1.0, temperature=0.7)",
    "prediction = await refine(subject='the ocean')",
)


def test_the_picture_in_the_readme_shows_the_view_of_a_real_model(lab, notebook):
    shutil.copy(RECORDING, lab.work)
    opened = notebook(*CELLS)
    opened.run_all()
    opened.page.wait_for_selector(".dspynb[data-on]")
    rows = opened.page.locator(".dspynb-view .dspynb-body .dspynb-line[data-key]")
    assert rows.count() > 1
    rows.nth(1).click()
    assert "Use fewer than 10 words" in opened.page.locator(".dspynb-detail ins").first.inner_text()
    if PICTURES:
        Path(PICTURES).mkdir(parents=True, exist_ok=True)
        opened.page.locator(".dspynb").first.screenshot(path=f"{PICTURES}/refine.png")
    assert opened.errors == []
