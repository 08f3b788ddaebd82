"""Providers through litellm, against a real server on loopback."""

from __future__ import annotations

import asyncio
import copy
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

import dspynb as dn
from dspynb.errors import (
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    ContextTooLong,
    ModelError,
    RateLimited,
    ServerError,
)
from tests.helpers import chat
from tests.lm.server import Server, error, sse

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # of litellm itself


@pytest.fixture
def server():
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append((self.headers["Authorization"], body))
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
    yield f"http://127.0.0.1:{http.server_port}/v1", seen
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
    base, seen = server
    lm = dn.LM(
        "openai/some-model", engine="litellm", api_base=base, api_key="sk-very-secret-key", max_tokens=50, retries=0
    )
    predict = dn.Predict("question -> answer: int", lm=lm, temperature=0.3)
    prediction = predict.run_sync(question="2+2?")
    assert (prediction.answer, prediction.usage.tokens, prediction.usage.usd) == (4, 10, None)
    authorization, body = seen[0]
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
def test_faults_are_tried_again_and_counted_as_with_the_direct_engine():
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
def test_it_streams():
    with Server(streamed=[sse(list(chat(answer="four")), usage={"prompt_tokens": 1, "completion_tokens": 2})]) as http:
        lm = dn.LM("openai/m", api_base=http.base, api_key="k" * 20, engine="litellm")

        async def main():
            return [part async for part in dn.Predict("question -> answer", lm=lm).stream(question="2+2")]

        *parts, prediction = asyncio.run(main())
    assert "".join(part.delta for part in parts) == prediction.answer == "four"
    assert len(parts) > 1
