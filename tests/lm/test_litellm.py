"""Providers through litellm, against a real server on loopback."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

import dspynb as dn
from dspynb.errors import ConfigurationError, ModelError

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
