"""The name that is sent to a server, the errors about it, and the errors about missing keys."""

from __future__ import annotations

import asyncio

import pytest

import dspynb as dn
from dspynb import errors
from dspynb.lm.providers import model_names
from dspynb.lm.providers.addresses import missing_key, provider_of_host, unset_key
from dspynb.lm.providers.model_names import known_providers, parse_name
from tests.lm.server import Server

KEY = "a-key-of-the-tests-0123456789"
REQUEST = dn.LMRequest(({"role": "user", "content": "the prompt"},))
NAMES = [
    ("openai/gpt-oss-20b", "gpt-oss-20b"),
    ("openai/openai/gpt-oss-20b", "openai/gpt-oss-20b"),
    ("hosted_vllm/Qwen/Qwen3-8B", "Qwen/Qwen3-8B"),
    ("ollama/llama3.2:1b", "llama3.2:1b"),
    ("azure/my-deployment", "my-deployment"),
    ("mistral/mistral-small-latest", "mistral-small-latest"),
    ("litellm_proxy/openai/gpt-4.1-mini", "openai/gpt-4.1-mini"),
    ("Qwen/Qwen3-8B", "Qwen/Qwen3-8B"),
    ("mistralai/Mistral-7B-v0.3", "mistralai/Mistral-7B-v0.3"),
    ("meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B-Instruct"),
    ("Mistral/m", "Mistral/m"),
    ("my-model", "my-model"),
    ("/models/Qwen3-8B", "/models/Qwen3-8B"),
    ("openai//models/Qwen3-8B", "/models/Qwen3-8B"),
]


def ask(lm):
    return asyncio.run(lm.complete(REQUEST))


def not_found(body, number):
    from aiohttp import web

    message = f"The model `{body['model']}` does not exist."
    return web.json_response({"object": "error", "message": message, "type": "NotFoundError", "code": 404}, status=404)


def failure(lm, kind=errors.ModelError):
    with pytest.raises(kind) as caught:
        ask(lm)
    return caught.value


# ── names ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(("name", "sent"), NAMES)
def test_a_known_provider_is_removed_once_and_any_other_name_is_sent_whole(name, sent):
    with Server(lambda body, number: "hello") as server:
        ask(dn.LM(name, api_base=server.base, engine="direct"))
    assert server.bodies[0]["model"] == sent


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of litellm itself
@pytest.mark.parametrize(("name", "sent"), [NAMES[0], NAMES[1], NAMES[2], NAMES[7], NAMES[11]])
def test_the_same_names_are_sent_through_litellm(name, sent):
    with Server(lambda body, number: "hello") as server:
        ask(dn.LM(name, api_base=server.base, api_key=KEY, engine="litellm", retries=0))
    assert server.bodies[0]["model"] == sent


def test_without_an_address_the_first_part_is_the_provider():
    assert parse_name("Qwen/Qwen3-8B", has_address=False) == ("Qwen", "Qwen3-8B")


@pytest.mark.parametrize("name", ["", " ", "openai/", 5, None])
def test_a_name_that_no_server_can_have_is_an_error(name):
    with pytest.raises(errors.ConfigurationError, match="provider/model"):
        dn.LM(name, api_base="http://127.0.0.1:1/v1")


def test_a_name_without_provider_and_address_is_an_error_that_names_the_way_out():
    with pytest.raises(errors.ConfigurationError, match="api_base="):
        dn.LM("my-model")


def test_the_providers_of_litellm_are_known_without_importing_it(monkeypatch):
    assert {"openai", "hosted_vllm", "ollama", "azure", "mistral", "litellm_proxy"} <= known_providers()
    assert {"Qwen", "meta-llama", "mistralai", "deepseek-ai", "google", "microsoft"}.isdisjoint(known_providers())
    assert len(known_providers()) > 100
    known_providers.cache_clear()
    monkeypatch.setattr(model_names, "litellm_file", lambda name: None)
    assert {"openai", "hosted_vllm", "ollama", "azure", "mistral", "litellm_proxy"} <= known_providers()
    known_providers.cache_clear()


@pytest.mark.parametrize(
    ("name", "sent", "way_out"),
    [
        ("openai/gpt-oss-20b", "'gpt-oss-20b'", "dn.LM('openai/openai/gpt-oss-20b', api_base=…)"),
        ("acme/m", "'acme/m'", "dn.LM('openai/m', api_base=…)"),
        ("my-model", "'my-model'", "GET …/v1/models"),
    ],
)
def test_the_error_for_an_unknown_model_has_the_name_that_was_sent_and_the_way_out(name, sent, way_out):
    with Server(not_found) as server:
        problem = failure(dn.LM(name, api_base=server.base), errors.ModelNotFound)
    assert f"the name that was sent is {sent}" in str(problem)
    assert way_out in str(problem)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of litellm itself
def test_the_error_for_an_unknown_model_through_litellm_has_the_name_that_was_sent():
    with Server(not_found) as server:
        lm = dn.LM("openai/gpt-oss-20b", api_base=server.base, api_key=KEY, engine="litellm", retries=0)
        problem = failure(lm, errors.ModelNotFound)
    assert "the name that was sent is 'gpt-oss-20b'" in str(problem)


