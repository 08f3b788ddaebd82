"""Actions of a person in the view control the run."""

from __future__ import annotations

from tests.browser.test_live_view import AWAITED, ROWS, SELECTED, STILL


def test_a_typed_hint_is_in_the_prompt_of_the_next_attempt(notebook, shot):
    opened = notebook(AWAITED.format("refine(n=40, lm=echo(0.5))(subject='the ocean')"))
    opened.run_all()
    opened.page.locator(ROWS).nth(1).wait_for()
    opened.page.get_by_role("textbox", name="hint").fill("Speak of <b>whales</b>.")
    opened.page.keyboard.press("Enter")
    opened.page.locator(f"{ROWS}:has(.dspynb-by)").wait_for()
    shot(opened, "hint-light")
    line = opened.page.locator(f"{ROWS}:has(.dspynb-by)")
    line.click()
    assert "person" in line.inner_text()
    opened.page.locator(".dspynb-detail ins").first.wait_for()
    assert "Speak of <b>whales</b>." in opened.page.locator(".dspynb-detail pre").first.inner_text()
    opened.page.get_by_role("button", name="Stop", exact=True).click()
    opened.wait_for_output("RESULT")
    opened.page.wait_for_selector(STILL)
    assert opened.page.locator(f"{ROWS}:has(.dspynb-by)").count() >= 1
    assert opened.errors == []


def test_pause_stops_the_progress_and_continue_resumes_it(notebook):
    opened = notebook(AWAITED.format("refine(pace=0.2, n=300)(subject='the ocean')"))
    opened.run_all()
    opened.page.locator(ROWS).nth(2).wait_for()
    opened.page.get_by_role("button", name="Pause").click()
    opened.page.locator(".dspynb-paused").wait_for()
    opened.page.wait_for_timeout(600)
    progress = opened.page.locator(".dspynb-progress").inner_text()
    opened.page.wait_for_timeout(800)
    assert opened.page.locator(".dspynb-progress").inner_text() == progress
    opened.page.get_by_role("button", name="Continue").click()
    opened.page.wait_for_timeout(1200)
    assert opened.page.locator(".dspynb-progress").inner_text() != progress
    opened.page.get_by_role("button", name="Stop", exact=True).click()
    opened.wait_for_output("RESULT")
    assert opened.errors == []


def test_an_edited_instruction_becomes_a_candidate_and_can_be_pinned(notebook, shot):
    opened = notebook(
        "run = optimizer(pace=0.3, steps=3000).start(dn.Predict(Caption, lm=echo(0.05)), SUBJECTS)\nrun",
        "program = await run\nprint('RESULT', program.named_predictors()[0][1].instruction)",
    )
    opened.run_all()
    page = opened.page
    page.locator(ROWS).nth(1).wait_for()
    page.locator(ROWS).first.click()
    page.get_by_role("button", name="Edit…").click()
    page.locator(".dspynb-detail textarea").fill("Say that it is blue.")
    page.get_by_role("button", name="Propose").click()
    line = page.locator(f"{ROWS}:has(.dspynb-by)").first
    line.wait_for()
    if page.locator(".dspynb-tools").is_visible():
        page.get_by_label("show only rows with this text").fill("person")
        page.wait_for_function(
            f"document.querySelectorAll('{ROWS}').length === 1"
        )  # otherwise the click could hit another row
    line.click()
    selected = page.locator(f"{ROWS}[aria-selected=true]")
    selected.filter(has_text="Say that it is blue.").wait_for()
    page.get_by_role("button", name="Pin").click()
    page.locator(f"{ROWS} .dspynb-by:text-is('pinned')").wait_for()
    shot(opened, "proposed-light")
    page.get_by_role("button", name="Stop", exact=True).click()
    assert "RESULT Say that it is blue." in opened.wait_for_output("RESULT")
    assert opened.errors == []


def test_a_pressed_row_stays_under_the_pointer_until_it_is_released(notebook):
    opened = notebook("run = refine(pace=0.2, n=300).start(subject='the ocean')\nrun")
    opened.run_all()
    page = opened.page
    page.locator(".dspynb-tools").wait_for()
    page.evaluate(
        "document.querySelector('.dspynb-body').addEventListener('pointerdown',"
        " (e) => (window.pressed = e.target.closest('[data-key]').dataset.key))"
    )
    for _ in range(3):
        page.get_by_label("follow the latest").check()
        at = page.locator(".dspynb-grid").bounding_box()
        page.mouse.move(at["x"] + 300, at["y"] + 150)
        page.mouse.down()
        page.wait_for_timeout(1000)  # without the press, the table would have scrolled
        page.mouse.up()
        page.wait_for_timeout(200)
        assert page.locator(SELECTED).get_attribute("data-key") == page.evaluate("window.pressed")
    known = page.locator(".dspynb-grid").get_attribute("aria-rowcount")
    page.locator(f".dspynb-grid:not([aria-rowcount='{known}'])").wait_for()  # the view is updated again
    page.get_by_role("button", name="Stop", exact=True).click()
    page.wait_for_selector(STILL)
    assert opened.errors == []


def test_a_refusal_of_the_run_is_shown_in_the_view(notebook):
    opened = notebook("run = optimizer(pace=0.3, steps=3000).start(dn.Predict(Caption, lm=echo(0.05)), SUBJECTS)\nrun")
    opened.run_all()
    opened.page.locator(ROWS).first.wait_for()
    opened.page.get_by_role("button", name="Budget…").click()
    opened.page.get_by_label("rollouts").fill("-3")
    opened.page.get_by_role("button", name="Set").click()
    opened.page.get_by_role("alert").filter(has_text="above 0").or_(
        opened.page.get_by_role("alert").filter(has_text="at least 1")
    ).wait_for()
    opened.page.get_by_role("button", name="Stop", exact=True).click()
    opened.page.wait_for_selector(STILL)
    assert opened.errors == []
