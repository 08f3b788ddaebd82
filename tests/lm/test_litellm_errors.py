"""The errors of providers that litellm calls in their own formats are of the same kinds as those of direct calls."""

from __future__ import annotations

import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import dspynb as dn
from dspynb.errors import ModelError, UnsupportedParameter

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # of litellm itself
]
REQUEST = dn.LMRequest(({"role": "user", "content": "the prompt"},))
CASES = Path(__file__).with_name("litellm_errors.jsonl").read_text(encoding="utf-8").splitlines()
WITH_VERSION = ("deepseek", "groq", "hosted_vllm", "litellm_proxy", "mistral", "openai", "xai")
"""Providers whose address ends with /v1."""
SETTINGS = {"azure": {"api_version": "2024-10-21"}, "bedrock": {"aws_region_name": "us-east-1"}}


@pytest.fixture(scope="module")
def refusing():
    """A server that sends one response to every request: ``refusing.response = (status, body)``."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers.get("content-length") or 0))
            status, body = self.server.response
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(10)


@pytest.mark.parametrize("case", [json.loads(line) for line in CASES])
def test_an_error_behind_litellm_is_of_the_kind_that_its_provider_means(refusing, case):
    refusing.response = case["status"], case["body"]
    provider = case["model"].partition("/")[0]
    base = f"http://127.0.0.1:{refusing.server_port}"
    if provider in WITH_VERSION:
        base += "/v1"
    settings = SETTINGS.get(provider, {})
    lm = dn.LM(case["model"], api_base=base, api_key="k" * 20, engine="litellm", retries=0, cache=False, **settings)
    with pytest.raises(ModelError) as caught:
        asyncio.run(lm.complete(REQUEST))
    assert type(caught.value).__name__ == case["kind"]
    assert getattr(caught.value, "parameter", None) == case["parameter"]


@pytest.mark.parametrize("model", ["openai/o3-mini", "openai/gpt-5-mini"])
def test_a_parameter_that_litellm_itself_refuses_is_unsupported(refusing, model):
    base = f"http://127.0.0.1:{refusing.server_port}/v1"
    lm = dn.LM(
        model, api_base=base, api_key="k" * 20, engine="litellm", retries=0, cache=False, temperature=0.7, strict=True
    )
    with pytest.raises(UnsupportedParameter) as caught:
        asyncio.run(lm.complete(REQUEST))
    assert caught.value.parameter == "temperature"
