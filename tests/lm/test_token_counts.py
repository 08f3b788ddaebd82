"""Tokens of OpenAI's models are counted with the vocabularies in litellm's folder, without a download."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import subprocess
import sys

import pytest

import dspynb as dn
from dspynb.lm.cost_bounds import MESSAGE_TOKENS, PROMPT_TOKENS, most_prompt_tokens
from dspynb.lm.protocol import LMRequest
from dspynb.lm.token_counts import token_counter
from tests.cases.providers import model
from tests.helpers import chat
from tests.lm.server import Server, reply

pytestmark = pytest.mark.skipif(importlib.util.find_spec("litellm") is None, reason="the vocabularies are litellm's")
TEXTS = [
    "",
    "Hello, world!",
    "Donaudampfschifffahrt",
    "日本語のテキスト",
    "\n\n   def f(x):\n        return x",
    "a" * 5_000,
]


@pytest.mark.parametrize("name", ["openai/gpt-4.1-mini", "openai/gpt-5-mini", "openai/o3", "openrouter/openai/gpt-4o"])
@pytest.mark.parametrize("text", TEXTS)
def test_the_tokens_of_a_text_are_those_of_the_models_tokenizer(name, text):
    count = token_counter(name)
    number = count(text)
    assert (number == 0) == (text == "")
    assert number <= len(text.encode())


@pytest.mark.parametrize("name", ["openai/my-model", "anthropic/claude-haiku-4-5", "gpt-4.1-mini", "ollama/gpt-4.1"])
def test_other_models_have_no_exact_number(name):
    count = token_counter(name)
    assert count is None or count("Hello") is None


def test_texts_that_cannot_be_counted_quickly_have_a_token_for_each_byte():
    request = LMRequest(({"role": "user", "content": "x" * 300_000},))
    most = most_prompt_tokens(request, token_counter("openai/gpt-4.1-mini"))
    assert most == 300_000 + PROMPT_TOKENS + MESSAGE_TOKENS


def test_halves_of_surrogate_pairs_are_counted():
    assert 1 <= token_counter("openai/gpt-4.1-mini")("\ud800") <= 3


def test_the_folder_of_the_user_stays_set_and_litellm_is_not_imported(tmp_path):
    code = (
        "import sys; from dspynb.lm.token_counts import token_counter; "
        "assert token_counter('openai/gpt-4.1-mini')('Hello') == 1; "
        "import os; assert os.environ['TIKTOKEN_CACHE_DIR'] == sys.argv[1] and 'litellm' not in sys.modules"
    )
    folder = str(tmp_path)
    subprocess.run([sys.executable, "-c", code, folder], check=True, env={**os.environ, "TIKTOKEN_CACHE_DIR": folder})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "least", "most"), [("openai/gpt-4.1-mini", 6, 7), ("openai/my-model", 1, 4)])
def test_more_calls_fit_into_a_budget_where_the_tokens_of_prompts_are_exact(name, least, most):
    async def main(program):
        calls = (program(question=f"What is the colour of the sky on day {number}?") for number in range(20))
        return await asyncio.gather(*calls, return_exceptions=True)

    body = {**reply(chat(answer="4")), "usage": {"prompt_tokens": 150, "completion_tokens": 50}}
    with Server(lambda request, number: body) as server, dn.Budget(tokens=1_400) as meter:
        dn.run_sync(lambda: main(dn.Predict("question -> answer", lm=model(server, name, max_tokens=50))))
    assert least <= len(server.bodies) <= most
    assert meter.spent["tokens"] <= 1_400
