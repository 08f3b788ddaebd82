"""The live view in a real JupyterLab and Notebook 7: rows while a cell awaits, Stop, and actions on rows."""

from __future__ import annotations

import time

import pytest

ROWS = ".dspynb-view .dspynb-body .dspynb-line[data-key]"
SELECTED = f"{ROWS}[aria-selected=true]"
STILL = ".dspynb[data-on]"
AWAITED = """prediction = await {}
print("RESULT", prediction.score.value, dn.last_run().status)"""


def labels(opened):
    return [line.split()[0] for line in opened.page.locator(f"{ROWS} .dspynb-name-of b").all_inner_texts()]


def test_rows_appear_while_the_cell_awaits_and_a_saved_view_remains(lab, notebook, shot):
    opened = notebook(AWAITED.format("refine(pace=1.0, fail=2)(subject='the ocean')"))
    opened.run_all()
    opened.page.locator(ROWS).nth(3).wait_for()
    assert opened.page.locator(".jp-OutputArea-output:has-text('RESULT')").count() == 0
    opened.page.locator(ROWS).nth(1).click()
    assert "Use the word 'blue'." in opened.page.locator(".dspynb-detail ins").first.inner_text()
    shot(opened, "live-light")
    assert "RESULT 1.0 finished" in opened.wait_for_output("RESULT")
    opened.page.wait_for_selector(STILL)

    saved = opened.save()
    data = saved["cells"][-1]["outputs"][0]["data"]
    assert sorted(data) == ["text/html", "text/plain"]
    assert "finished, 5 of 5 attempts, best 1" in "".join(data["text/plain"])
    lab.shut_down_kernels()
    opened.reload()
    opened.page.wait_for_selector(STILL)
    assert opened.page.locator("text=Error displaying widget").count() == 0
    opened.page.locator(ROWS).nth(1).click()
    assert "Use the word 'blue'." in opened.page.locator(".dspynb-detail ins").first.inner_text()
    opened.page.get_by_role("button", name="side by side").click()
    assert opened.page.locator(".dspynb-sides").count() == 1
    opened.page.locator(".dspynb-compare select").select_option(label="attempt 5 ★")
    assert opened.page.locator(".dspynb-detail del").count() > 0
    shot(opened, "reopened-light")
    assert opened.errors == []


@pytest.mark.parametrize("how", ["mouse", "keyboard"])
def test_stop_ends_the_run_at_once_and_the_cell_returns_the_best_so_far(notebook, how):
    opened = notebook(AWAITED.format("refine(pace=0.3, n=200)(subject='the ocean')"))
    opened.run_all()
    opened.page.locator(ROWS).nth(3).wait_for()
    stop = opened.page.get_by_role("button", name="Stop", exact=True)
    began = time.monotonic()
    if how == "mouse":
        stop.click()
    else:
        stop.focus()
        opened.page.keyboard.press("Enter")
    text = opened.wait_for_output("RESULT")
    assert time.monotonic() - began < 20  # the run takes 60 s
    assert text.startswith("RESULT 0.5 stopped")
    opened.page.wait_for_selector(STILL)
    assert opened.page.evaluate("window.pwned") == 0
    assert opened.errors == []


