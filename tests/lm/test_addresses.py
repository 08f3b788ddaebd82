"""Requests and keys are sent to the address in the settings only. A second server detects any others."""

from __future__ import annotations

import asyncio
import copy
import pickle

import pytest
from aiohttp import web

import dspynb as dn
from dspynb.errors import AuthenticationError, BadRequestError, ConfigurationError, ConnectionFailed
from dspynb.lm.providers.addresses import chat_url, is_own_host
from tests.lm.server import Server, error

ENVIRONMENT = "environment-key-0123456789"
GIVEN = "given-key-0123456789"
REQUEST = dn.LMRequest(({"role": "user", "content": "the prompt"},))


def ask(lm, request=REQUEST):
    return asyncio.run(lm.complete(request))


def stream(lm):
    return asyncio.run(lm.stream(REQUEST, lambda text: None))


def redirect(status, location):
    headers = {"Location": location} if location else {}
    return lambda body, number: web.Response(status=status, headers=headers)


# ── base_url ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_base_url_is_api_base():
    with Server(lambda body, number: "hello") as server:
        lm = dn.LM("openai/m", base_url=server.base, api_key=GIVEN)
        assert ask(lm).text == "hello"
        same = dn.LM("openai/m", api_base=server.base, api_key=GIVEN)
        assert lm._key(REQUEST, {}) == same._key(REQUEST, {})
        assert repr(lm) == repr(same)
        assert pickle.dumps(lm) == pickle.dumps(same)
        assert ask(pickle.loads(pickle.dumps(lm))).text == "hello"
        dn.LM("openai/m", api_base=server.base, base_url=server.base)
    assert server.headers[0]["Authorization"] == f"Bearer {GIVEN}"
    assert "Authorization" not in server.headers[1]  # a key is not pickled
    assert "base_url" not in server.bodies[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"api_base": "http://127.0.0.1:1/v1", "base_url": "http://127.0.0.1:2/v1"}, "differ"),
        ({"api_base": ""}, "empty"),
        ({"base_url": "  "}, "empty"),
        ({"base_url": "127.0.0.1:8000/v1"}, "http://127.0.0.1:8000/v1"),
        ({"base_url": "ftp://127.0.0.1/v1"}, "address such as"),
        ({"api_base": "http://127.0.0.1:port/v1"}, "address such as"),
        ({"api_base": "http://user:password@127.0.0.1:9/v1", "api_key": GIVEN}, "only one of them"),
    ],
)
def test_an_invalid_address_is_an_error_when_the_model_is_made(settings, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        dn.LM("openai/m", **settings)
    assert "password" not in str(caught.value)


@pytest.mark.parametrize("end", ["", "/", "//", "/chat/completions", "/chat/completions/"])
def test_the_end_of_an_address_makes_no_difference(end):
    with Server(lambda body, number: "hello") as server:
        assert ask(dn.LM("openai/m", api_base=f" {server.base}{end} ", retries=0)).text == "hello"


def test_the_query_of_an_address_is_preserved():
    assert chat_url("http://host/v1?version=2") == "http://host/v1/chat/completions?version=2"


@pytest.mark.parametrize("name", ["OPENAI_BASE_URL", "OPENAI_API_BASE"])
def test_the_address_in_the_environment_gets_the_key_in_the_environment(name, monkeypatch, default_addresses):
    monkeypatch.setenv("OPENAI_API_KEY", ENVIRONMENT)
    with Server(lambda body, number: "hello") as server:
        monkeypatch.setenv(name, server.base)
        ask(dn.LM("openai/m"))
        ask(dn.LM("openai/m", api_base=server.base + "/"))  # the same host, passed as an argument
    assert [headers["Authorization"] for headers in server.headers] == [f"Bearer {ENVIRONMENT}"] * 2


def test_replies_of_one_address_are_not_served_for_another(tmp_path, monkeypatch, default_addresses):
    monkeypatch.setenv("DSPYNB_CACHE_DIR", str(tmp_path))
    with Server(lambda body, number: "first") as first_server, Server(lambda body, number: "second") as second_server:
        with dn.context(cache=True):
            monkeypatch.setenv("OPENAI_BASE_URL", first_server.base)
            assert ask(dn.LM("openai/m")).text == "first"
            monkeypatch.setenv("OPENAI_BASE_URL", second_server.base)
            assert ask(dn.LM("openai/m")).text == "second"
            assert ask(dn.LM("openai/m")).cached


def test_another_provider_with_the_direct_engine_needs_an_address(monkeypatch, default_addresses):
    monkeypatch.setenv("MISTRAL_API_KEY", ENVIRONMENT)
    with pytest.raises(ConfigurationError, match="api_base="):
        ask(dn.LM("mistral/m", engine="direct"))
    with Server(lambda body, number: "hello") as server:
        monkeypatch.setenv("MISTRAL_BASE_URL", server.base)
        ask(dn.LM("mistral/m", engine="direct"))
    assert server.headers[0]["Authorization"] == f"Bearer {ENVIRONMENT}"


# ── redirects ─────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("status", [300, 301, 302, 303, 305, 307, 308])
@pytest.mark.parametrize("call", [ask, stream])
def test_a_redirect_to_another_host_is_refused(status, call, planted):
    answer = redirect(status, f"http://user:password@{planted.host}/v1/chat/completions?key=secret")
    with Server(answer, streamed=[lambda request: answer(None, 1)]) as server:
        lm = dn.LM("openai/m", api_base=server.base, api_key=GIVEN, extra_headers={"X-Mine": "1"})
        with pytest.raises(BadRequestError, match=f"redirects to http://{planted.host}, and redirects are") as caught:
            call(lm)
    assert caught.value.status == status
    assert "password" not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert len(server.bodies) == 1  # not retried


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("/v2/chat/completions", "another path on http://127.0.0.1"),
        ("chat", "another path on"),
        (None, "does not name"),
        ("http://[", "an invalid URL"),
        ("https://api.openai.com/v1", "https://api.openai.com,"),
    ],
)
def test_every_redirect_is_refused_and_its_target_named(location, message):
    with Server(redirect(307, location)) as server:
        with pytest.raises(BadRequestError, match=message):
            ask(dn.LM("openai/m", api_base=server.base))
    assert len(server.bodies) == 1