def test_a_wrong_path_gives_the_advice_to_check_the_address():
    with Server(lambda body, number: "hello") as server:
        problem = failure(dn.LM("openai/m", api_base=server.base.replace("/v1", "/v2")))
    assert type(problem) is errors.BadRequestError
    assert "api_base=" in str(problem)


def test_the_cache_key_has_the_whole_name():
    base = "http://127.0.0.1:1/v1"
    keys = [dn.LM(name, api_base=base)._key(REQUEST, {}) for name in ("openai/m", "hosted_vllm/m", "m")]
    assert len(set(keys)) == 3


# ── keys ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.fixture
def no_keys(monkeypatch):
    """No key or address of a provider in the environment."""
    import os

    for name in list(os.environ):
        if name.endswith(("_API_KEY", "_API_BASE", "_BASE_URL", "_TOKEN")):
            monkeypatch.delenv(name)


def test_no_key_is_looked_up_for_an_unknown_first_part(monkeypatch, no_keys):
    with Server(lambda body, number: "hello") as server:
        monkeypatch.setenv("QWEN_API_KEY", KEY)
        monkeypatch.setenv("QWEN_API_BASE", server.base)
        ask(dn.LM("Qwen/Qwen3-8B", api_base=server.base))
    assert "Authorization" not in server.headers[0]


@pytest.mark.parametrize(
    ("name", "settings", "variable"),
    [
        ("openai/gpt-4.1-mini", {}, "OPENAI_API_KEY"),
        ("mistral/m", {"api_base": "https://api.mistral.ai/v1"}, "MISTRAL_API_KEY"),
        ("openai/deepseek-chat", {"api_base": "https://api.deepseek.com"}, "DEEPSEEK_API_KEY"),
        ("Qwen/Qwen3-8B", {"api_base": "https://router.huggingface.co/v1"}, "HUGGINGFACE_API_KEY"),
        ("gemini/m", {"api_base": "https://generativelanguage.googleapis.com/v1beta/openai"}, "GEMINI_API_KEY"),
    ],
)
def test_a_missing_key_is_reported_before_anything_is_sent(monkeypatch, no_keys, name, settings, variable):
    import aiohttp

    monkeypatch.setattr(aiohttp.ClientSession, "post", lambda *args, **keywords: pytest.fail("a request was sent"))
    problem = failure(dn.LM(name, **settings), errors.AuthenticationError)
    assert f"set {variable} in the environment" in str(problem)
    assert "nothing was sent" in str(problem)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of litellm itself
@pytest.mark.parametrize(("name", "variable"), [("anthropic/m", "ANTHROPIC_API_KEY"), ("groq/m", "GROQ_API_KEY")])
def test_a_missing_key_is_reported_before_litellm_is_called(no_keys, name, variable):
    problem = failure(dn.LM(name, retries=0), errors.AuthenticationError)
    assert f"set {variable} in the environment" in str(problem)
    assert "nothing was sent" in str(problem)


def test_a_header_with_a_key_or_an_address_with_a_login_is_enough(no_keys):
    problem = errors.AuthenticationError
    for settings in (
        {"extra_headers": {"x-api-key": KEY}},
        {"extra_headers": {"Authorization": f"Bearer {KEY}"}},
    ):
        engine = dn.LM("openai/m", **settings)._engine
        engine._check_key(engine.url, settings["extra_headers"])
    engine = dn.LM("openai/m", api_base="https://me:password@api.openai.com/v1")._engine
    engine._check_key(engine.url, {})
    with pytest.raises(problem):
        engine._check_key("https://api.openai.com/v1", {"x-trace": "1"})


def test_a_server_at_another_address_needs_no_key(no_keys):
    with Server(lambda body, number: "hello") as server:
        assert ask(dn.LM("openai/m", api_base=server.base)).text == "hello"
    assert "Authorization" not in server.headers[0]


def test_a_provider_at_an_address_in_the_environment_needs_no_key(monkeypatch, no_keys):
    with Server(lambda body, number: "hello") as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base)
        assert ask(dn.LM("openai/m")).text == "hello"
    monkeypatch.setenv("ANTHROPIC_API_BASE", server.base)
    assert unset_key("anthropic") is None


@pytest.mark.parametrize(
    ("url", "provider"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("https://eu.api.openai.com/v1", "openai"),
        ("https://bedrock-runtime.us-east-1.amazonaws.com", "bedrock"),
        ("http://api.openai.com/v1", None),
        ("https://api.openai.com.example.com/v1", None),
        ("http://127.0.0.1:8000/v1", None),
    ],
)
def test_the_hosts_that_need_a_key_are_known(url, provider):
    assert provider_of_host(url) == provider
    assert (missing_key("openai", url) is None) == (provider is None)


@pytest.mark.parametrize("provider", ["ollama", "hosted_vllm", "bedrock", "vertex_ai", "azure", "unknown"])
def test_no_key_is_demanded_of_providers_that_may_have_other_credentials_or_none(no_keys, provider):
    assert unset_key(provider) is None


@pytest.mark.parametrize(
    ("provider", "variable"),
    [("huggingface", "HF_TOKEN"), ("together_ai", "TOGETHERAI_API_KEY"), ("gemini", "GOOGLE_API_KEY")],
)
def test_a_key_in_another_variable_of_the_provider_counts(monkeypatch, no_keys, provider, variable):
    assert unset_key(provider) is not None
    monkeypatch.setenv(variable, KEY)
    assert unset_key(provider) is None
