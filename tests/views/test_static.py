"""Static HTML and text show the whole run, and let nothing that a model wrote become markup."""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser

import pytest

from dspynb.events import AttemptEnded, AttemptStarted, RunEnded, RunStarted, SpanStarted
from dspynb.results import Fold
from dspynb.views import static_html
from dspynb.views.text import summary
from tests.views.fakes import HOSTILE, a_batch, a_refine, an_attempt


class Tags(HTMLParser):
    """All tags and attributes of a page, and whether it is well formed."""

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


OUR_TAGS = {"div", "style", "b", "span", "table", "thead", "tbody", "tr", "th", "td", "br", "i", "details", "summary"}
OUR_TAGS |= {"pre", "ins", "del"}
OUR_ATTRIBUTES = {"class", "style", "colspan", "scope", "title"}


@pytest.mark.parametrize(
    "events", [a_refine(3, text=HOSTILE, hint=HOSTILE), a_batch(3, failing={1}, text=HOSTILE)], ids=["refine", "batch"]
)
def test_hostile_text_stays_text(events):
    page = static_html(Fold(events), path=HOSTILE)
    seen = Tags(page)
    assert seen.tags <= OUR_TAGS
    assert seen.attributes <= OUR_ATTRIBUTES
    assert HOSTILE[:28] in "".join(seen.text)
    page.encode()


def test_the_runs_file_is_told_from_the_working_folder_where_it_lies_in_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inside, outside = tmp_path / ".dspynb" / "a.jsonl", tmp_path.parent / "b.jsonl"
    assert ">.dspynb/a.jsonl<" in static_html(Fold(a_refine(1)), path=str(inside))
    assert f">{outside}<" in static_html(Fold(a_refine(1)), path=str(outside))


def test_each_attempt_has_its_hint_score_outputs_feedback_and_cost():
    page = static_html(Fold(a_refine(2, text="The sea.", hint="Name the colour.")))
    for part in ("✓ finished", "2 attempts", "best 1", "2 calls", "14 tokens", "3.0 s", "Name the colour.", "The sea.",
                 "+0.5", "★", "1.00"):  # fmt: skip
        assert part in page, part


def test_the_prompt_difference_is_told_word_by_word():
    page = static_html(Fold(a_refine(2, hint="Name the colour.")))
    assert "<summary>prompt sent</summary>" in page
    assert "+4 −0 words</summary>" in page
    assert "<ins> Hint: Name the colour.</ins>" in page


def test_a_batch_shows_rows_in_order_with_errors_and_late_failures():
    page = static_html(Fold(a_batch(1000, failing={900})))
    assert "1,000 of 1000 rows, 1 failed" in page
    assert "201 of 1,000 rows are shown" in page
    assert "ParseError: a sentence" in page
    assert page.count("dspynb-row'") == 201


def test_a_run_of_single_calls_shows_the_calls():
    calls = [e for e in a_refine(2) if type(e).__name__ == "PredictorCalled"]
    page = static_html(
        Fold([RunStarted(span=1, kind="call", name="Program"), *calls, RunEnded(span=1, status="failed")])
    )
    assert "✕ failed" in page
    assert page.count("dspynb-row'") == 2


def test_a_run_without_anything_in_it_is_shown():
    for events in ([], [RunStarted(span=1, kind="refine", name="Refine")]):
        assert "<table" not in static_html(Fold(events))
        assert summary(Fold(events))


def test_long_text_is_cut_and_says_by_how_much():
    page = static_html(Fold(a_refine(1, text="x" * 50_000)))
    assert "[48,000 more characters]" in page
    assert len(page) < 30_000


def test_only_the_search_that_is_asked_for_is_shown():
    run = [RunStarted(span=1, kind="call", name="Program")]
    for search in (2, 3):
        run += [SpanStarted(span=search, parent=1, kind="search", name="Refine")]
        run += an_attempt(search, 1, text=f"of search {search}")
    assert "of search 2" not in static_html(Fold(run), search=3)
    both = static_html(Fold(run))
    assert "of search 2" in both
    assert "<b>2.1</b>" in both


def test_attempts_inside_attempts_are_left_to_them():
    run = [RunStarted(span=1, kind="refine", name="Refine"), AttemptStarted(span=5, parent=2, attempt=1, wave=1)]
    run += [SpanStarted(span=6, parent=5, kind="search", name="inner"), *an_attempt(6, 1, text="inner words")]
    run += [AttemptEnded(span=5, parent=2, state="scored", outputs={"sentence": "outer words"}, score=1.0)]
    page = static_html(Fold(run))
    assert page.count("dspynb-row'") == 1
    assert "outer words" in page


def test_negative_and_large_scores_fit_their_bars():
    run = [RunStarted(span=1, kind="refine", name="Refine"), SpanStarted(span=2, parent=1, kind="search", name="R")]
    for number, score in enumerate((-20.0, 100.0, 40.0), start=1):
        run += an_attempt(2, number, score=score)
    page = static_html(Fold(run))
    assert "width:0%" in page
    assert "width:100%" in page
    assert "width:50%" in page


def test_an_output_whose_repr_fails_does_not_hide_the_rest():
    class Rude:
        def __repr__(self):
            raise RuntimeError("no")

    events = list(a_refine(2))
    ended = next(i for i, e in enumerate(events) if isinstance(e, AttemptEnded))
    span = events[ended].span
    events[ended] = AttemptEnded(span=span, state="scored", outputs={"sentence": Rude()}, score=0.1)
    assert "Rude without a repr" in static_html(Fold(events))


def test_the_text_is_the_same_whatever_the_times_and_ids():
    first, second = (summary(Fold(a_refine(3, text="The sea."))) for _ in range(2))
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
        "import sys, dspynb.views.static; "
        "assert not {'anywidget', 'ipywidgets', 'IPython', 'traitlets', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
