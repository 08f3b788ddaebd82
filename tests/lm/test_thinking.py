"""Thinking in a reply is its reasoning, and never a part of the answer, a repair or a demo."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import threading
import time
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dspynb as dn
from dspynb.adapters.base import Adapter
from dspynb.errors import ParseError, ReplyTruncated
from dspynb.lm.providers.openai_format import read_reply
from dspynb.thinking import BLANK, closing_tags, split_opened, unopened_tag, visible_text
from tests.helpers import chat
from tests.lm.server import Server, reply, sse

PARIS = chat(answer="Paris")
ANSWERS = {"chat": PARIS, "json": '{"answer": "Paris"}', "prefill": " Paris"}
each_adapter = pytest.mark.parametrize("adapter", ANSWERS)
TAGS = ["think", "thinking", "thought", "reasoning", "THINK", "Thinking"]


def ask(text, signature="question -> answer", **settings):
    program = dn.Predict(signature, lm=dn.FunctionLM(lambda request: text), **settings)
    return program.run_sync(question="The capital of France?")


def recorded(prediction):
    """The reasoning in the table of calls, and the number of calls."""
    calls = prediction.run.calls
    return calls.reasoning.tolist()[-1], len(calls)


# ── where thinking may be ─────────────────────────────────────────────────────────────────────────────────────────────
@each_adapter
@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("opening", ["<{}>", "\n \ufeff<{}>", "< {} >", ""])
def test_each_adapter_reads_the_answer_after_the_thinking(adapter, tag, opening):
    prediction = ask(f"{opening.format(tag)}Lyon, no wait</{tag}>\n{ANSWERS[adapter]}", adapter=adapter)
    assert (prediction.answer, recorded(prediction)) == ("Paris", ("Lyon, no wait", 1))


@pytest.mark.parametrize(
    ("text", "reasoning"),
    [
        ("<think>a</think>\n<think>b</think>\n{}", "a\nb"),
        ("<think>a</think><thought>b</thought>{}", "a\n\nb"),
        ("<thinking>a</thinking><thought>b</thought>{}", "ab"),
        ("<think>use <think> twice</think>{}", "use <think> twice"),
        ("<think>a <think>b</think> c</think>\n{}", "a <think>b\n\nc"),
        ("<think>a</thinking>\n{}", "a"),
        ("a</think>b</think>\n{}", "a</think>b"),
        ("Well. <think>[[ ## answer ## ]]\nLyon</think>\n{}", "Well. <think>[[ ## answer ## ]]\nLyon"),
        ("<think></think>\n\n{}", None),
    ],
)
def test_all_blocks_of_thinking_are_the_reasoning(text, reasoning):
    prediction = ask(text.replace("{}", PARIS))
    assert (prediction.answer, recorded(prediction)) == ("Paris", (reasoning, 1))


WHOLE = [
    ("chat", chat(answer="Use </think> to end.")),
    ("chat", chat(answer="<think>a</think> is a block")),
    ("chat", chat(answer='{"tag": "</think> {\\"answer\\": 1}"}')),
    ("json", json.dumps({"answer": 'Use </think> and {"answer": 1}'})),
    ("json", '```json\n{"answer": "Use </think>\\n{\\"answer\\": 1}"}\n```'),
    ("prefill", " Use </think> to end."),
    ("prefill", " Write\n<think>\nhm\n</think>\nfirst."),
]


@pytest.mark.parametrize(("adapter", "text"), WHOLE)
def test_an_answer_with_tags_is_read_whole(adapter, text):
    prediction = ask(text, adapter=adapter)
    assert recorded(prediction) == (None, 1)
    assert "think>" in prediction.answer
    assert ask(f"<think>\nhm</think>\n{text}", adapter=adapter) == prediction


def test_the_outputs_of_several_fields_are_read_after_thinking():
    thinking = chat(reasoning="The tag </think> ends it.", answer="Lyon")
    text = f"{thinking}\n</think>\n{chat(reasoning='Say </think>.', answer='Paris')}"
    prediction = ask(text, "question -> reasoning, answer")
    assert (prediction.reasoning, prediction.answer) == ("Say </think>.", "Paris")


def test_the_first_of_several_outputs_of_a_prefilled_reply_may_have_a_tag():
    prediction = ask(" Use </think> to end.\nCount: 3", "question -> answer, count: int", adapter="prefill")
    assert prediction.to_dict() == {"answer": "Use </think> to end.", "count": 3}
    thinking = " Lyon\nCount: 2\nno wait</think>\n"
    prediction = ask(f"{thinking} Paris\nCount: 3", "question -> answer, count: int", adapter="prefill")
    assert (prediction.to_dict(), recorded(prediction)[0]) == (
        {"answer": "Paris", "count": 3},
        "Lyon\nCount: 2\nno wait",
    )


@each_adapter
@pytest.mark.parametrize("between", ["", " ", "\n\n"])
def test_a_closing_tag_at_the_beginning_is_dropped(adapter, between):
    prediction = ask(f"\n</think>{between}{ANSWERS[adapter]}", adapter=adapter)
    assert (prediction.answer, recorded(prediction)) == ("Paris", (None, 1))


def test_a_budget_of_tokens_counts_thinking_of_which_the_tokens_are_unknown():
    unknown = dn.Usage(calls=1, prompt_tokens=None, completion_tokens=None)
    whole = dn.LMReply(f"<think>{'x' * 4_000}</think>{PARIS}", usage=unknown)
    cut = dn.LMReply(f"<think>{'x' * 4_000}", finish="length", usage=unknown)
    for reply_or_cut in (whole, cut):
        with warnings.catch_warnings(action="ignore"), dn.Budget(tokens=100_000) as meter:
            with contextlib.suppress(ReplyTruncated):
                ask(reply_or_cut)
        assert meter.spent["tokens"] > 1_000


def test_a_value_that_cannot_be_read_after_thinking_is_repaired_without_the_thinking():
    lm = dn.ScriptedLM([f"{chat(answer='12')}\n</think>\n{chat(answer='many')}", chat(answer="13")])
    prediction = dn.Predict("question -> answer: int", lm=lm).run_sync(question="How many?")
    assert (prediction.answer, prediction.usage.calls) == (13, 2)
    assert [message["content"] for message in lm.requests[1].messages if message["role"] == "assistant"] == [
        chat(answer="many")
    ]


def test_a_reply_that_ends_within_its_thinking_is_no_answer_and_its_thinking_is_not_sent_back():
    lm = dn.ScriptedLM([f"<think>Perhaps {chat(answer='Lyon')}", PARIS])
    prediction = dn.Predict("question -> answer", lm=lm).run_sync(question="?")
    assert prediction.answer == "Paris"
    assert "Lyon" not in json.dumps([dict(message) for message in lm.requests[1].messages])
    assert "Lyon" in prediction.run.calls.reasoning[0]
    with pytest.raises(ParseError, match="ends within its thinking"):
        ask("<think>hm", adapter=dn.ChatAdapter(repair=False))


def test_tool_calls_beside_thinking_are_made():
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": '{"word": "France"}'}}
    texts = iter(["<think>Look it up.</think>", "hm</think>\nIt is known."])
    calls = iter([(call,), ()])

    class Tooled(dn.FunctionLM):
        native_tools = True

    def answer(request):
        if request.tools:
            return dn.LMReply(next(texts), next(calls))
        return chat(reasoning="x", answer="Paris")

    looked = []

    def look(word: str) -> str:
        looked.append(word)
        return "Paris"

    with dn.context(lm=Tooled(answer)):
        prediction = dn.ReAct("question -> answer", [look]).run_sync(question="?")
    assert (prediction.answer, looked) == ("Paris", ["France"])
    assert prediction.run.calls.reasoning.tolist()[:2] == ["Look it up.", "hm"]


class FirstLine(Adapter):
    """An adapter of a user, which takes any text."""

    name = "first line"

    def format_system(self, signature, instruction):
        return instruction

    def format_input(self, signature, inputs, *, instruction, hint=None):
        return str(inputs)

    def format_output(self, signature, outputs):
        return str(outputs)

    def parse(self, signature, reply):
        return {"answer": reply.strip().partition("\n")[0]}


@pytest.mark.parametrize("text", ["<think>Lyon</think>Paris\n.", "Lyon\n</think>\nParis\n."])
def test_thinking_is_removed_before_an_adapter_of_a_user_reads_the_reply(text):
    prediction = ask(text, adapter=FirstLine())
    assert (prediction.answer, recorded(prediction)) == ("Paris", ("Lyon", 1))


OTHER_TAGS = ["thinking", "thought", "reasoning"]


class Tagged(FirstLine):
    """An adapter of a user, which reads each output between tags of its name."""

    name = "tagged"

    def partial(self, signature, text):
        texts = {name: re.search(f"<{name}>([^<]*)", text) for name in signature.output_fields}
        return {name: match[1] for name, match in texts.items() if match}

    def parse(self, signature, reply):
        outputs = {}
        for name in signature.output_fields:
            match = re.search(f"<{name}>(.*?)</{name}>", reply, re.DOTALL)
            if match is None:
                raise ParseError(f"there is no <{name}>", raw=reply, field=name, stage="locate")
            outputs[name] = match[1]
        return outputs


class NamedTagged(Tagged):
    def names_outputs(self, signature):
        return True


@pytest.mark.parametrize("adapter", [Tagged, NamedTagged])
@pytest.mark.parametrize("thinking", ["", "<think>hm</think>\n", "hm</think>\n"])
@pytest.mark.parametrize("name", OTHER_TAGS)
def test_a_tag_with_the_name_of_an_output_is_no_thinking(name, thinking, adapter):
    text = f"{thinking}<{name}>because</{name}>\n<answer>Paris</answer>"
    prediction = ask(text, f"question -> {name}, answer", adapter=adapter(repair=False))
    assert prediction.to_dict() == {name: "because", "answer": "Paris"}
    assert recorded(prediction) == ("hm" if thinking else None, 1)


@pytest.mark.parametrize("name", OTHER_TAGS)
def test_a_tag_of_another_name_than_the_outputs_is_thinking_for_an_adapter_of_a_user(name):
    prediction = ask(f"<{name}>hm <answer>Lyon</answer></{name}><answer>Paris</answer>", adapter=Tagged())
    assert (prediction.answer, recorded(prediction)) == ("Paris", ("hm <answer>Lyon</answer>", 1))


def test_a_prefilled_output_may_begin_with_a_tag_of_its_name():
    text = " <reasoning>Because.</reasoning>\nAnswer: Paris"
    prediction = ask(text, "question -> reasoning, answer", adapter="prefill")
    assert prediction.to_dict() == {"reasoning": "<reasoning>Because.</reasoning>", "answer": "Paris"}


@pytest.mark.parametrize("adapter", ["chat", "json"])
def test_chain_of_thought_reads_the_answer_after_a_block_with_a_draft(adapter):
    def reply_with(answer):
        outputs = {"reasoning": "It is.", "answer": answer}
        return json.dumps(outputs) if adapter == "json" else chat(**outputs)

    text = f"<reasoning>{reply_with('Lyon')}</reasoning>\n{reply_with('Paris')}"
    program = dn.ChainOfThought("question -> answer", lm=dn.FunctionLM(lambda request: text), adapter=adapter)
    assert program.run_sync(question="?").answer == "Paris"


@pytest.mark.parametrize("closing", ["</{}>", ""])
@pytest.mark.parametrize("name", OTHER_TAGS)
def test_a_direct_call_keeps_the_tags_that_its_prompt_may_have_asked_for(name, closing):
    text = f"<{name}>because{closing.format(name)}<answer>Paris</answer>"
    direct = dn.FunctionLM(lambda request: dn.LMReply(f"<think>hm</think>\n{text}", completions=(text, text)))
    answer = direct.run_sync("?")
    assert (answer.text, answer.reasoning, answer.completions) == (text, "hm", (text, text))


# ── forms of models ──
FORMS = {
    "magistral": ("[THINK]", "[/THINK]", ""),
    "seed": ("<seed:think>", "</seed:think>", ""),
    "kimi": ("◁think▷", "◁/think▷", ""),
    "kimi k3": ("<|open|>think<|sep|>", "<|close|>think<|sep|>", ""),
    "command": ("<|START_THINKING|>", "<|END_THINKING|>\n<|START_RESPONSE|>", "<|END_RESPONSE|>"),
    "apertus": ("<|inner_prefix|>", "<|inner_suffix|>", ""),
    "gemma": ("<|channel>thought\n", "<channel|>", ""),
    "solar": ("<|think|>", "<|end|><|begin|>assistant<|content|>", "<|end|>"),
    "gpt-oss": (
        "<|channel|>analysis<|message|>",
        "<|end|><|start|>assistant<|channel|>final<|message|>",
        "<|return|>",
    ),
    "gpt-oss with its header": (
        "<|start|>assistant<|channel|>analysis<|message|>",
        "<|end|>\n<|start|>assistant<|channel|>final<|message|>",
        "<|end|>",
    ),
    "gpt-oss without tokens": ("analysis", "assistantfinal", ""),
    "granite": ("Here is my thought process:", "Here is my response:", ""),
    "apriel": ("Here are my reasoning steps:\n", "[BEGIN FINAL RESPONSE]", "\n[END FINAL RESPONSE]"),
}
PHRASES = ("gpt-oss without tokens", "granite", "apriel")
each_form = pytest.mark.parametrize("form", FORMS)


@each_form
@each_adapter
@pytest.mark.parametrize("blank", ["", "\n "])
def test_each_adapter_reads_the_answer_after_the_thinking_of_each_model(form, adapter, blank):
    opening, closing, end = FORMS[form]
    prediction = ask(f"{blank}{opening}Lyon, no wait{closing}{ANSWERS[adapter]}{end}", adapter=adapter)
    assert (prediction.answer, recorded(prediction)) == ("Paris", ("Lyon, no wait", 1))


@pytest.mark.parametrize("form", [form for form in FORMS if form not in PHRASES])
@pytest.mark.parametrize("adapter", ["chat", "json"])
def test_the_answer_is_read_where_the_prompt_begins_the_thinking_of_each_model(form, adapter):
    _, closing, end = FORMS[form]
    prediction = ask(
        f"{ANSWERS[adapter].replace('Paris', 'Lyon')} no{closing}\n{ANSWERS[adapter]}{end}", adapter=adapter
    )
    assert prediction.answer == "Paris"
    reasoning, calls = recorded(prediction)
    assert "Lyon" in reasoning
    assert calls == 1


@each_form
def test_a_direct_call_gets_the_answer_after_the_thinking_of_each_model(form):
    opening, closing, end = FORMS[form]
    text = f"{opening}Lyon, no wait{closing}\nParis{end}"
    answer = dn.FunctionLM(lambda request: text).run_sync("?")
    if form in PHRASES:  # the prompt may have asked for it
        assert (answer.text, answer.reasoning) == (text, None)
    else:
        assert (answer.text, answer.reasoning) == ("Paris", "Lyon, no wait")


@each_form
@each_adapter
def test_an_answer_with_the_marks_of_a_model_is_read_whole(form, adapter):
    opening, closing, _ = FORMS[form]
    said = f"Use {opening} and then {closing} here."
    text = {"chat": chat(answer=said), "json": json.dumps({"answer": said}), "prefill": f" {said}"}[adapter]
    prediction = ask(text, adapter=adapter)
    assert (" ".join(prediction.answer.split()), recorded(prediction)) == (" ".join(said.split()), (None, 1))
    assert dn.FunctionLM(lambda request: said).run_sync("?").text == said


@pytest.mark.parametrize(
    "text", ["analysis of it", "analysisX", "Here is my thought process: none", "[ THINK ] x", "[x"]
)
def test_a_text_that_only_looks_like_the_thinking_of_a_model_is_the_answer(text):
    assert ask(f" {text}", adapter="prefill").answer == text
    assert ask(chat(answer=text)).answer == text
    assert dn.FunctionLM(lambda request: text).run_sync("?").text == text


def test_several_channels_before_the_final_one_are_thinking():
    text = (
        "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>commentary<|message|>b<|end|>"
        f"<|start|>assistant<|channel|>final<|message|>{PARIS}<|return|>"
    )
    assert recorded(ask(text)) == ("ab", 1)
    only_final = f"<|channel|>final<|message|>{PARIS}<|return|>"
    assert ask(only_final).answer == "Paris"
    assert dn.FunctionLM(lambda request: only_final).run_sync("?").text == PARIS


@pytest.mark.parametrize("form", [form for form in FORMS if form not in PHRASES])
def test_a_reply_that_ends_within_the_thinking_of_a_model_is_no_answer(form):
    with pytest.raises(ParseError, match="ends within its thinking"):
        ask(f"{FORMS[form][0]}hm {PARIS}", adapter=dn.ChatAdapter(repair=False))


# ── from a provider ───────────────────────────────────────────────────────────────────────────────────────────────────
DETAILS = [
    {"type": "reasoning.summary", "summary": "Lyon, "},
    {"type": "reasoning.text", "text": "no wait", "signature": None},
    {"type": "reasoning.encrypted", "data": "eyJ"},
]
FIELDS = [
    {"reasoning_content": "Lyon, no wait"},
    {"reasoning": "Lyon, no wait"},
    {"thinking": "Lyon, no wait"},
    {"reasoning_details": DETAILS},
    {"reasoning": None, "reasoning_details": DETAILS},
    {"reasoning": "Lyon, no wait", "reasoning_details": DETAILS},
    {"thinking_blocks": [{"type": "thinking", "thinking": "Lyon, no wait", "signature": "x"}]},
    {"thinking_blocks": [{"type": "redacted_thinking", "data": "x"}], "reasoning": "Lyon, no wait"},
]


@pytest.mark.parametrize("fields", FIELDS)
def test_reasoning_beside_the_content_is_recorded(fields):
    with Server(lambda body, number: reply(PARIS, **fields)) as server:
        lm = dn.LM("openai/m", api_base=server.base)
        prediction = dn.Predict("question -> answer", lm=lm).run_sync(question="?")
    assert (prediction.answer, recorded(prediction)) == ("Paris", ("Lyon, no wait", 1))


@pytest.mark.parametrize("value", [12, {"a": 1}, [1], [{"text": 1}], [[["x"]]], {"text": [1]}])
@pytest.mark.parametrize("name", ["reasoning", "reasoning_details", "thinking_blocks"])
def test_reasoning_in_an_unknown_form_does_not_fail_the_reply(name, value):
    body = reply(PARIS, **{name: value})
    assert read_reply(body, "openai/m", {}).reasoning is None


def test_thinking_in_the_text_is_added_to_the_reasoning_beside_it():
    with Server(lambda body, number: reply(f"<think>b</think>{PARIS}", reasoning_content="a")) as server:
        lm = dn.LM("openai/m", api_base=server.base)
        direct = asyncio.run(lm.complete(dn.LMRequest(({"role": "user", "content": "hi"},))))
    assert (direct.text, direct.reasoning) == (PARIS, "a\n\nb")


def test_thinking_that_uses_up_the_limit_is_told_from_an_answer_that_was_cut():
    cut = dn.LMReply("<think>Let me think", finish="length", usage=dn.Usage(calls=1, completion_tokens=64))
    with pytest.raises(ReplyTruncated, match="used all 64 tokens for reasoning; raise max_tokens") as caught:
        ask(cut, max_tokens=64)
    assert (caught.value.text, caught.value.reasoning) == ("", "Let me think")
    assert dn.last_run().calls.reasoning.tolist() == ["Let me think"]
    half = dn.LMReply("<think>hm</think>The answer is Par", finish="length")
    with pytest.raises(ReplyTruncated, match=r"cut at max_tokens=8 \(raise it\); it begins: 'The answer") as caught:
        ask(half, max_tokens=8)
    assert caught.value.text == "The answer is Par"


# ── streams ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def parts_of(pieces, signature="question -> answer", **settings):
    with Server(streamed=[sse(pieces)]) as server:
        program = dn.Predict(signature, lm=dn.LM("openai/m", api_base=server.base), **settings)

        async def main():
            return [part async for part in program.stream(question="?")]

        return asyncio.run(main())


@each_adapter
def test_no_part_of_a_stream_holds_thinking_that_was_opened(adapter):
    text = f"\n<think>Lyon? {ANSWERS[adapter].replace('Paris', 'Nice')} </thi no</think>\n{ANSWERS[adapter]}"
    parts = parts_of(list(text), adapter=adapter)
    assert parts[-1].answer == "Paris"
    assert [part.text for part in parts[:-1]][-1].strip() == "Paris"
    assert "".join(part.delta for part in parts[:-1]).strip() == "Paris"


def test_the_parts_of_a_stream_hold_an_output_between_tags_of_its_name():
    text = "<think>hm</think><reasoning>because</reasoning><answer>Paris</answer>"
    parts = parts_of(list(text), signature="question -> reasoning, answer", adapter=Tagged())
    assert parts[-1].to_dict() == {"reasoning": "because", "answer": "Paris"}
    assert "".join(part.delta for part in parts[:-1] if part.field == "reasoning") == "because"


@each_adapter
def test_no_part_of_a_stream_holds_a_closing_tag_at_the_beginning(adapter):
    parts = parts_of(list(f"\n</think>\n{ANSWERS[adapter]}"), adapter=adapter)
    assert parts[-1].answer == "".join(part.delta for part in parts[:-1]).strip() == "Paris"


def shown(parts):
    """The text of each field in the last parts of a stream."""
    return {part.field: part.text.strip() for part in parts[:-1]}


@each_form
@each_adapter
@pytest.mark.parametrize("size", [1, 5])
def test_no_part_of_a_stream_holds_the_thinking_of_any_model(form, adapter, size):
    opening, closing, end = FORMS[form]
    text = f"{opening}Lyon? {ANSWERS[adapter].replace('Paris', 'Nice')} no{closing}\n{ANSWERS[adapter]}{end}"
    parts = parts_of([text[start : start + size] for start in range(0, len(text), size)], adapter=adapter)
    assert parts[-1].answer == "Paris"
    if form not in PHRASES or adapter != "prefill":
        assert shown(parts)["answer"].startswith("Paris")
    assert not any(word in part.text for part in parts[:-1] for word in ("Lyon", "Nice", "no"))


@pytest.mark.parametrize("adapter", ["chat", "json"])
@pytest.mark.parametrize("closing", ["</think>", "[/THINK]", "<|end|><|start|>assistant<|channel|>final<|message|>"])
@pytest.mark.parametrize("draft", [True, False])
def test_no_part_of_a_stream_holds_thinking_that_the_prompt_began(adapter, closing, draft):
    drafted = ANSWERS[adapter].replace("Paris", "Nice") if draft else ""
    text = f"Lyon? {drafted} no{closing}\n{ANSWERS[adapter]}"
    parts = parts_of(list(text), adapter=adapter)
    assert (parts[-1].answer, shown(parts)) == ("Paris", {"answer": "Paris"})
    assert "".join(part.delta for part in parts[:-1]).strip() == "Paris"


def test_a_stream_that_begins_with_a_draft_is_held_back_once_the_model_is_known_to_think_first():
    draft = f"{chat(answer='Nice')}\nno wait</think>\n{PARIS}"
    with Server(streamed=[sse(list(draft)) for _ in range(2)]) as server:
        program = dn.Predict("question -> answer", lm=dn.LM("openai/m", api_base=server.base, cache=False))

        async def main():
            return [part async for part in program.stream(question="?")]

        assert asyncio.run(main())[-1].answer == "Paris"
        parts = asyncio.run(main())
    assert (parts[-1].answer, shown(parts)) == ("Paris", {"answer": "Paris"})
    assert not any("Nice" in part.text for part in parts[:-1])


@pytest.mark.parametrize("adapter", ["chat", "json"])
def test_the_answer_after_an_introduction_is_shown_at_the_end_of_a_stream(adapter):
    parts = parts_of(list(f"Sure, here it is:\n{ANSWERS[adapter]}"), adapter=adapter)
    assert (parts[-1].answer, shown(parts)) == ("Paris", {"answer": "Paris"})


@pytest.mark.parametrize("adapter", ["chat", "json"])
def test_a_reply_that_begins_as_an_answer_is_shown_while_it_arrives(adapter):
    parts = parts_of(list(ANSWERS[adapter]), adapter=adapter)
    assert len(parts) > 4


def test_the_prediction_of_a_stream_has_the_reasoning():
    parts = parts_of(["Lyon</thi", "nk>\n", PARIS])
    assert (parts[-1].answer, recorded(parts[-1])) == ("Paris", ("Lyon", 1))


# ── the record ────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_reasoning_is_shown_in_the_history_and_redacted(monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "a-secret-of-the-tests-123")
    ask(f"<think>a-secret-of-the-tests-123 & more</think>{PARIS}")
    call = dn.history(1)[0]
    assert (call.reasoning, call.reply) == ("*** & more", PARIS)
    assert "── reasoning\n*** & more\n── reply\n" in repr(dn.history(1))
    assert "*** &amp; more" in dn.history(1)._repr_html_()


def test_reasoning_is_in_replays_but_in_no_demo():
    rows = [{"question": "?", "answer": "Paris"}]
    program = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: f"Lyon\n</think>\n{PARIS}"))
    with dn.trace() as trace:
        program.run_sync(question="?")
    replayed = dn.run_sync(lambda: dn.replay(trace, program))
    assert (replayed.prediction.answer, replayed.prediction.meta.calls[0].reasoning) == ("Paris", "Lyon")
    better = dn.BootstrapFewShot(dn.metrics.exact_match()).compile_sync(program, rows)
    assert better.demos == [{"question": "?", "answer": "Paris"}]


def test_a_recording_has_the_reasoning(tmp_path):
    path = tmp_path / "replies.jsonl"
    lm = dn.FunctionLM(lambda request: f"<think>Lyon</think>{PARIS}")
    dn.Predict("question -> answer", lm=dn.recorded(path, lm=lm)).run_sync(question="?")
    again = dn.Predict("question -> answer", lm=dn.recorded(path)).run_sync(question="?")
    assert (again.answer, recorded(again)) == ("Paris", ("Lyon", 1))


# ── any text ──────────────────────────────────────────────────────────────────────────────────────────────────────────
PIECES = st.one_of(
    st.sampled_from([f"<{tag}>" for tag in TAGS] + [f"</{tag}>" for tag in TAGS]),
    st.sampled_from(["<", ">", "</", "think", "< think >", "\n", " ", "{", "}", '"', "[[ ## answer ## ]]", PARIS]),
    st.text(max_size=5),
)
TEXTS = st.lists(PIECES, max_size=12).map("".join)


TAG = re.compile(r"< ?/?(?:think|thinking|thought|reasoning) ?>", re.IGNORECASE)


@given(TEXTS)
def test_splitting_loses_no_character_but_tags(text):
    signature = dn.Predict("question -> answer").signature
    adapters = [dn.ChatAdapter(), dn.JSONAdapter(), dn.PrefillAdapter(), FirstLine()]
    splits = [split_opened(text), *(adapter.split_thinking(signature, text) for adapter in adapters)]
    for split in splits:
        assert text.endswith(split.text)
        rest = text.removesuffix(split.text) if split.text else text
        assert TAG.sub("", rest) == TAG.sub("", split.thinking)
        assert split.thinking or TAG.fullmatch(rest) or not TAG.search(rest) or not TAG.sub("", rest)


ONE_TAG = st.lists(st.sampled_from(["<think>", "</think>", "<", "x", " ", "\n", "/"]), max_size=12).map("".join)


@given(ONE_TAG)
def test_what_a_stream_has_shown_is_never_taken_back(text):
    whole = visible_text(text).lstrip(BLANK)
    for end in range(len(text)):
        assert whole.startswith(visible_text(text[:end]).strip(BLANK))


UNITS = ["<think>", "</think>", "<think></think>", "<think></thought>", "</think>\n", "<", "</", "< / think", "{", "\n"]


@pytest.mark.parametrize("start", ["", "\n", "x"])
@pytest.mark.parametrize(
    "unit", [*UNITS, "<thinking></think><think>", '{"a": "</think>"}', "[[ ## answer ## ]]\n</think>"]
)
def test_the_time_grows_linearly_with_the_length_of_the_reply(start, unit):
    signature = dn.Predict("question -> answer").signature

    def seconds(count):
        text = start * count + unit * count
        started = time.process_time()
        for adapter in (dn.ChatAdapter(), dn.JSONAdapter(), dn.PrefillAdapter()):
            adapter.split_thinking(signature, text)
        closing_tags(text, 8)
        unopened_tag(text)
        visible_text(text)
        return time.process_time() - started

    short = min(seconds(5_000) for _ in range(3))
    assert seconds(80_000) < 16 * 8 * short + 0.5  # a quadratic time would be 256 times as long


@pytest.mark.parametrize(("length", "on_the_loop"), [(1_000, True), (2_000_000, False)])
def test_a_reply_of_megabytes_is_read_in_a_thread(length, on_the_loop):
    threads = []

    class Watched(FirstLine):
        def parse(self, signature, reply):
            threads.append(threading.current_thread())
            return super().parse(signature, reply)

    async def main():
        prediction = await dn.Predict("question -> answer", lm=lm, adapter=Watched())(question="?")
        return prediction, threading.current_thread()

    lm = dn.FunctionLM(lambda request: "<think>x</think>" + "y" * length)
    prediction, loop_thread = dn.run_sync(main)
    assert prediction.answer == "y" * length
    assert [thread is loop_thread for thread in threads] == [on_the_loop]


@pytest.mark.parametrize("error", [ParseError("no", raw="", stage="locate"), SystemExit(3), KeyError("x")])
def test_the_errors_of_an_adapter_are_the_same_in_a_thread(error):
    class Failing(FirstLine):
        def parse(self, signature, reply):
            raise error

    kinds = []
    for length in (10, 2_000_000):
        with pytest.raises(Exception) as caught:  # noqa: PT011
            ask("y" * length, adapter=Failing(repair=False))
        kinds.append(type(caught.value))
    assert kinds[0] is kinds[1]