def test_a_redirect_counts_as_a_call(planted):
    with Server(redirect(307, planted.base)) as server, dn.Budget(calls=5) as meter:
        lm = dn.LM("openai/m", api_base=server.base)
        with pytest.raises(BadRequestError):
            dn.Predict("question -> answer", lm=lm).run_sync(question="x")
    assert meter.spent["calls"] == 1


# ── keys of the environment ───────────────────────────────────────────────────────────────────────────────────────────
def test_a_key_from_the_environment_is_not_sent_to_another_host_and_a_passed_key_is(monkeypatch, default_addresses):
    monkeypatch.setenv("OPENAI_API_KEY", ENVIRONMENT)
    monkeypatch.setenv("MISTRAL_API_KEY", ENVIRONMENT)
    with Server(lambda body, number: "hello") as server:
        ask(dn.LM("openai/m", api_base=server.base))
        ask(dn.LM("openai/m", base_url=server.base))
        ask(dn.LM("openai/m", base_url=server.base, api_key=""))
        ask(dn.LM("mistral/m", api_base=server.base, engine="direct"))
        monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")  # another port is another server
        ask(dn.LM("openai/m", api_base=server.base))
        ask(dn.LM("openai/m", api_base=server.base, api_key=GIVEN))
    assert ENVIRONMENT not in str(server.headers)
    assert [headers.get("Authorization") for headers in server.headers] == [None] * 5 + [f"Bearer {GIVEN}"]


@pytest.mark.parametrize(
    ("provider", "url", "own"),
    [
        ("openai", "https://api.openai.com/v1", True),
        ("openai", "https://API.OpenAI.com:443/v1/", True),
        ("openai", "https://eu.api.openai.com/v1", True),
        ("openai", "http://api.openai.com/v1", False),  # not encrypted
        ("openai", "https://api.openai.com:8443/v1", False),
        ("openai", "https://api.openai.com.evil.example/v1", False),
        ("openai", "https://evil-api.openai.com/v1", False),
        ("openai", "https://evilapi.openai.com/v1", False),
        ("openai", "https://api.openai.com@evil.example/v1", False),
        ("openai", "https://evil.example/api.openai.com", False),
        ("openai", "https://api.mistral.ai/v1", False),
        ("mistral", "https://api.mistral.ai/v1", True),
        ("unknown", "https://api.openai.com/v1", False),
        ("openai", "not an address", False),
        ("openai", "http://127.0.0.1:notaport", False),
    ],
)
def test_the_hosts_of_providers_are_recognized(provider, url, own, default_addresses, monkeypatch):
    monkeypatch.setenv("UNKNOWN_BASE_URL", "also no address")
    assert is_own_host(provider, url) is own


def test_a_default_model_sends_its_key_to_its_provider_only(monkeypatch, default_addresses):
    monkeypatch.setenv("OPENAI_API_KEY", ENVIRONMENT)
    engine = dn.LM("openai/m")._engine
    assert (engine.url, engine.key) == ("https://api.openai.com/v1/chat/completions", ENVIRONMENT)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_says_that_no_key_was_sent_and_why(status, monkeypatch, default_addresses):
    with Server(lambda body, number: error(status, "who are you")) as server:
        lm = dn.LM("openai/m", api_base=server.base)
        with pytest.raises(AuthenticationError, match="no key was sent: pass api_key="):
            ask(lm)
        monkeypatch.setenv("OPENAI_API_KEY", ENVIRONMENT)
        with pytest.raises(AuthenticationError, match="no key was sent, since http://127.0.0.1.* own host: pass"):
            ask(lm)
        with pytest.raises(AuthenticationError) as caught:
            ask(dn.LM("openai/m", api_base=server.base, api_key=GIVEN))
        assert "no key" not in str(caught.value)
        monkeypatch.delenv("OPENAI_API_KEY")
        monkeypatch.setenv("OPENAI_BASE_URL", server.base)
        with pytest.raises(AuthenticationError, match="no key was sent: set OPENAI_API_KEY in"):
            ask(dn.LM("openai/m"))


