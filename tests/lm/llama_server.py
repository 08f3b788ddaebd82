"""A real llama.cpp server with the embedded model, for tests. It listens on loopback."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

__all__ = ["llama_server"]


@contextlib.contextmanager
def llama_server() -> Iterator[str]:
    """The address of a server that runs until the end of the block: ``http://127.0.0.1:PORT/v1``."""
    import xllamacpp

    from dspynb.lm.download import smollm2_path

    params = xllamacpp.CommonParams()
    params.model.path = str(smollm2_path())
    params.n_ctx = 8192
    params.n_parallel = 2
    params.cpuparams.n_threads = 1  # two threads wait for each other, which is slow on a busy machine
    params.cpuparams_batch.n_threads = 1
    params.sampling.seed = 1  # of requests that name none
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_threads_http = 2
    params.verbosity = -1
    params.ui = False
    params.warmup = False
    server = xllamacpp.Server(params)
    yield f"{server.listening_address}/v1"
    del server
