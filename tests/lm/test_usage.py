"""Usage of any type: a count that is no number is unknown in tables, files, views and budgets."""

from __future__ import annotations

import asyncio
import math
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dspynb as dn
from dspynb.data import Usage, is_sound, usage_of
from dspynb.events import from_json, to_json
from dspynb.lm.cache import ReplyCache
from dspynb.lm.cost_bounds import most_prompt_tokens
from dspynb.lm.providers.openai_format import read_reply, read_usage
from dspynb.running.journal import flush_journals
from dspynb.running.otel.attributes import call_attributes as otel_of
from dspynb.views.html.static import static_html
from dspynb.views.terminal.progress import Progress
from dspynb.views.view_model import ViewModel
from tests.helpers import Caption, chat
from tests.lm.server import Server, reply, sse

ODD = ["12", math.nan, math.inf, -math.inf, 2**63, -1, True, [12], {"a": 1}, "lots", None, 1.5, 10**30]
UNKNOWN = Usage(1, None, None, None, None, None)


@pytest.mark.parametrize("value", ODD, ids=repr)
def test_an_invalid_number_of_tokens_is_unknown(value):
    used = read_usage({"prompt_tokens": value, "completion_tokens": 3}, "openai/gpt-4.1-mini")
    assert (used.prompt_tokens, used.completion_tokens, used.tokens, used.usd) == (None, 3, None, None)
    if value is not None:
        details = {"prompt_tokens": 5, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": value}}
        used = read_usage(details, "openai/gpt-4.1-mini")
        assert (used.tokens, used.cached_tokens, used.usd) == (8, None, None)


@pytest.mark.parametrize("used", [*ODD, [], "", 0])
def test_an_invalid_usage_is_unknown(used):
    usage_read = read_usage(used, "openai/gpt-4.1-mini")
    assert (usage_read.calls, usage_read.tokens, usage_read.usd) == (1, None, None)


def test_a_usage_with_numbers_is_known_and_priced():
    used = read_usage({"prompt_tokens": 12.0, "completion_tokens": 3}, "openai/gpt-4.1-mini")
    assert (used.prompt_tokens, type(used.prompt_tokens), used.tokens) == (12, int, 15)
    assert used.cached_tokens == used.reasoning_tokens == 0
    assert used.usd > 0


def test_unknown_plus_anything_is_unknown():
    total = Usage(1, 5, 5) + UNKNOWN + Usage(1, 5, 5)
    assert (total.calls, total.tokens, total.prompt_tokens, total.cached_tokens) == (3, None, None, None)
    assert UNKNOWN.as_cached().tokens is None
    assert sum([Usage(1, 1, 1), Usage(1, 2, 2)], Usage()).tokens == 6


def test_a_reply_of_a_double_keeps_its_zero_tokens():
    assert dn.LMReply("x").usage.tokens == 0
    run = dn.Predict("q -> a", lm=dn.ScriptedLM(["a: 1"])).run_sync(q="1").run
    assert run.usage.tokens == 0
    assert run.calls.tokens.dtype == "int64"


def unknown_lm(usage=UNKNOWN):
    return dn.FunctionLM(lambda request: dn.LMReply(chat(sentence="blue"), usage=usage))


def half_known():
    """A call of 10 tokens, then a call with unknown usage."""
    return dn.ScriptedLM(
        [dn.LMReply(chat(sentence="a"), usage=Usage(1, 7, 3)), dn.LMReply(chat(sentence="b"), usage=UNKNOWN)]
    )


def test_unknown_tokens_are_missing_in_every_table():
    async def main():
        return await dn.evaluate(
            dn.BestOfN(dn.Predict(Caption, lm=half_known()), lambda *_: 0.5, n=2),
            [{"subject": "x"}],
            lambda row, prediction: 1.0,
        )

    done = asyncio.run(main())
    run = done.run
    assert run.calls.tokens.tolist() == run.attempts.tokens.tolist() == [10, pd.NA]
    assert run.calls.tokens.dtype == run.attempts.tokens.dtype == "Int64"
    assert run.calls.tokens.sum() == 10
    assert run.rollouts.tokens.isna().all()
    assert run.rollouts.tokens.dtype == "Int64"
    assert run.usage.tokens is None
    assert "unknown tokens" in done.summary()
    assert done.table.tokens.isna().all()


def test_unknown_tokens_show_in_views_files_history_and_comparisons(tmp_path):
    program = dn.Predict(Caption, lm=half_known())

    async def main():
        return await program.batch([{"subject": "x"}, {"subject": "y"}], concurrency=1)

    asyncio.run(main())
    run = dn.last_run()
    flush_journals()
    reopened = dn.open_run(run.path)
    for any_run in (run, reopened):
        assert any_run.usage.tokens is None
        assert any_run.calls.tokens.tolist() == [10, pd.NA]
        assert "unknown tokens" in any_run._repr_html_()
        assert repr(any_run)
    run.save_html(tmp_path / "run.html")
    assert "unknown tokens" in (tmp_path / "run.html").read_text()
    assert "unknown tokens" in str(dn.history(1))

    async def compared():
        return await dn.compare(
            {
                "a": dn.Predict(Caption, lm=unknown_lm()),
                "b": dn.Predict(
                    Caption, lm=dn.FunctionLM(lambda request: dn.LMReply(chat(sentence="x"), usage=Usage(1, 7, 3)))
                ),
            },
            [{"subject": "x"}],
            lambda *_: 1.0,
        )

    table = asyncio.run(compared()).table
    assert table.tokens.tolist() == [pd.NA, 10]


def test_the_line_of_a_terminal_says_that_tokens_are_unknown():
    program = dn.Predict(Caption, lm=unknown_lm())
    progress = Progress(ViewModel(program.run_sync(subject="x").run.record))
    progress.update()
    assert progress.record.usage.tokens is None
    assert "unknown tokens" in [fact.text for fact in progress.costs()]


def test_a_trace_exports_only_the_numbers_that_are_known():
    with dn.trace() as trace:
        dn.Predict(Caption, lm=unknown_lm()).run_sync(subject="x")
    assert all(span.usage.tokens is None for span in trace.spans)
    assert trace.table().tokens.isna().all()
    assert "unknown tokens" in trace.tree()
    assert len(trace.calls) == 1
    for call in trace.calls:
        assert "gen_ai.usage.input_tokens" not in dict(otel_of(call))


def test_a_plot_against_unknown_tokens_says_so():
    opt = dn.BootstrapRandomSearch(lambda row, prediction: 1.0, num_candidates=1)
    rows = [{"subject": str(i), "sentence": "x"} for i in range(3)]
    opt.compile_sync(dn.Predict(Caption, lm=unknown_lm()), rows, val=rows[:0] or [{"subject": "v", "sentence": "x"}])
    run = dn.last_run()
    assert run.candidates.tokens.isna().any()
    assert run.candidates.tokens.dtype == run.history.tokens.dtype == "Int64"
    assert run.summary
    with pytest.raises(dn.errors.InputError, match="number of tokens of some of the run's calls is unknown"):
        run.plot("pareto", x="tokens")


def test_a_stream_without_usage_is_of_unknown_usage():
    async def main(lm):
        return [part async for part in dn.Predict(Caption, lm=lm).stream(subject="x")][-1]

    with Server(streamed=[sse([chat(sentence="x")])]) as server:
        last = asyncio.run(main(dn.LM("openai/gpt-4.1-mini", api_base=server.base)))
    assert (last.usage.calls, last.usage.tokens, last.usage.usd) == (1, None, None)


@pytest.mark.parametrize(
    "usage", [None, "lots", {"prompt_tokens": "12"}, {"prompt_tokens": math.nan}, Usage(1, "12", 2**63)]
)
def test_a_model_of_the_users_own_may_report_anything_as_usage(usage):
    class Own:
        async def complete(self, request):
            return dn.LMReply(chat(sentence="x"), usage=usage)

    asyncio.run(_batch(dn.Predict(Caption, lm=Own())))
    run = dn.last_run()
    flush_journals()
    assert (run.usage.calls, run.usage.tokens) == (1, None)
    assert run.calls.tokens.isna().all()
    assert dn.open_run(run.path).usage == run.usage


@pytest.mark.parametrize("usage", [Usage(calls=None), Usage(calls="2"), Usage(1, retries=None), Usage(calls=math.nan)])
def test_calls_and_retries_that_are_no_numbers_break_no_run(usage):
    program = dn.Predict(Caption, lm=unknown_lm(usage))
    with dn.Budget(calls=2, tokens=1_000_000) as meter:
        asyncio.run(_batch(program))
    run = dn.last_run()
    flush_journals()
    assert type(run.usage.calls) is type(run.usage.retries) is int
    assert meter.spent["calls"] == 1
    assert dn.open_run(run.path).usage == run.usage


def test_numbers_of_numpy_are_numbers():
    used = usage_of(Usage(1, np.int64(5), np.int32(2)))
    assert (used.tokens, type(used.prompt_tokens)) == (7, int)
    assert is_sound(used)


def test_any_usage_in_an_older_cache_or_file_is_read(tmp_path):
    cache = ReplyCache(tmp_path / "c.sqlite")
    cache.put("k", dn.LMReply("x", usage=Usage(1, "12", math.nan)))
    cache.flush()
    assert asyncio.run(cache.get("k")).usage.tokens is None
    run = dn.Predict(Caption, lm=unknown_lm()).run_sync(subject="x").run
    call = next(event for event in run.record.events if hasattr(event, "usage"))
    whole = to_json(call)
    whole["usage"] |= {"prompt_tokens": "12", "completion_tokens": [], "usd": "free", "of_a_later_version": 1}
    assert from_json(whole).usage == Usage(1, None, None, None, None, None, call.usage.seconds)


# ── any usage ─────────────────────────────────────────────────────────────────────────────────────────────────────────
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from([2**63, 2**31, 12.0, "12"]),
)
NAMES = ["prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "completion_tokens_details"]
DETAILS = st.fixed_dictionaries({}, optional=dict.fromkeys(("cached_tokens", "reasoning_tokens"), VALUES))
USAGES = (
    VALUES | st.lists(VALUES, max_size=2) | st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, VALUES | DETAILS))
)


