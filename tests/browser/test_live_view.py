"""The live view in a real JupyterLab: rows while a cell awaits, Stop, and what a saved notebook keeps."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.browser.jupyter import Lab, chromium

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(chromium() is None, reason="no chromium is installed"),
    pytest.mark.timeout(240),
    # Playwright's and nbformat's own clean-up, not ours
    pytest.mark.filterwarnings("default::ResourceWarning", "default::DeprecationWarning"),
]
SHOTS = os.environ.get("DSPYNB_SHOTS")
"""A folder for screenshots, if they are wanted."""

STORY = '''
import asyncio
import dspynb as dn

class Caption(dn.Signature):
    """Write one sentence about the subject."""
    subject: str = dn.Input()
    sentence: str = dn.Output(desc="one sentence")

SENTENCES = [
    "The ocean is a very large body of salt water that covers most of the surface of the whole Earth.",
    "The ocean is a large body of salt water that never rests.",
    "<img src=x onerror=\\"window.pwned=1\\"> The ocean rests.",
    "The blue ocean never rests, and nor do the tides that pull at it.",
    "The blue ocean never rests.",
]

def writer(pace, fail, endless):
    async def model(request):
        await asyncio.sleep(pace)
        if fail == request.rollout:
            return "I would rather not."
        sentence = SENTENCES[request.rollout % 4 if endless else min(request.rollout, 4)]
        return f"[[ ## sentence ## ]]\\n{sentence}\\n\\n[[ ## completed ## ]]"
    return dn.FunctionLM(model)

def reward(row, prediction):
    words = len(prediction.sentence.split())
    missing = [] if words < 10 else [f"Use fewer than 10 words; you used {words}."]
    missing += [] if "blue" in prediction.sentence else ["Use the word 'blue'."]
    return dn.Score(1 - 0.5 * len(missing), feedback=" ".join(missing) or "Good.")
'''
AWAITED = """prediction = await refine(subject="the ocean")
print("RESULT", prediction.score.value, dn.last_run().status)"""
ROWS = ".dspynb-live tr[data-key]"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with Lab(tmp_path_factory.mktemp("lab")) as server:
        yield server


@pytest.fixture
def notebook(lab, request):
    with lab.browser() as context:

        def open_with(*cells, pace=0.5, n=5, fail=-1):
            name = f"{request.node.name}.ipynb"
            model = f"writer({pace}, fail={fail}, endless={n > 5})"
            setup = f"refine = dn.Refine(dn.Predict(Caption, lm={model}), reward, n={n})"
            (lab.work / "story.py").write_text(STORY)
            lab.write(name, "import dspynb as dn\nfrom story import Caption, reward, writer", setup, *cells)
            return lab.open(context, name)

        yield open_with


def shot(opened, name):
    if SHOTS:
        Path(SHOTS).mkdir(parents=True, exist_ok=True)
        opened.page.screenshot(path=f"{SHOTS}/{name}.png")


def test_rows_appear_while_the_cell_awaits_and_static_html_remains(lab, notebook):
    opened = notebook(AWAITED, pace=1.0, fail=2)
    opened.run_all()
    opened.page.wait_for_selector(ROWS)
    opened.page.locator(ROWS).nth(3).wait_for()
    assert opened.page.locator(".jp-OutputArea-output:has-text('RESULT')").count() == 0
    second = opened.page.locator(ROWS).nth(1)
    second.click()
    assert "Use the word 'blue'." in opened.page.locator(".dspynb-detail ins").first.inner_text()
    shot(opened, "live-light")
    assert "RESULT 1.0 finished" in opened.wait_for_output("RESULT")
    opened.page.wait_for_selector(".dspynb-run table")
    assert opened.page.locator(".dspynb-live").count() == 0
    shot(opened, "static-light")

    saved = opened.save()
    data = saved["cells"][-1]["outputs"][0]["data"]
    assert sorted(data) == ["text/html", "text/plain"]
    assert "finished, 5 of 5 attempts, best 1" in "".join(data["text/plain"])
    lab.shut_down_kernels()
    opened.reload()
    opened.page.wait_for_selector(".dspynb-run table")
    assert opened.page.locator("text=Error displaying widget").count() == 0
    opened.page.locator(".dspynb-run summary").nth(1).click()
    assert "Use the word 'blue'." in opened.page.locator(".dspynb-run ins").first.inner_text()
    opened.page.locator(".dspynb-run summary").nth(1).scroll_into_view_if_needed()
    shot(opened, "reopened-light")
    assert opened.errors == []


def test_stop_ends_the_run_at_once_and_the_cell_returns_the_best_so_far(notebook):
    opened = notebook(AWAITED, pace=0.3, n=200)
    opened.page.evaluate("window.pwned = 0")
    opened.run_all()
    opened.page.locator(ROWS).nth(3).wait_for()
    opened.page.evaluate(
        """() => { window.words = []; new MutationObserver(() => {
            const state = document.querySelector('.dspynb-live .dspynb-state');
            if (state) window.words.push(state.textContent + ' ' + document.querySelector('.dspynb-stop').disabled);
        }).observe(document.querySelector('.dspynb-live'), {subtree: true, childList: true, characterData: true}); }"""
    )
    began = time.monotonic()
    opened.page.get_by_role("button", name="Stop", exact=True).click()
    text = opened.wait_for_output("RESULT")
    assert time.monotonic() - began < 1
    assert text.startswith("RESULT 0.5 stopped")
    assert any("stopping… true" in word for word in opened.page.evaluate("window.words"))
    opened.page.wait_for_selector(".dspynb-run table")
    assert opened.page.evaluate("window.pwned") == 0
    assert opened.errors == []


def test_a_row_is_chosen_with_the_keyboard_and_hostile_text_stays_text(lab, notebook):
    lab.theme("JupyterLab Dark")
    opened = notebook("run = refine.start(subject='the ocean')\nrun", pace=0.6, fail=1)
    opened.page.evaluate("window.pwned = 0")
    opened.run_all()
    opened.page.locator(ROWS).nth(2).wait_for()
    opened.page.locator(ROWS).first.click()
    cell = opened.page.evaluate(
        "[...document.querySelectorAll('.jp-Cell')].findIndex(c => c.matches('.jp-mod-active'))"
    )
    opened.page.keyboard.press("ArrowDown")
    opened.page.keyboard.press("ArrowDown")
    assert opened.page.locator(f"{ROWS}[aria-selected=true]").get_attribute("data-key") == (
        opened.page.locator(ROWS).nth(2).get_attribute("data-key")
    )
    assert cell == opened.page.evaluate(
        "[...document.querySelectorAll('.jp-Cell')].findIndex(c => c.matches('.jp-mod-active'))"
    )
    opened.page.locator(ROWS).nth(3).wait_for()
    assert "<img src=x" in opened.page.locator(ROWS).nth(2).inner_text()
    shot(opened, "live-dark")
    opened.page.wait_for_selector(".dspynb-run table")
    opened.page.locator(".dspynb-run summary").nth(2).click()
    assert "<img src=x" in opened.page.locator(".dspynb-run").inner_text()
    opened.page.wait_for_timeout(300)
    shot(opened, "static-dark")
    assert opened.page.evaluate("window.pwned") == 0
    assert opened.errors == []
    lab.theme("JupyterLab Light")


def test_a_second_view_and_a_page_opened_later_show_the_same_rows(lab, notebook):
    opened = notebook("run = refine.start(subject='the ocean')\nrun", "run", pace=0.4, n=60)
    opened.run_all()
    opened.page.locator(ROWS).nth(2).wait_for()
    assert opened.page.locator(".dspynb-live").count() == 2
    opened.save()
    later = lab.open(opened.page.context, opened.name)
    later.page.wait_for_selector(ROWS)
    first = ".dspynb-live:first-child tr[data-key]:nth-child(1)"
    assert later.page.locator(first).first.inner_text() == opened.page.locator(first).first.inner_text()
    later.page.get_by_role("button", name="Stop", exact=True).first.click()
    opened.page.wait_for_selector(".dspynb-run table")
    assert opened.page.locator(".dspynb-run table").count() == 2
    assert opened.errors == []