def test_rows_are_chosen_with_the_keyboard_and_the_notebook_keeps_its_own(lab, notebook, shot):
    lab.theme("JupyterLab Dark")
    opened = notebook("run = refine(pace=0.6, fail=1).start(subject='the ocean')\nrun")
    opened.run_all()
    opened.page.locator(ROWS).nth(2).wait_for()
    opened.page.locator(ROWS).first.click()
    active = "[...document.querySelectorAll('.jp-Cell')].findIndex(c => c.matches('.jp-mod-active'))"
    cell = opened.page.evaluate(active)
    opened.page.locator(".dspynb-grid").focus()
    opened.page.keyboard.press("ArrowDown")
    opened.page.keyboard.press("ArrowDown")
    third = opened.page.locator(ROWS).nth(2)
    assert opened.page.locator(SELECTED).get_attribute("data-key") == third.get_attribute("data-key")
    grid = opened.page.locator(".dspynb-grid")
    assert grid.get_attribute("aria-activedescendant") == third.get_attribute("id")
    assert cell == opened.page.evaluate(active)
    opened.page.locator(ROWS).nth(3).wait_for()
    assert "<img src=x" in third.inner_text()
    shot(opened, "live-dark")
    opened.page.wait_for_selector(STILL)
    opened.page.wait_for_timeout(300)
    shot(opened, "still-dark")
    assert opened.page.evaluate("window.pwned") == 0
    assert opened.errors == []
    lab.theme("JupyterLab Light")


def test_a_second_view_and_a_page_opened_later_show_the_same_rows(lab, notebook):
    opened = notebook("run = refine(pace=0.4, n=60).start(subject='the ocean')\nrun", "run")
    opened.run_all()
    opened.page.locator(".dspynb-view").nth(1).wait_for()
    opened.page.locator(ROWS).nth(2).wait_for()
    opened.save()
    later = lab.open(opened.page.context, opened.name)
    later.page.wait_for_selector(ROWS)
    for page in (later.page, opened.page):
        page.locator(".dspynb-grid").first.focus()
        page.keyboard.press("Home")
    first = later.page.locator(ROWS).first
    assert first.inner_text().startswith("1\n")
    assert first.inner_text() == opened.page.locator(ROWS).first.inner_text()
    later.page.locator(".dspynb-detail pre").first.wait_for()
    later.page.get_by_role("button", name="Stop", exact=True).first.click()
    opened.page.wait_for_selector(STILL)
    assert opened.page.locator(STILL).count() == 2
    assert opened.errors == []


def test_rows_of_an_evaluation_are_sorted_filtered_and_opened(notebook, shot):
    opened = notebook(
        "result = await dn.evaluate(refine(pace=0.01), SUBJECTS * 20, reward)\nprint('RESULT')\nresult.run"
    )
    opened.run_all()
    opened.wait_for_output("RESULT")
    page = opened.page
    page.wait_for_selector(STILL)
    assert page.locator(".dspynb-grid").first.get_attribute("aria-rowcount") == "241"
    assert page.locator(ROWS).count() < 60  # only what is in sight is on the page
    page.locator(".dspynb-sort").filter(has_text="#").first.click()
    assert labels(opened)[:2] == ["239", "238"]
    page.locator(".dspynb-sort").filter(has_text="subject").first.click()
    assert "cloud" in page.locator(ROWS).first.inner_text()
    assert page.get_by_role("columnheader").filter(has_text="subject").first.get_attribute("aria-sort") == "ascending"
    page.get_by_label("show only rows with this text").first.fill("whale")
    assert page.locator(".dspynb-count").first.inner_text() == "20 of 240"
    page.get_by_label("show only rows in this state").first.select_option("done")
    assert page.locator(".dspynb-count").first.inner_text() == "20 of 240"
    page.locator(".dspynb-twist").first.click()
    inside = page.locator(f"{ROWS}[aria-level='2']")
    assert inside.count() == 5
    inside.nth(1).click()
    assert "attempt 2" in page.locator(".dspynb-detail .dspynb-title").first.inner_text()
    shot(opened, "evaluation-light")
    assert opened.errors == []


def test_attempts_inside_a_row_appear_while_it_runs(notebook):
    opened = notebook("run = dn.Evaluate(reward, concurrency=2).start(refine(pace=0.4), SUBJECTS[:4])\nrun")
    opened.run_all()
    opened.page.locator(".dspynb-twist").first.click()
    opened.page.locator(f"{ROWS}[aria-level='2']").nth(2).wait_for()
    assert opened.page.locator(STILL).count() == 0
    opened.page.get_by_role("button", name="Stop", exact=True).click()
    opened.page.wait_for_selector(STILL)
    assert opened.errors == []


