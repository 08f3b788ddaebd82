"""The tools of MCP servers: real processes, over standard input and output and over HTTP."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import dspynb as dn
from dspynb.errors import ConfigurationError, RunStopped
from dspynb.events import SpanStarted
from tests.lm.server import Server
from tests.modules.test_react import ANSWER, DONE, step

pytest.importorskip("mcp")
SERVER = Path(__file__).with_name("mcp_server.py")
COMMAND = [sys.executable, str(SERVER)]


def named(tools):
    return {tool.name: tool for tool in tools}


def test_the_tools_of_a_server_have_its_names_descriptions_and_schemas():
    async def main():
        async with dn.mcp_tools(command=COMMAND) as tools:
            return named(tools)

    tools = asyncio.run(main())
    assert list(tools) == ["search", "add_two", "fail", "die", "environment"]
    assert tools["search"].description == "Search the library."
    assert tools["search"].schema["required"] == ["query"]
    assert tools["search"].schema["properties"]["limit"]["default"] == 3


def test_react_calls_them():
    async def main():
        async with dn.mcp_tools(command=COMMAND) as tools:
            return await dn.ReAct("question -> answer", tools)(question="q?")

    lm = dn.ScriptedLM([step("search", query="sea"), step("add_two", a=1, b=2), DONE, ANSWER])
    with dn.context(lm=lm):
        prediction = asyncio.run(main())
    first, second, _ = [s["observation"] for s in prediction.trajectory]
    assert first == "3 on sea"
    assert '"sum"' in second
    assert "3" in second


def test_what_goes_wrong_in_the_server_is_an_observation():
    async def main():
        async with dn.mcp_tools(command=COMMAND) as tools:
            by_name = named(tools)
            observations = [
                await by_name["fail"]({}),
                await by_name["search"]({"limit": "x"}),
                await by_name["search"]("{no"),
            ]
            observations += [await by_name["die"]({}), await by_name["search"]({"query": "x"})]
        return [*observations, await by_name["search"]({"query": "x"})]

    began = time.perf_counter()
    fail, wrong, broken, died, ended, closed = asyncio.run(main())
    assert time.perf_counter() - began < 20
    assert not any(observation.ok for observation in (fail, wrong, broken, died, ended, closed))
    assert "fail failed" in fail.text
    assert "query" in wrong.text
    assert "not JSON" in broken.text
    assert "the MCP server" in died.text
    assert "the MCP server" in ended.text
    assert "inside the `async with" in closed.text


def test_an_error_in_the_block_is_raised_as_it_is_and_the_server_ends():
    pids = []

    async def main():
        async with dn.mcp_tools(command=COMMAND) as tools:
            pids.append(tools)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        asyncio.run(main())


def test_calls_at_the_same_time_get_their_own_answers():
    async def main():
        async with dn.mcp_tools(command=COMMAND) as tools:
            search = named(tools)["search"]
            return await asyncio.gather(*(search({"query": f"q{i}"}) for i in range(20)))

    assert [observation.text for observation in asyncio.run(main())] == [f"3 on q{i}" for i in range(20)]


def test_a_command_may_be_text_and_have_an_environment():
    async def main():
        async with dn.mcp_tools(command=f"{sys.executable} '{SERVER}'", env={"WHO": "me"}) as tools:
            return (await named(tools)["environment"]({"name": "WHO"})).text

    assert asyncio.run(main()) == "me"


def test_a_server_that_does_not_start_is_an_error_with_its_output_but_without_secrets():
    failing = "import os, sys; print('no licence', os.environ['KEY'], file=sys.stderr); sys.exit(1)"
    for command, problem in [
        ([sys.executable, "-c", failing], r"did not answer.*no licence \*\*\*"),
        (["/no/such/program"], "did not answer.*No such file"),
        ("", "command= is empty"),
    ]:

        async def main(command=command):
            async with dn.mcp_tools(command=command, env={"KEY": "sk-secret"}):
                raise AssertionError("unreachable")

        with pytest.raises(ConfigurationError, match=problem) as caught:
            asyncio.run(main())
        assert "sk-secret" not in str(caught.value)


def test_a_server_that_never_answers_is_an_error_after_the_timeout():
    async def main():
        async with dn.mcp_tools(command=[sys.executable, "-c", "import sys; sys.stdin.read()"], timeout=0.5):
            raise AssertionError("unreachable")

    with pytest.raises(ConfigurationError, match=r"did not answer within 0.5 s"):
        asyncio.run(main())


def test_exactly_one_source_is_required():
    async def main(**sources):
        async with dn.mcp_tools(**sources):
            raise AssertionError("unreachable")

    for sources in ({}, {"command": "x", "url": "http://127.0.0.1"}):
        with pytest.raises(ConfigurationError, match="exactly one of command=, url= and session="):
            asyncio.run(main(**sources))


def test_without_the_package_the_error_has_the_pip_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "mcp", None)

    async def main():
        async with dn.mcp_tools(command="x"):
            raise AssertionError("unreachable")

    with pytest.raises(ConfigurationError, match=r'pip install "dspynb\[mcp\]"'):
        asyncio.run(main())


def test_a_session_of_the_users_is_used_and_left_open():
    import mcp

    async def main():
        parameters = mcp.StdioServerParameters(command=COMMAND[0], args=COMMAND[1:])
        async with mcp.Client(mcp.stdio_client(parameters)) as client:
            for session in (client, client.session):
                async with dn.mcp_tools(session=session) as tools:
                    observation = await named(tools)["search"]({"query": "x", "limit": 2})
                assert observation.text == "2 on x"
            return (await client.call_tool("search", {"query": "still"})).content[0].text

    assert asyncio.run(main()) == "3 on still"


def test_a_stop_ends_a_call_under_way_and_leaves_the_server_usable():
    async def main():
        async with dn.mcp_tools(command=[sys.executable, "-c", SLOW]) as tools:
            (wait,) = tools
            with dn.context(lm=dn.ScriptedLM([step("wait", seconds=60)])):
                run = dn.ReAct("question -> answer", tools).start(question="q?")
                async for event in run.events():
                    if isinstance(event, SpanStarted) and event.kind == "tool":
                        break
                stopped_at = time.perf_counter()
                run.stop()
                with pytest.raises(RunStopped):
                    await run
                assert time.perf_counter() - stopped_at < 20  # the call takes 60 s
            return (await wait({"seconds": 0})).text

    assert asyncio.run(main()) == "waited 0.0"


SLOW = """
import asyncio
from mcp.server import MCPServer
server = MCPServer("slow")
@server.tool()
async def wait(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return f"waited {seconds}"
server.run("stdio")
"""


def test_a_call_from_another_event_loop_fails_instead_of_hanging():
    async def main():
        async with dn.mcp_tools(command=COMMAND) as tools:
            results = []
            thread = threading.Thread(
                target=lambda: results.append(asyncio.run(named(tools)["search"]({"query": "x"})))
            )
            thread.start()
            await asyncio.to_thread(thread.join, 20)
            return results[0]

    assert "another event loop" in asyncio.run(main()).text


def test_a_server_is_reached_over_http():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([*COMMAND, str(port)], stderr=subprocess.DEVNULL)

    async def main():
        for _ in range(200):
            try:
                async with dn.mcp_tools(url=f"http://127.0.0.1:{port}/mcp") as tools:
                    return (await named(tools)["search"]({"query": "sea"})).text
            except ConfigurationError:
                await asyncio.sleep(0.1)
        return None

    try:
        assert asyncio.run(main()) == "3 on sea"
    finally:
        process.kill()
        process.wait()


def test_a_server_that_is_not_there_is_a_configuration_error():
    async def main():
        async with dn.mcp_tools(url="http://127.0.0.1:9/mcp"):
            raise AssertionError("unreachable")

    with pytest.raises(ConfigurationError, match="did not answer"):
        asyncio.run(main())


def test_the_error_of_a_refusing_server_has_no_secrets_of_its_address():
    def refuse(body, number):
        return {"jsonrpc": "2.0", "id": body.get("id"), "error": {"code": -1, "message": "private2 is no token"}}

    async def main(url):
        async with dn.mcp_tools(url=url):
            raise AssertionError("unreachable")

    with (
        Server(refuse) as server,
        pytest.raises(ConfigurationError, match=r"did not answer.*\*\*\* is no token") as caught,
    ):
        asyncio.run(main(f"{server.base}/chat/completions?token=private2"))
    assert "private2" not in str(caught.value)
