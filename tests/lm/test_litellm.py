"""Providers through litellm, against a real server on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import json
import threading
import zlib
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer

import pytest

import dspynb as dn
from dspynb.errors import (
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    ContextTooLong,
    MalformedReply,
    ModelError,
    RateLimited,
    ServerError,
)
from tests.helpers import chat
from tests.lm.recording_server import recording_server
from tests.lm.server import Server, error, sse

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # raised by litellm itself


@pytest.fixture
def server():
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            requests.append((self.headers["Authorization"], body))
            bad = "fail" in str(body["messages"])
            reply = {"error": {"message": f"bad key {self.headers['Authorization']}"}} if bad else _reply(body)
            data = json.dumps(reply).encode()
            self.send_response(401 if bad else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args):
            pass

    http = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}/v1", requests
    http.shutdown()
    http.server_close()
    thread.join()


def _reply(body):
    message = {"role": "assistant", "content": "[[ ## answer ## ]]\n4\n[[ ## completed ## ]]"}
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    }


@pytest.mark.slow
def test_a_provider_answers_and_an_error_names_the_model_and_never_the_key(server):
    base, requests = server
    lm = dn.LM(
        "openai/some-model", engine="litellm", api_base=base, api_key="sk-very-secret-key", max_tokens=50, retries=0
    )
    predict = dn.Predict("question -> answer: int", lm=lm, temperature=0.3)
    prediction = predict.run_sync(question="2+2?")
    assert (prediction.answer, prediction.usage.tokens, prediction.usage.usd) == (4, 10, None)
    authorization, body = requests[0]
    assert authorization == "Bearer sk-very-secret-key"
    assert (body["max_tokens"], body["temperature"]) == (50, 0.3)
    assert "rollout" not in json.dumps(body)
    with pytest.raises(ModelError, match="openai/some-model") as caught:
        predict.run_sync(question="fail")
    assert "sk-very-secret-key" not in str(caught.value)
    assert "sk-very-secret-key" not in str(dn.last_run().calls.to_dict())


@pytest.mark.parametrize("name", ["gpt", "", "openai/", "/x", 5])
def test_a_model_is_named_with_its_provider(name):
    with pytest.raises(ConfigurationError, match="provider/model"):
        dn.LM(name)


@pytest.mark.slow
def test_faults_are_retried_and_counted_as_with_the_direct_engine():
    answers = [error(429, "slow down", **{"retry-after": "0"}), error(500), {"choices": []}, chat(answer="4")]
    with Server(lambda body, number: answers[number - 1]) as http:
        lm = dn.LM("openai/m", api_base=http.base, api_key="k" * 20, engine="litellm")
        prediction = dn.Predict("question -> answer", lm=lm).run_sync(question="2+2")
    assert prediction.answer == "4"
    assert prediction.usage.retries == 3
    assert prediction.usage.calls == 1
    assert (prediction.usage.cached_tokens, prediction.usage.reasoning_tokens) == (2, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (error(401), AuthenticationError),
        (error(400, "maximum context length is 10 tokens", "context_length_exceeded"), ContextTooLong),
        (error(400, "no such setting"), BadRequestError),
        (error(429, **{"retry-after": "7"}), RateLimited),
        (error(503), ServerError),
    ],
)
def test_an_error_is_of_the_same_kind_as_with_the_direct_engine(answer, kind):
    for engine in ("litellm", "direct"):
        with Server(lambda body, number: copy.copy(answer)) as http:
            lm = dn.LM("openai/m", api_base=http.base, api_key="k" * 20, engine=engine, retries=0)
            with pytest.raises(kind) as caught:
                dn.Predict("question -> answer", lm=lm).run_sync(question="2+2")
        assert type(caught.value) is kind, engine
        assert caught.value.retry_after == (7 if kind is RateLimited else None), engine


@pytest.mark.slow
def test_a_reply_is_streamed():
    with Server(streamed=[sse(list(chat(answer="four")), usage={"prompt_tokens": 1, "completion_tokens": 2})]) as http:
        lm = dn.LM("openai/m", api_base=http.base, api_key="k" * 20, engine="litellm")

        async def main():
            return [part async for part in dn.Predict("question -> answer", lm=lm).stream(question="2+2")]

        *parts, prediction = asyncio.run(main())
    assert "".join(part.delta for part in parts) == prediction.answer == "four"
    assert len(parts) > 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["openai/m", "mistral/m"])
def test_connections_are_closed_with_the_event_loop_and_the_next_loop_connects_anew(name):
    with Server(lambda body, number: _reply(body)) as http:
        lm = dn.LM(name, api_base=http.base, api_key="k" * 20, engine="litellm")
        for _ in range(3):
            assert "4" in ask(lm).text
            gc.collect()  # an open socket would be a ResourceWarning, which is an error in the tests
    assert len(http.bodies) == 3


# ── where requests and keys go ────────────────────────────────────────────────────────────────────────────────────────
ENVIRONMENT = "environment-key-0123456789"
PROVIDERS = ("openai/m", "mistral/m", "anthropic/claude-x", "gemini/gemini-pro", "openrouter/m", "ollama_chat/m")


@pytest.fixture
def recording():
    with recording_server() as server:
        yield server


def ask(lm, how="complete"):
    request = dn.LMRequest(({"role": "user", "content": "the prompt"},))
    return asyncio.run(lm.complete(request) if how == "complete" else lm.stream(request, lambda text: None))


@pytest.mark.slow
@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize("how", ["complete", "stream"])
def test_a_redirect_is_refused(name, how, recording, planted):
    recording.target = planted.base
    lm = dn.LM(name, engine="litellm", base_url=f"http://127.0.0.1:{recording.server_port}", api_key="k" * 20)
    with pytest.raises(BadRequestError, match=f"redirects to http://{planted.host}, and redirects are not followed"):
        ask(lm, how)
    assert len(recording.requests) == 1  # not retried either


def test_a_provider_whose_client_follows_redirects_is_refused():
    with pytest.raises(ConfigurationError, match="use 'openai/m'"):
        dn.LM("aiohttp_openai/m", engine="litellm")


@pytest.mark.slow
def test_redirects_outside_of_calls_are_followed(recording, planted):
    httpx = pytest.importorskip("httpx")
    ask_nobody = dn.LM("openai/m", engine="litellm", api_base="http://127.0.0.1:9", retries=0)
    with pytest.raises(ModelError):
        ask(ask_nobody)
    recording.target = planted.base
    sent = httpx.post(f"http://127.0.0.1:{recording.server_port}", json={}, follow_redirects=True)
    assert sent.history[0].status_code == 307
    assert len(planted.requests) == 1
    planted.requests.clear()


@pytest.mark.slow
@pytest.mark.parametrize("name", PROVIDERS)
def test_a_key_from_the_environment_is_not_sent_to_another_host_and_a_passed_key_is(name, recording, monkeypatch):
    provider = name.partition("/")[0].upper()
    for variable in (f"{provider}_API_KEY", "OPENAI_API_KEY", "OLLAMA_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.setenv(variable, ENVIRONMENT)
    base = f"http://127.0.0.1:{recording.server_port}"
    with pytest.raises(ModelError, match="no key was sent, since http://127.0.0.1.* own host: pass api_key="):
        ask(dn.LM(name, engine="litellm", api_base=base, retries=0))
    assert ENVIRONMENT not in str(recording.requests)
    with pytest.raises(ModelError):
        ask(dn.LM(name, engine="litellm", api_base=base, retries=0, api_key="given-0123456789"))
    assert "given-0123456789" in str(recording.requests[-1].headers)
    monkeypatch.setenv(f"{provider}_API_BASE", base)
    with pytest.raises(ModelError):
        ask(dn.LM(name, engine="litellm", api_base=base, retries=0))
    assert ENVIRONMENT in str(recording.requests[-1].headers)


@pytest.mark.slow
@pytest.mark.parametrize("name", PROVIDERS)
def test_extra_body_and_extra_headers_are_sent_as_such(name, recording):
    lm = dn.LM(
        name,
        engine="litellm",
        api_base=f"http://127.0.0.1:{recording.server_port}",
        api_key="k" * 20,
        retries=0,
        extra_body={"mine": {"a": 1}},
        extra_headers={"X-Mine": "2"},
    )
    with pytest.raises(AuthenticationError):
        ask(lm)
    _, headers, body = recording.requests[0]
    assert body["mine"] == {"a": 1}
    assert headers["x-mine"] == "2"
    assert "extra_body" not in body
    assert "extra_headers" not in body


@pytest.mark.slow
@pytest.mark.parametrize("address", ["api_base", "aws_bedrock_runtime_endpoint"])
@pytest.mark.parametrize("bearer", [True, False])
def test_credentials_of_aws_in_the_environment_go_to_no_other_host(address, bearer, recording, monkeypatch):
    pytest.importorskip("boto3")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, ENVIRONMENT)
    if bearer:
        monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", ENVIRONMENT)
    base = f"http://127.0.0.1:{recording.server_port}"
    settings = {"engine": "litellm", "retries": 0, "aws_region_name": "us-east-1", address: base}
    with pytest.raises(ModelError, match="no key was sent"):
        ask(dn.LM("bedrock/anthropic.claude-x", **settings))
    assert ENVIRONMENT not in str(recording.requests)
    monkeypatch.setenv("AWS_BEDROCK_RUNTIME_ENDPOINT", base)  # now the environment names this host
    with pytest.raises(ModelError):
        ask(dn.LM("bedrock/anthropic.claude-x", **settings))
    assert ENVIRONMENT in str(recording.requests[-1].headers)


@pytest.mark.slow
@pytest.mark.parametrize("provider", ["vertex_ai", "sagemaker", "gigachat"])
def test_a_provider_whose_credentials_are_always_sent_is_called_at_its_own_host_only(provider, planted, monkeypatch):
    monkeypatch.setenv("GIGACHAT_ACCESS_TOKEN", ENVIRONMENT)
    lm = dn.LM(f"{provider}/m", engine="litellm", api_base=planted.base, api_key="given-0123456789", retries=0)
    with pytest.raises(ConfigurationError, match=f"not sent to {planted.base[:-3]}.*{provider.upper()}_API_BASE"):
        ask(lm)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["anthropic/claude-x", "bedrock/anthropic.claude-x"])
@pytest.mark.parametrize("field", ["api_base", "base_url", "api_key", "aws_bedrock_runtime_endpoint", "mock_response"])
def test_extra_body_sets_no_argument_of_litellm(name, field, planted, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", ENVIRONMENT)
    lm = dn.LM(name, engine="litellm", extra_body={field: planted.base}, retries=0)
    with pytest.raises(ConfigurationError, match=f"extra_body may not have the field {field!r}"):
        ask(lm)


class Endless(BaseHTTPRequestHandler):
    """Sends an endless body; the path selects a plain or compressed one, an error, or an event stream."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(400 if "error" in self.path else 200)
        self.send_header("Content-Type", "text/event-stream" if "stream" in self.path else "application/json")
        packer = zlib.compressobj(wbits=31)
        if "packed" in self.path:
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(b"" if "packed" in self.path else b'{"error": "too bad, ')
            while True:
                more = b"word " * 2**18
                self.wfile.write(packer.compress(more) if "packed" in self.path else more)

    def log_message(self, *args):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("name", ["openai/m", "anthropic/claude-x"])
@pytest.mark.parametrize("kind", ["plain", "packed", "stream", "error"])
def test_an_endless_body_ends_with_an_error(name, kind, monkeypatch):
    for limit in ("MAX_BODY_BYTES", "MAX_STREAM_BYTES"):
        monkeypatch.setattr(f"dspynb.lm.providers.sse.{limit}", 2**20)
    http = ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    http.daemon_threads = True
    threading.Thread(target=http.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{http.server_port}/{kind}"
    lm = dn.LM(name, engine="litellm", api_base=base, api_key="k" * 20, retries=0, timeout=60)
    message = "400" if kind == "error" else "the body of the reply is too long: more than 1 MiB"
    with pytest.raises(BadRequestError if kind == "error" else MalformedReply, match=message) as caught:
        ask(lm, "stream" if kind == "stream" else "complete")
    assert len(str(caught.value)) < 1_000
    http.shutdown()
    http.server_close()
