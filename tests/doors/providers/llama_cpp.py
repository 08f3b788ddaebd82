"""A real llama.cpp server with the embedded model. A model of 135M parameters cannot follow the chat format."""

from tests.doors.registry import Door, Reports, register
from tests.lm.llama_cpp_server import llama_cpp_server

register(
    Door(
        name="llama.cpp server, SmolLM2-135M",
        model="openai/smollm2",
        server=llama_cpp_server,
        reports=Reports(missing={"request_id": "no header has one", "reasoning": "the model does not think"}),
        settings={"max_tokens": 60},
        adapter="json",
        outcomes=("works", "reply not usable"),
        slow=True,
    )
)