class Odd:
    """A model that returns the replies in response bodies."""

    name = "openai/gpt-4.1-mini"

    def __init__(self, usages):
        self.bodies = [{**reply(chat(sentence="x")), "usage": usage} for usage in usages]

    async def complete(self, request):
        return read_reply(self.bodies.pop(), self.name, {})


def is_a_number_or_missing(value):
    return value is None or (type(value) is int and value >= 0)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(USAGES, min_size=2, max_size=2))
def test_any_usage_breaks_no_run_table_view_or_file(usages):
    with tempfile.TemporaryDirectory() as folder, dn.context(runs_dir=folder):
        program = dn.BestOfN(dn.Predict(Caption, lm=Odd(usages)), lambda *_: 0.5, n=2)
        asyncio.run(_batch(program))
        run = dn.last_run()
        flush_journals()
        for any_run in (run, dn.open_run(run.path)):
            assert all(is_a_number_or_missing(value) for value in (any_run.usage.tokens, any_run.usage.prompt_tokens))
            assert str(any_run.calls.tokens.dtype) in ("int64", "Int64")
            assert any_run.calls.tokens.dropna().ge(0).all()
            assert len(any_run.attempts) == 2
            assert repr(any_run)
            assert any_run._repr_html_()
            assert any_run.calls.to_html()
        assert not list(Path(folder).glob("*.tmp"))


