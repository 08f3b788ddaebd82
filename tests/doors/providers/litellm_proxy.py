"""litellm's real proxy in front of the real llama.cpp server."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from tests.doors.registry import Door, Reports, register
from tests.lm.llama_cpp_server import llama_cpp_server
from tests.lm.proxy import proxy

_KEY = "sk-proxy-0123456789"


@dataclass(frozen=True)
class _Proxy:
    base: str


@contextlib.contextmanager
def _proxy_of_llama_cpp() -> Iterator[_Proxy]:
    with llama_cpp_server() as server:
        behind = {"model": "openai/smollm2", "api_base": server.base, "api_key": "none"}
        with proxy({"smollm2": behind}, _KEY) as address:
            yield _Proxy(address)


register(
    Door(
        name="litellm's proxy, llama.cpp behind it",
        model="openai/smollm2",
        server=_proxy_of_llama_cpp,
        reports=Reports(request_id="x-litellm-call-id", missing={"reasoning": "the model does not think"}),
        settings={"api_key": _KEY, "max_tokens": 60},
        adapter="json",
        outcomes=("works", "reply not usable"),
        slow=True,
    )
)
