"""litellm's real proxy in front of a real llama.cpp server with the embedded model, called over HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Literal

import pytest

import dspynb as dn
from dspynb import errors
from dspynb.contrib.doctor.model_checks import MODEL_CHECKS
from tests.lm.llama_cpp_server import llama_cpp_server
from tests.lm.proxy import proxy

pytest.importorskip("xllamacpp")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
ROOT = Path(__file__).parent.parent.parent
KEY = "sk-proxy-0123456789"
QUESTION = {"question": "What is the capital of France?"}
MAX_TOKENS = 100
"""The limit of each reply. Some replies of the small model are cut there."""


@pytest.fixture(scope="module")
def llama():
    with llama_cpp_server() as server:
        yield server.base


@pytest.fixture(scope="module")
def address(llama):
    server = {"api_base": llama, "api_key": "none"}
    # litellm checks the settings of a model by its name; llama.cpp has one model, and ignores the name.
    models = {"smollm2": {"model": "openai/smollm2", **server}, "reasoning": {"model": "openai/o3-mini", **server}}
    with proxy(models, KEY) as address:
        yield address


@pytest.fixture
def lm(address):
    return dn.LM("openai/smollm2", api_base=address, api_key=KEY, cache=False, max_tokens=300)


class Review(dn.Signature):
    """Judge the review."""

    text: str = dn.Input()
    mood: Literal["good", "bad"] = dn.Output()
    stars: int = dn.Output(ge=1, le=5)


def test_typed_outputs_are_held_to_their_schema(lm):
    prediction = dn.Predict(Review, lm=lm, adapter="json").run_sync(text="I liked it.")
    assert prediction.mood in ("good", "bad")
    assert prediction.stars in range(1, 6)
    assert prediction.usage.tokens > 0


def test_a_stream_ends_with_the_prediction(lm):
    describe = dn.Predict("subject -> sentence", lm=lm, adapter="json")

    async def main():
        return [part async for part in describe.stream(subject="the ocean")]

    *parts, prediction = asyncio.run(main())
    assert len(parts) > 1
    assert parts[-1].text == prediction.sentence
    assert prediction.usage.tokens > 0


def test_a_parameter_that_the_proxy_refuses_is_adapted(address):
    proxied = {"api_base": address, "api_key": KEY, "cache": False, "max_tokens": 60, "temperature": 0.7}
    lm = dn.LM("openai/reasoning", truncated="accept", **proxied)
    with warnings.catch_warnings(record=True) as caught:  # the reply may be cut, which is a warning too
        warnings.simplefilter("always")
        reply = lm.run_sync("Say ok.")
    assert reply.text
    assert reply.sent == {"max_tokens": 60}
    adapted = [str(warning.message) for warning in caught if warning.category is errors.ModelAdaptedWarning]
    assert len(adapted) == 1
    assert "temperature=0.7 was left out: allowed is 1 only" in adapted[0]


def test_a_parameter_that_the_proxy_refuses_is_an_error_in_strict_mode(address):
    lm = dn.LM("openai/reasoning", api_base=address, api_key=KEY, cache=False, temperature=0.7, strict=True)
    with pytest.raises(errors.UnsupportedParameter, match=r"litellm\.UnsupportedParamsError: .*temperature") as caught:
        lm.run_sync("Say ok.")
    assert caught.value.parameter == "temperature"


@pytest.mark.parametrize("key", ["sk-wrong-0123456789", "wrong-0123456789"])
def test_a_wrong_key_is_an_authentication_error(address, key):
    lm = dn.LM("openai/smollm2", api_base=address, api_key=key, cache=False)
    with pytest.raises(errors.AuthenticationError, match="No connected db") as caught:
        lm.run_sync("Say ok.")
    assert key not in str(caught.value)


def test_a_model_that_the_proxy_does_not_have_is_named(address):
    lm = dn.LM("openai/missing", api_base=address, api_key=KEY, cache=False)
    with pytest.raises(errors.ModelNotFound, match="Invalid model name passed in model=missing") as caught:
        lm.run_sync("Say ok.")
    assert "the name that was sent is 'missing'" in str(caught.value)


def test_a_prompt_that_is_too_long_is_recognized(lm):
    with pytest.raises(errors.ContextTooLong, match="exceeds the available context size"):
        lm.run_sync("word " * 9000)


def test_a_budget_holds(lm):
    ask = dn.Predict("question -> answer", lm=lm, adapter="json")
    with dn.Budget(calls=1) as meter:
        ask.run_sync(**QUESTION)
        with pytest.raises(errors.BudgetExhausted):
            ask.run_sync(question="What is the capital of Norway?")
    assert meter.spent["calls"] == 1


def test_the_doctor_checks_a_model_as_a_user_would(address, tmp_path):
    command = [sys.executable, "-m", "dspynb", "doctor", "--live", "openai/smollm2", "--api-base", address]
    options = ["--adapter", "json", "--max-tokens", str(MAX_TOKENS), "--api-key-env", "PROXY_KEY", "--json"]
    done = subprocess.run(
        [*command, *options],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PROXY_KEY": KEY},
        capture_output=True,
        encoding="utf-8",
        timeout=500,
        check=False,
    )
    report = json.loads(done.stdout)
    outcomes = {check["name"]: check["outcome"] for check in report["checks"]}
    details = {check["name"]: check["detail"] for check in report["checks"]}
    assert list(outcomes) == ["first reply", *[check.name for check in MODEL_CHECKS]]
    assert set(outcomes.values()) <= {"works", "reply not usable"}, details
    assert list(outcomes.values()).count("works") >= 5, details
    assert done.returncode == 0
    assert report["tokens"] > 0
    assert report["usd"] == 0
    assert len(done.stderr.splitlines()) == len(MODEL_CHECKS)
    assert KEY not in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []
