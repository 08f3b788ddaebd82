"""The wire format of a model chooses its client: OpenAI's format directly, a provider's own format through litellm."""

from __future__ import annotations

import asyncio
import json
import pickle

import pytest

import dspynb as dn
from dspynb import errors
from dspynb.lm.providers.addresses import is_own_host
from dspynb.lm.providers.wire_formats import format_of
from tests.lm.recording_server import recording_server
from tests.lm.server import Server, reply

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # raised by litellm itself

ENVIRONMENT = "environment-key-0123456789"
GIVEN = "given-key-0123456789"
LOOPBACK = "http://127.0.0.1:8000"


def ask(lm, content="the prompt", **settings):
    return asyncio.run(lm.complete(dn.LMRequest(({"role": "user", "content": content},), settings)))


# ── the choice ────────────────────────────────────────────────────────────────────────────────────────────────────────
OWN = ["anthropic", "azure", "azure_ai", "bedrock", "codestral", "cohere", "cohere_chat", "gemini", "mistral", "ollama"]
OWN += ["ollama_chat", "sagemaker", "snowflake", "text-completion-openai", "vertex_ai", "watsonx"]
COMPATIBLE = ["cerebras", "custom_openai", "databricks", "deepinfra", "deepseek", "fireworks_ai", "groq", "hosted_vllm"]
COMPATIBLE += ["huggingface", "litellm_proxy", "llamafile", "lm_studio", "moonshot", "nvidia_nim", "openai"]
COMPATIBLE += ["openrouter", "perplexity", "sambanova", "together_ai", "vllm", "xai", "xinference", "zai"]
COMPATIBLE += ["Qwen", "meta-llama", "mistralai", "my-company"]


@pytest.mark.parametrize("provider", OWN)
def test_a_provider_with_a_format_of_its_own_is_called_in_it_also_at_an_address(provider):
    assert format_of(f"{provider}/m", LOOPBACK) == format_of(f"{provider}/m", None) == "litellm"
    assert dn.LM(f"{provider}/m", api_base=LOOPBACK).profile.wire_format == "litellm"


@pytest.mark.parametrize("provider", COMPATIBLE)
def test_a_provider_that_speaks_the_format_of_openai_is_called_directly_at_an_address(provider):
    assert format_of(f"{provider}/m", f"{LOOPBACK}/v1") == "openai_chat"
    assert dn.LM(f"{provider}/m", api_base=f"{LOOPBACK}/v1").profile.wire_format == "openai_chat"


def test_a_name_without_a_provider_is_called_directly_at_an_address():
    assert dn.LM("my-model", api_base=LOOPBACK).profile.wire_format == "openai_chat"


@pytest.mark.parametrize(
    ("name", "base", "wire_format"),
    [
        ("ollama/llama3", "http://localhost:11434", "litellm"),
        ("ollama/llama3", "http://localhost:11434/v1/", "openai_chat"),
        ("ollama_chat/llama3", "http://localhost:11434/v1", "openai_chat"),
        ("gemini/m", "https://generativelanguage.googleapis.com/v1beta", "litellm"),
        ("gemini/m", "https://generativelanguage.googleapis.com/v1beta/openai/", "openai_chat"),
        ("cohere/m", "https://api.cohere.ai/compatibility/v1", "openai_chat"),
        ("vertex_ai/m", "https://aiplatform.googleapis.com/v1/projects/p/endpoints/openapi", "openai_chat"),
        ("bedrock/m", "https://bedrock-runtime.us-west-2.amazonaws.com/openai/v1", "openai_chat"),
        ("azure/m", "https://mine.openai.azure.com/openai/v1", "openai_chat"),
        ("azure/m", "https://mine.openai.azure.com", "litellm"),
        ("azure/m", "https://mine.openai.azure.com/openai/deployments/m/chat/completions", "litellm"),
        ("anthropic/m", "https://api.anthropic.com/v1", "litellm"),
        ("anthropic/m", "https://gateway.example/v1/chat/completions", "openai_chat"),
    ],
)
def test_an_address_of_a_compatible_interface_is_called_directly(name, base, wire_format):
    assert format_of(name, base) == wire_format


@pytest.mark.parametrize("name", ["anthropic/claude-sonnet-4-5", "azure/my-deployment", "gemini/gemini-2.5-flash"])
@pytest.mark.parametrize("choice", [{"engine": "direct"}, {"profile": {"wire_format": "openai_chat"}}])
def test_a_gateway_that_speaks_the_format_of_openai_for_any_model_is_called_directly_on_request(name, choice):
    with Server(lambda body, number: "hello") as server:
        lm = dn.LM(name, api_base=server.base, api_key=GIVEN, **choice)
        assert ask(lm).text == "hello"
        assert ask(pickle.loads(pickle.dumps(lm))).text == "hello"
    assert lm.profile.wire_format == "openai_chat"
    assert server.bodies[0]["model"] == name.partition("/")[2]


def test_the_engine_wins_over_the_wire_format_of_a_profile():
    lm = dn.LM("openai/m", engine="litellm", profile={"wire_format": "openai_chat"})
    assert lm.profile.wire_format == "litellm"
    assert dn.LM("openai/m", profile={"wire_format": "litellm"}).profile.wire_format == "litellm"


def test_a_model_of_openai_that_has_the_responses_api_only_is_called_directly_in_it(default_addresses):
    for name in ("openai/o1-pro", "openai/gpt-5-codex", "openai/o3-deep-research", "openai/computer-use-preview"):
        lm = dn.LM(name)
        assert lm.profile.wire_format == "openai_responses"
        assert lm._engine.url == "https://api.openai.com/v1/responses"
        again = pickle.loads(pickle.dumps(lm))
        assert again.profile.wire_format == "openai_responses"
        assert again._engine.url == "https://api.openai.com/v1/responses"
    assert dn.LM("openai/o1-pro", api_base=LOOPBACK).profile.wire_format == "openai_chat"
    assert dn.LM("openai/o1-pro", engine="direct").profile.wire_format == "openai_responses"
    assert dn.LM("openai/o1-pro", engine="litellm").profile.wire_format == "litellm"
    assert dn.LM("openai/gpt-5").profile.wire_format == "openai_chat"


def test_a_provider_that_litellm_calls_at_its_own_address_only_takes_no_address():
    with pytest.raises(
        errors.ConfigurationError, match="at its own address only. Leave out api_base, or use engine='d"
    ):
        dn.LM("replicate/meta/llama", api_base=LOOPBACK)
    assert dn.LM("replicate/meta/llama", api_base=LOOPBACK, engine="direct").profile.wire_format == "openai_chat"


def test_creating_a_model_reads_no_map(monkeypatch):
    monkeypatch.setattr("dspynb.lm.providers.prices._prices", lambda: pytest.fail("the map was read"))
    for name in ("openai/o1-pro", "anthropic/m", "groq/m"):
        dn.LM(name)
        dn.LM(name, api_base=LOOPBACK, profile={"input_price": 1e-6, "context_window": 10, "hosts": ["a.example"]})


# ── requests in the provider's own format ─────────────────────────────────────────────────────────────────────────────
@pytest.fixture
def recording():
    with recording_server() as server:
        yield server


FORMATS = [
    ("anthropic/claude-sonnet-4-5", "/v1/messages", "x-api-key", "max_tokens"),
    ("gemini/gemini-2.5-flash", "/models/gemini-2.5-flash:generateContent", "x-goog-api-key", "contents"),
    ("mistral/mistral-small-latest", "/v1/chat/completions", "authorization", "random_seed"),
    ("cohere_chat/command-r-plus", "", "authorization", "messages"),
    ("azure/gpt-4.1", "/openai/deployments/gpt-4.1/chat/completions", "api-key", "messages"),
    ("ollama_chat/llama3", "/api/chat", "authorization", "options"),
    ("bedrock/anthropic.claude-3-haiku-20240307-v1:0", "/model/", "authorization", "messages"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "path", "key_header", "field"), FORMATS)