def test_a_user_name_in_the_address_is_sent_in_place_of_a_key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", ENVIRONMENT)
    with Server(lambda body, number: "hello") as server:
        base = server.base.replace("http://", "http://user:password@")
        monkeypatch.setenv("OPENAI_BASE_URL", base)
        ask(dn.LM("openai/m"))
        ask(dn.LM("openai/m", api_base=base))
    assert all(headers["Authorization"].startswith("Basic ") for headers in server.headers)


def test_proxies_and_netrc_of_the_environment_are_not_used(monkeypatch, tmp_path, planted):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://{planted.host}")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "netrc").write_text(f"default login someone password {ENVIRONMENT}\n")
    (tmp_path / "netrc").chmod(0o600)
    with Server(lambda body, number: "hello") as server:
        ask(dn.LM("openai/m", api_base=server.base))
    assert "Authorization" not in server.headers[0]


def test_an_unreachable_server_is_a_connection_error_and_no_other_server_is_called(planted):
    with pytest.raises(ConnectionFailed):
        ask(dn.LM("openai/m", base_url="http://127.0.0.1:9/v1", retries=0))


@pytest.mark.parametrize(
    ("provider", "url", "own"),
    [
        ("bedrock", "https://bedrock-runtime.us-east-1.amazonaws.com", True),
        ("bedrock", "https://bedrock-runtime-fips.us-gov-west-1.amazonaws.com/openai/v1", True),
        ("bedrock", "https://vpce-0a-1b.bedrock-runtime.us-east-1.vpce.amazonaws.com", True),
        ("bedrock", "https://abc123.execute-api.us-east-1.amazonaws.com/v1", False),  # may belong to anybody
        ("bedrock", "https://bedrock-runtime.s3.amazonaws.com", False),
        ("bedrock", "https://bedrock-runtime.us-east-1.amazonaws.com.evil.example", False),
        ("bedrock", "http://bedrock-runtime.us-east-1.amazonaws.com", False),
        ("sagemaker", "https://runtime.sagemaker.eu-west-1.amazonaws.com", True),
        ("sagemaker", "https://ec2-1-2-3-4.eu-west-1.compute.amazonaws.com", False),
        ("vertex_ai", "https://us-central1-aiplatform.googleapis.com/v1", True),
        ("vertex_ai", "https://aiplatform.googleapis.com/v1", True),
        ("vertex_ai", "https://storage.googleapis.com/v1", False),
    ],
)
def test_only_the_model_hosts_of_a_cloud_count_as_its_own(provider, url, own):
    assert is_own_host(provider, url) is own


# ── keys and addresses that are no such thing ─────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("key", [f"{GIVEN}\n", f"  {GIVEN}\r\n"])
def test_the_whitespace_around_a_key_is_removed(key, monkeypatch, default_addresses):
    with Server(lambda body, number: "hello") as server:
        ask(dn.LM("openai/m", api_base=server.base, api_key=key))
        monkeypatch.setenv("OPENAI_API_KEY", key)
        monkeypatch.setenv("OPENAI_BASE_URL", server.base)
        ask(dn.LM("openai/m"))
    assert [headers["Authorization"] for headers in server.headers] == [f"Bearer {GIVEN}"] * 2


@pytest.mark.parametrize("key", [5, b"bytes-key-0123456789", f"{GIVEN}\nX-Other: 1", f"{GIVEN}\0"])
def test_a_key_that_cannot_be_sent_is_an_error_when_the_model_is_made(key):
    with pytest.raises(ConfigurationError, match="api_key") as caught:
        dn.LM("openai/m", api_key=key)
    assert GIVEN not in str(caught.value)


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "two..dots.example"])
def test_an_invalid_host_name_is_an_error_that_shows_the_address(host, monkeypatch, default_addresses):
    with pytest.raises(ConfigurationError, match="api_base must be an address"):
        dn.LM("openai/m", api_base=f"http://{host}/v1")
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://{host}/v1")
    with pytest.raises(ConfigurationError, match="api_base must be an address"):
        ask(dn.LM("openai/m"))


def test_a_shallow_copy_of_a_model_has_its_key_and_its_own_settings():
    with Server(lambda body, number: "hello") as server:
        lm = dn.LM("openai/m", api_base=server.base, api_key=GIVEN, temperature=0)
        other = copy.copy(lm)
        other.settings["temperature"] = 1
        ask(other)
        ask(lm)
    assert [headers["Authorization"] for headers in server.headers] == [f"Bearer {GIVEN}"] * 2
    assert [body["temperature"] for body in server.bodies] == [1, 0]
