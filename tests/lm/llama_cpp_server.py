"""A real llama.cpp server with the embedded model, on a port of the loopback interface."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["LlamaCppServer", "llama_cpp_server"]


@dataclass(frozen=True)
class LlamaCppServer:
    """``base``: the address for ``dn.LM``."""

    base: str


@contextlib.contextmanager
def llama_cpp_server() -> Iterator[LlamaCppServer]:
    """Start the server, and stop it at the end of the block. Needs xllamacpp."""
    import xllamacpp

    from dspynb.lm.download import smollm2_path

    params = xllamacpp.CommonParams()
    params.model.path = str(smollm2_path())
    params.n_ctx = 8192
    params.n_parallel = 2
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.cpuparams.n_threads = 1  # two threads wait for each other on a busy machine
    params.cpuparams_batch.n_threads = 1
    params.n_threads_http = 2
    params.verbosity = -1
    params.ui = False
    params.warmup = False
    server = xllamacpp.Server(params)
    yield LlamaCppServer(f"{server.listening_address}/v1")
    del server