def test_an_address_gets_requests_in_the_format_of_the_provider(name, path, key_header, field, recording, monkeypatch):
    for variable in ("ANTHROPIC", "GEMINI", "MISTRAL", "COHERE", "AZURE", "OLLAMA", "OPENAI"):
        monkeypatch.setenv(f"{variable}_API_KEY", ENVIRONMENT)
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", ENVIRONMENT)
    region = {"aws_region_name": "us-east-1"} if name.startswith("bedrock") else {}
    base = f"http://127.0.0.1:{recording.server_port}"
    seed = {} if name.startswith(("anthropic", "bedrock")) else {"seed": 7}
    with pytest.raises(errors.AuthenticationError):
        ask(dn.LM(name, api_base=base, api_key=GIVEN, retries=0, **region), **seed)
    sent_path, headers, body = recording.requests[-1]
    assert sent_path.startswith(path)
    assert GIVEN in headers[key_header]
    assert field in body
    with pytest.raises(errors.AuthenticationError, match="no key was sent"):
        ask(dn.LM(name, api_base=base, retries=0, **region))
    assert ENVIRONMENT not in str(recording.requests)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "path", "sent"),
    [
        ("anthropic/claude-sonnet-4-5", "/v1", "/v1/messages"),
        ("anthropic/claude-sonnet-4-5", "/gateway/v1/", "/gateway/v1/messages"),
        ("anthropic/claude-sonnet-4-5", "/v1/messages", "/v1/messages"),
        ("cohere_chat/command-r-plus", "", "/v2/chat"),
        ("cohere/command-r-plus", "/v2/", "/v2/chat"),
        ("cohere/command-r-plus", "/v2/chat", "/v2/chat"),
        ("gemini/gemini-2.5-flash", "/v1beta/", "/v1beta/models/gemini-2.5-flash:generateContent"),
        ("mistral/mistral-small-latest", "/v1/", "/v1/chat/completions"),
    ],
)
def test_the_path_of_an_address_is_completed_once(name, path, sent, recording):
    base = f"http://127.0.0.1:{recording.server_port}{path}"
    with pytest.raises(errors.AuthenticationError):
        ask(dn.LM(name, api_base=base, api_key=GIVEN, retries=0))
    assert recording.requests[0].path == sent


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, *_ in FORMATS])
def test_a_redirect_is_refused_in_every_format(name, recording, planted):
    recording.target = planted.base
    region = {"aws_region_name": "us-east-1"} if name.startswith("bedrock") else {}
    base = f"http://127.0.0.1:{recording.server_port}"
    with pytest.raises(errors.BadRequestError, match=f"redirects to http://{planted.host}, and redirects are not"):
        ask(dn.LM(name, base_url=base, api_key=GIVEN, **region))
    assert len(recording.requests) == 1


@pytest.mark.parametrize("name", ["anthropic/m", "gemini/m", "azure/m"])
def test_an_address_that_is_none_is_an_error_when_the_model_is_made(name):
    with pytest.raises(errors.ConfigurationError, match="api_base must be an address"):
        dn.LM(name, base_url="127.0.0.1:8000")


# ── hosts and keys ────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_profile_names_the_hosts_of_the_provider_and_whether_they_need_a_key():
    anthropic = dn.LM("anthropic/claude-sonnet-4-5").profile
    assert (anthropic.hosts, anthropic.needs_key) == (("api.anthropic.com",), True)
    assert dn.LM("bedrock/m").profile.needs_key is None  # it also takes credentials of AWS
    assert dn.LM("openai/m", api_base=LOOPBACK).profile.needs_key is None
    assert dn.LM("openai/m", api_base="https://api.openai.com/v1").profile.needs_key is True
    assert dn.LM("my-company/m", api_base=LOOPBACK).profile.hosts == ()


@pytest.mark.parametrize("name", ["openai/m", "anthropic/m"])
def test_hosts_in_a_profile_get_the_key_in_the_environment_and_replace_those_of_the_provider(
    name, monkeypatch, default_addresses
):
    def sent_key(base, **settings):
        engine = dn.LM(name, api_base=base, **settings)._engine
        if type(engine).__name__ == "DirectEngine":
            return engine.key
        return ENVIRONMENT if engine._key({}) is None else None  # None: litellm may use the environment

    monkeypatch.setenv("OPENAI_API_KEY", ENVIRONMENT)
    monkeypatch.setenv("ANTHROPIC_API_KEY", ENVIRONMENT)
    mine = {"hosts": ["llm.example.com"]}
    assert sent_key("https://llm.example.com/v1") is None
    assert sent_key("https://llm.example.com/v1", profile=mine) == ENVIRONMENT
    assert sent_key("https://eu.llm.example.com/v1", profile=mine) == ENVIRONMENT
    assert sent_key("http://llm.example.com/v1", profile=mine) is None  # not encrypted
    assert sent_key("https://llm.example.com.evil.example/v1", profile=mine) is None
    assert sent_key("https://api.openai.com/v1", profile=mine) is None
    assert is_own_host("openai", "https://api.openai.com/v1")