def test_an_optimizer_shows_its_candidates_and_their_lineage(notebook, shot):
    opened = notebook(
        "program = await optimizer(steps=150).compile(dn.Predict(Caption, lm=writer(0.02)), SUBJECTS)\nprint('RESULT')"
    )
    opened.run_all()
    opened.page.locator(ROWS).nth(2).wait_for()
    opened.wait_for_output("RESULT")
    opened.page.wait_for_selector(STILL)
    opened.page.get_by_role("button", name="lineage").click()
    point = opened.page.locator(".dspynb-lineage .dspynb-point").nth(1)
    point.click()
    assert opened.page.locator(".dspynb-detail .dspynb-title").inner_text() == "candidate c1"
    assert "1 words" in opened.page.locator(".dspynb-detail ins").first.inner_text()
    shot(opened, "candidates-light")
    assert opened.errors == []


def test_clearing_an_output_does_not_disturb_the_run(notebook):
    opened = notebook(
        "run = refine(pace=0.3, n=12).start(subject='the ocean')\nrun",
        "prediction = await run\nprint('RESULT', prediction.score.value, run.status)",
    )
    opened.run_all()
    opened.page.locator(ROWS).nth(2).wait_for()
    opened.page.click('.lm-MenuBar-itemLabel:text-is("Edit")')
    opened.page.click('.lm-Menu-itemLabel:text-is("Clear Outputs of All Cells")')
    opened.page.locator(ROWS).first.wait_for(state="detached")
    assert opened.wait_for_output("RESULT").startswith("RESULT 0.5 finished")
    assert opened.errors == []


def test_notebook_7_shows_the_same(classic, classic_notebook, shot):
    opened = classic_notebook(AWAITED.format("refine(pace=0.5)(subject='the ocean')"))
    its_own = set(opened.errors)
    opened.run_all()
    opened.page.locator(ROWS).nth(2).wait_for()
    opened.page.get_by_role("button", name="Stop", exact=True).click()
    assert "stopped" in opened.wait_for_output("RESULT")
    opened.page.wait_for_selector(STILL)
    shot(opened, "notebook-7")
    opened.save()
    classic.shut_down_kernels()
    opened.reload()
    opened.page.wait_for_selector(STILL)
    assert set(opened.errors) <= its_own


def test_thinking_is_folded_while_it_is_written_and_stays_open(notebook, shot):
    opened = notebook("prediction = await refine(lm=Thinker(pace=0.4), n=2)(subject='the ocean')\nprint('RESULT')")
    opened.run_all()
    folded = opened.page.locator(".dspynb-detail .dspynb-folded")
    opened.page.locator(f"{ROWS} .dspynb-live:has-text('thinking · ')").first.wait_for()
    folded.locator("summary .dspynb-live:has-text('The ocean')").wait_for()
    assert not folded.locator("pre").is_visible()
    folded.locator("summary").click()
    folded.locator("pre:has-text('I need')").wait_for()
    shot(opened, "thinking-light")
    opened.page.locator(ROWS).nth(1).wait_for()
    folded.locator("pre:has-text('wide.')").wait_for()  # that of the next attempt, open too
    assert "Hint" in opened.page.locator(".dspynb-detail ins").first.inner_text()
    opened.wait_for_output("RESULT")
    opened.page.wait_for_selector(STILL)
    reasoning, record = opened.page.locator(f"{STILL} .dspynb-folded").all()
    assert reasoning.locator("summary").inner_text() == "self · reasoning · 12 tokens"
    reasoning.locator("summary").click()
    assert reasoning.locator("pre").inner_text().endswith("I need few words. And blue.")
    assert record.locator("summary").inner_text() == "self · request"
    assert not record.locator("pre").is_visible()
    assert opened.page.evaluate("window.pwned") == 0
    assert opened.errors == []