async def _calls(program, limit):
    """The results of consecutive calls, up to the first exception."""
    results = []
    while len(results) < limit and not (results and isinstance(results[-1], Exception)):
        results += await asyncio.gather(program(subject="x"), return_exceptions=True)
    return results


async def _batch(program):
    return await program.batch([{"subject": "x"}])


@pytest.mark.parametrize(
    "used", ["lots", {"prompt_tokens": "12"}, {"prompt_tokens": 2**63, "completion_tokens": 1}, None]
)
def test_any_usage_of_a_server_breaks_no_run(used):
    with Server(lambda body, n: {**reply(chat(sentence="x")), "usage": used}) as server:
        program = dn.Predict(Caption, lm=dn.LM("openai/gpt-4.1-mini", api_base=server.base))
        done = asyncio.run(_batch(program))
    assert done[0].usage.tokens is None
    assert done[0].usage.usd is None
    assert dn.last_run().calls.tokens.tolist() == [pd.NA]


# ── budgets ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_budget_of_tokens_counts_an_estimate_for_unknown_usage_and_says_so_once():
    program = dn.Predict(Caption, lm=unknown_lm())
    with dn.Budget(tokens=1_000) as meter, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        results = dn.run_sync(lambda: _calls(program, 100))
    assert isinstance(results[-1], dn.BudgetExhausted)
    warnings_of_usage = [w for w in caught if w.category is dn.UsageUnknownWarning]
    assert len(warnings_of_usage) == 1
    request = dn.history(1)[0]
    letters = sum(len(message["content"]) for message in request.messages) + len(request.reply)
    tokens_per_call = -(-letters // 4)
    largest_prompt = most_prompt_tokens(dn.LMRequest(request.messages))
    calls = (1_000 - largest_prompt) // tokens_per_call + 1  # each while the rest covers its prompt
    assert (meter.spent["calls"], meter.spent["tokens"], meter.estimated) == (
        calls,
        calls * tokens_per_call,
        calls * tokens_per_call,
    )
    assert f"{calls * tokens_per_call} of the tokens are estimated" in repr(meter)


def test_a_small_budget_of_tokens_ends_an_evaluation_whose_provider_reports_nothing():
    async def main():
        with pytest.warns(dn.UsageUnknownWarning):
            return await dn.evaluate(
                dn.Predict(Caption, lm=unknown_lm()),
                [{"subject": str(i)} for i in range(50)],
                lambda *_: 1.0,
                budget=dn.Budget(tokens=600),
                concurrency=1,
            )

    done = asyncio.run(main())
    assert done.run.status == "exhausted"
    assert len(done) == 1


def test_known_tokens_are_counted_as_they_are_and_a_budget_of_calls_does_not_warn():
    with dn.Budget(tokens=1_000) as meter:
        dn.Predict(Caption, lm=unknown_lm(Usage(1, 7, 3))).run_sync(subject="x")
    assert (meter.spent["tokens"], meter.estimated) == (10, 0)
    with dn.Budget(calls=10) as meter:
        dn.Predict(Caption, lm=unknown_lm()).run_sync(subject="x")
    assert meter.estimated > 0


def test_static_html_of_a_run_has_no_none():
    run = dn.Predict(Caption, lm=unknown_lm()).run_sync(subject="x").run
    assert "None" not in static_html(run.record)
    assert "unknown tokens" in static_html(run.record)