@pytest.mark.parametrize("name", ["openai/m", pytest.param("anthropic/m", marks=pytest.mark.slow)])
def test_a_profile_says_whether_a_server_needs_a_key(name, planted, monkeypatch, default_addresses):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    lm = dn.LM(name, api_base=planted.base, profile={"needs_key": True})
    with pytest.raises(errors.AuthenticationError, match="needs a key, and none was found, so nothing was sent"):
        ask(lm)
    assert lm.profile.needs_key is True
    engine = dn.LM("openai/m", profile={"needs_key": False})._engine
    engine._check_key(engine.url, {})


# ── prices and limits ─────────────────────────────────────────────────────────────────────────────────────────────────
USED = {
    "prompt_tokens": 1000,
    "completion_tokens": 100,
    "prompt_tokens_details": {"cached_tokens": 400},
}


@pytest.mark.parametrize(
    ("name", "profile", "usd"),
    [
        ("openai/my-model", None, None),
        ("openai/my-model", {"input_price": 1e-6, "output_price": 2e-6}, 1000e-6 + 200e-6),
        ("openai/my-model", {"input_price": 0, "output_price": 0}, 0.0),
        ("openai/my-model", {"input_price": 1e-6}, None),
        (
            "openai/my-model",
            {"input_price": 1e-6, "output_price": 2e-6, "cached_input_price": 1e-7},
            600e-6 + 40e-6 + 200e-6,
        ),
        ("openai/gpt-4o-mini", {"output_price": 0}, 600 * 0.15e-6 + 400 * 0.075e-6),
        ("openai/gpt-4o-mini", {"input_price": 1e-6, "output_price": 0}, 1000e-6),
    ],
)
@pytest.mark.parametrize("engine", ["direct", pytest.param("litellm", marks=pytest.mark.slow)])
def test_prices_in_a_profile_are_those_of_the_usage(name, profile, usd, engine):
    body = {**reply("hello"), "created": 0, "usage": {**USED, "total_tokens": 1100}}
    with Server(lambda _, number: body) as server:
        lm = dn.LM(name, api_base=server.base, api_key=GIVEN, engine=engine, profile=profile)
        with dn.Budget(calls=5) as meter:
            used = lm.run_sync("Say hello.").usage
    assert used.usd == (None if usd is None else pytest.approx(usd))
    if usd is not None:
        assert meter.spent["usd"] == pytest.approx(usd)


def test_the_limit_of_the_output_in_a_profile_holds_for_requests():
    with Server(lambda _, number: "hello") as server:
        lm = dn.LM("openai/my-model", api_base=server.base, profile={"output_limit": 100}, max_tokens=500)
        with pytest.warns(errors.ModelAdaptedWarning, match="max_tokens=500 became 100"):
            ask(lm)
    assert server.bodies[0]["max_tokens"] == 100
    assert lm.profile.output_limit == 100


def test_a_model_without_media_refuses_an_image_before_a_request(planted):
    lm = dn.LM("openai/my-model", api_base=planted.base, profile={"media": []})
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    with pytest.raises(errors.ConfigurationError, match="takes text only"):
        lm.run_sync([{"role": "user", "content": [image]}])
    assert lm.profile.media == ()


def test_the_doctor_shows_the_format_the_hosts_and_the_prices_of_a_model():
    lm = dn.LM("openai/my-model", api_base=LOOPBACK, profile={"context_window": 8192, "input_price": 0})
    assert lm.profile.describe().startswith("wire format openai_chat; hosts api.openai.com; context window 8192; input")
    assert dn.LM("openai/my-model", api_base=LOOPBACK).profile.describe().endswith("nothing is known of this model")
    facts = lm.profile.facts()
    assert (facts["context_window"], facts["input_price"], facts["wire_format"]) == (8192, 0.0, "openai_chat")
    assert facts["hosts"] == ("api.openai.com",)
    assert json.loads(json.dumps(facts))["hosts"] == ["api.openai.com"]
