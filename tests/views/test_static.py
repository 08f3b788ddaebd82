"""Static HTML and text show the whole run, and let nothing that a model wrote become markup."""

from __future__ import annotations

import json
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from dspynb.events import AttemptEnded, AttemptStarted, RunEnded, RunStarted, SpanStarted
from dspynb.running.record import RunRecord
from dspynb.views.html.static import static_html
from dspynb.views.terminal.text import summary
from tests.views.fakes import HOSTILE, a_batch, a_refine, an_attempt


def script_data(page):
    """The data of the page's script."""
    return json.loads(page.rpartition("\nstill(")[2].partition(", ")[2].removesuffix(");</script>"))


class Tags(HTMLParser):
    """The tags, attributes and texts of a page. Fails if the page is not well formed."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.text, self._open = set(), set(), [], []
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag != "br":
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


OUR_TAGS = {"div", "style", "b", "span", "table", "thead", "tbody", "tr", "th", "td", "br", "i", "script"}
OUR_ATTRIBUTES = {"class", "scope", "title", "data-run", "type"}


@pytest.mark.parametrize(
    "events", [a_refine(3, text=HOSTILE, hint=HOSTILE), a_batch(3, failing={1}, text=HOSTILE)], ids=["refine", "batch"]
)
def test_hostile_text_stays_text(events):
    page = static_html(RunRecord(events), path=HOSTILE)
    parsed = Tags(page)
    assert parsed.tags <= OUR_TAGS
    assert parsed.attributes <= OUR_ATTRIBUTES
    assert HOSTILE[:28] in "".join(parsed.text)
    assert page.count("<script") == page.count("</script") == 1
    assert HOSTILE[:28] in str(script_data(page))
    page.encode()


def test_the_path_of_a_file_in_the_working_folder_is_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inside, outside = tmp_path / ".dspynb" / "a.jsonl", tmp_path.parent / "b.jsonl"
    assert ">.dspynb/a.jsonl<" in static_html(RunRecord(a_refine(1)), path=str(inside))
    assert f">{outside}<" in static_html(RunRecord(a_refine(1)), path=str(outside))


def test_each_attempt_has_its_hint_score_outputs_feedback_and_cost():
    page = static_html(RunRecord(a_refine(2, text="The sea.", hint="Name the colour.")))
    for part in ("✓ finished", "2 attempts", "best 1", "2 calls", "14 tokens", "3.0 s", "Name the colour.", "The sea.",
                 "+0.5", "★", "1.00"):  # fmt: skip
        assert part in page, part


def test_the_prompts_that_were_sent_are_in_the_page_each_text_once():
    data = script_data(static_html(RunRecord(a_refine(30, hint="Name the colour."))))
    assert data["texts"] == ["Write. Hint: Name the colour.", "a sentence", "Write."]
    first, last = (data["details"][row["key"]] for row in (data["rows"][0], data["rows"][-1]))
    assert [data["texts"][block["text"]] for block in first["blocks"]] == ["Write.", "a sentence"]
    assert [data["texts"][block["text"]] for block in last["blocks"]] == ["Write. Hint: Name the colour.", "a sentence"]


def test_rows_inside_rows_are_in_the_page():
    run = [RunStarted(span=1, kind="evaluate", name="Refine", inputs={"rows": 1})]
    run += [SpanStarted(span=2, parent=1, kind="row", name="row 0", row=0)]
    run += [SpanStarted(span=3, parent=2, kind="search", name="Refine"), *an_attempt(3, 1), *an_attempt(3, 2)]
    rows = script_data(static_html(RunRecord(run)))["rows"]
    assert [(row["label"], row.get("up"), row.get("kids")) for row in rows] == [
        ("0", None, 2), ("1", "2", None), ("2", "2", None)
    ]  # fmt: skip


@pytest.mark.parametrize("events", [a_batch(10_000, text="a sentence " * 40), a_refine(2_000, text="x" * 100_000)])
def test_a_page_stays_below_a_size_and_says_what_it_left_out(events):
    page = static_html(RunRecord(events), path="runs/a.jsonl")
    assert len(page) < 1_500_000
    assert len(page.split("<script")[1]) < 500_000
    assert (
        any("rows are in this page" in note for note in script_data(page)["header"]["notes"])
        or len(script_data(page)["details"]) < 2000
    )


def test_a_batch_shows_rows_in_order_with_errors_and_late_failures():
    page = static_html(RunRecord(a_batch(1000, failing={900})))
    assert "1,000 of 1,000 rows, 1 failed" in page
    assert "201 of 1,000 rows are shown" in page
    assert "ParseError: a sentence" in page
    assert page.count("dspynb-row'") == 201


def test_a_run_of_single_calls_shows_the_calls():
    calls = [e for e in a_refine(2) if type(e).__name__ == "PredictorCalled"]
    page = static_html(
        RunRecord([RunStarted(span=1, kind="call", name="Program"), *calls, RunEnded(span=1, status="failed")])
    )
    assert "✕ failed" in page
    assert page.count("dspynb-row'") == 2


def test_a_run_without_anything_in_it_is_shown():
    for events in ([], [RunStarted(span=1, kind="refine", name="Refine")]):
        assert "<table" not in static_html(RunRecord(events))
        assert summary(RunRecord(events))


def test_long_text_is_cut_and_says_by_how_much():
    page = static_html(RunRecord(a_refine(1, text="x" * 50_000)))
    assert "[48,000 more characters]" in page.split("<script")[0]
    assert "[30,000 more characters]" in page.split("<script")[1]


def test_only_the_selected_search_is_shown():
    run = [RunStarted(span=1, kind="call", name="Program")]
    for search in (2, 3):
        run += [SpanStarted(span=search, parent=1, kind="search", name="Refine")]
        run += an_attempt(search, 1, text=f"of search {search}")
    assert "of search 2" not in static_html(RunRecord(run), search=3)
    both = static_html(RunRecord(run))
    assert "of search 2" in both
    assert "<b>2.1</b>" in both


def test_attempts_inside_attempts_are_not_outermost_rows():
    run = [RunStarted(span=1, kind="refine", name="Refine"), AttemptStarted(span=5, parent=2, attempt=1, wave=1)]
    run += [SpanStarted(span=6, parent=5, kind="search", name="inner"), *an_attempt(6, 1, text="inner words")]
    run += [AttemptEnded(span=5, parent=2, state="scored", outputs={"sentence": "outer words"}, score=1.0)]
    page = static_html(RunRecord(run))
    assert page.count("dspynb-row'") == 1
    assert "outer words" in page


def test_the_score_bars_extend_to_all_scores():
    run = [RunStarted(span=1, kind="refine", name="Refine"), SpanStarted(span=2, parent=1, kind="search", name="R")]
    for number, score in enumerate((-20.0, 100.0, 40.0), start=1):
        run += an_attempt(2, number, score=score)
    header = script_data(static_html(RunRecord(run)))["header"]
    assert (header["low"], header["high"]) == (-20, 100)


def test_an_output_whose_repr_fails_does_not_hide_the_rest():
    class Rude:
        def __repr__(self):
            raise RuntimeError("no")

    events = list(a_refine(2))
    ended = next(i for i, e in enumerate(events) if isinstance(e, AttemptEnded))
    span = events[ended].span
    events[ended] = AttemptEnded(span=span, state="scored", outputs={"sentence": Rude()}, score=0.1)
    assert "Rude without a repr" in static_html(RunRecord(events))


def test_the_text_is_independent_of_times_and_ids():
    first, second = (summary(RunRecord(a_refine(3, text="The sea."))) for _ in range(2))
    assert first == second
    assert first.splitlines() == [
        "Refine(The sea.): finished, 3 attempts, best 1",
        "#   state   score   hint      sentence",
        "1   scored  0.3333  –         The sea.",
        "2   scored  0.6667  be brief  The sea.",
        "3*  scored  1       be brief  The sea.",
    ]


def test_static_html_needs_no_notebook():
    code = (
        "import sys, dspynb.views.html.static; "
        "assert not {'anywidget', 'ipywidgets', 'IPython', 'traitlets', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
