"""The tools of an MCP server (Model Context Protocol), through its official client, the extra ``mcp``."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import re
import shlex
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import IO, Any
from urllib.parse import parse_qsl, urlsplit

from dspynb.agents.tools.tool import Tool, ToolFailed
from dspynb.errors import ConfigurationError, shorten
from dspynb.redact import redact
from dspynb.running.aio.tasks import end_tasks

__all__ = ["mcp_tools"]

_SHORTEST_SECRET = 6

_MISSING = 'MCP tools need the package mcp: pip install "dspynb[mcp]"'
_PAGES = 100


@contextlib.asynccontextmanager
async def mcp_tools(
    *,
    command: str | Sequence[str] | None = None,
    url: str | None = None,
    session: Any = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 30.0,  # noqa: ASYNC109  # of the connection, not of the block
) -> AsyncIterator[list[Tool]]:
    """``async with mcp_tools(command="python server.py") as tools``: a server's tools, for the block.

    One of: ``command``, which starts a server that talks over its standard input and output (a list, or text split as
    a shell would); ``url`` of a server that is there (streamable HTTP); ``session``, an open ``mcp.Client`` or
    ``ClientSession`` of yours, for headers, sign-in and the like. ``env``: environment variables of the command, beside
    the few that are inherited (HOME, PATH, …). ``timeout``: seconds that the server has to answer at first.

    A tool that the server says failed, or a server that is gone, is an observation. Characters that providers do not
    take in names become ``_``. Raises ConfigurationError when there is no server or the package is missing.

    >>> from mcp import Client
    >>> from mcp.server import MCPServer
    >>> server = MCPServer("sums")  # in this process, in place of command= or url=
    >>> @server.tool()
    ... def add(a: int, b: int) -> int:
    ...     return a + b
    >>> async def main():
    ...     async with Client(server) as session, dn.mcp_tools(session=session) as tools:
    ...         return tools, (await tools[0]({"a": 2, "b": 2})).text
    >>> dn.run_sync(main)
    ([Tool(add)], '4')
    """
    if sum(given is not None for given in (command, url, session)) != 1:
        raise ConfigurationError("mcp_tools takes one of command=, url= and session=")
    if session is not None:
        yield await _listed(session, _Link(session, redact))
        return
    _import()
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        said = _Said(log, env or {}, url)
        link = await _connected(_client(command, url, env, log), said, timeout)
        try:
            yield await _listed(link.session, link)
        finally:
            await link.close()


def _import() -> Any:
    try:
        import mcp
    except ImportError as error:
        raise ConfigurationError(f"{_MISSING} ({error})") from None
    if not hasattr(mcp, "Client"):
        raise ConfigurationError('the package mcp is too old: pip install "mcp>=2"')
    return mcp


def _client(command: str | Sequence[str] | None, url: str | None, env: Mapping[str, str] | None, log: IO[str]) -> Any:
    mcp = _import()
    if command is None:
        return mcp.Client(url)
    words = shlex.split(command) if isinstance(command, str) else [str(word) for word in command]
    if not words:
        raise ConfigurationError("command= is empty; give the program that is the server, and its arguments")
    parameters = mcp.StdioServerParameters(command=words[0], args=words[1:], env=dict(env) if env else None)
    return mcp.Client(mcp.stdio_client(parameters, errlog=log))  # a notebook's sys.stderr is no file


class _Said:
    """What a server wrote to its error output; and the secrets that no text about it is to show."""

    def __init__(self, log: IO[str], env: Mapping[str, str], url: str | None) -> None:
        where = urlsplit(url or "")
        self._log = log
        self._secrets = [*env.values(), where.query, where.password, *(v for _, v in parse_qsl(where.query))]

    def without_secrets(self, text: str) -> str:
        """The text without the environment's values, and the password and query of the address."""
        for secret in sorted(filter(None, self._secrets), key=len, reverse=True):
            text = text.replace(secret, "***") if len(secret) >= _SHORTEST_SECRET else text
        return redact(text)

    def __str__(self) -> str:
        self._log.seek(0)
        text = self.without_secrets(self._log.read()[-4000:])
        return f"; it said: {shorten(text[-600:])}" if text.strip() else ""


class _Link:
    """A session and the task that holds it open; no task where the session is the user's."""

    def __init__(
        self,
        session: Any,
        without_secrets: Callable[[str], str],
        owner: asyncio.Task[None] | None = None,
        leave: asyncio.Event | None = None,
    ) -> None:
        self.session, self._without_secrets, self._owner, self._leave = session, without_secrets, owner, leave
        self._loop = asyncio.get_running_loop()
        self._closed = False

    async def call(self, make: Callable[[], Awaitable[Any]]) -> Any:
        """The answer to one request. Raises ToolFailed when the server is gone or out of reach."""
        if self._closed:
            raise ToolFailed("the MCP server was closed; call its tools inside the `async with mcp_tools(…)` block")
        if asyncio.get_running_loop() is not self._loop:
            raise ToolFailed("the MCP server belongs to another event loop; await the program where the block is")
        task = asyncio.ensure_future(make())
        try:
            await asyncio.wait([task, *([self._owner] if self._owner else [])], return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise ToolFailed("the MCP server has ended")
            return task.result()
        except ToolFailed:
            raise
        except Exception as error:
            raise ToolFailed(f"the MCP server failed: {self._without_secrets(_first(error))}") from None
        finally:
            await end_tasks([task])

    async def close(self) -> None:
        """End the connection, and with it a server that was started for it."""
        self._closed = True
        if self._leave is not None and self._owner is not None:
            self._leave.set()
            try:
                await asyncio.wait([self._owner], timeout=10)
            finally:
                await end_tasks([self._owner])


async def _connected(client: Any, said: _Said, timeout: float) -> _Link:  # noqa: ASYNC109
    """A link, once the server has answered. Raises ConfigurationError.

    The client is entered and left in a task of its own: it cancels the task that entered it when the server fails,
    and wraps what is raised inside it in groups, neither of which is to reach the user's block.
    """
    ready, leave = asyncio.get_running_loop().create_future(), asyncio.Event()
    owner = asyncio.create_task(_hold(client, ready, leave), name="dspynb mcp client")
    try:
        await asyncio.wait([owner, ready], timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        await end_tasks([owner])
        raise
    if ready.done():
        return _Link(client, said.without_secrets, owner, leave)
    failed = owner.exception() if owner.done() and not owner.cancelled() else None
    await end_tasks([owner])
    why = f"({said.without_secrets(_first(failed))})" if failed else f"within {timeout:g} s"
    raise ConfigurationError(f"the MCP server did not answer {why}{said}")


async def _hold(client: Any, ready: asyncio.Future[None], leave: asyncio.Event) -> None:
    async with client:
        ready.set_result(None)
        await leave.wait()


def _first(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return shorten(f"{type(error).__name__}: {error}")


async def _listed(session: Any, link: _Link) -> list[Tool]:
    """All tools of the server, page by page."""
    tools: list[Tool] = []
    cursor: str | None = None
    for _ in range(_PAGES):
        try:
            page = await link.call(functools.partial(_list, session, cursor))
        except ToolFailed as error:
            raise ConfigurationError(f"the MCP server did not list its tools: {error}") from None
        tools += [_tool(session, link, told) for told in page.tools]
        cursor = page.next_cursor
        if not cursor:
            break
    return tools


def _list(session: Any, cursor: str | None) -> Awaitable[Any]:
    if hasattr(session, "session"):  # a Client
        return session.list_tools(cursor=cursor)  # type: ignore[no-any-return]
    from mcp.types import PaginatedRequestParams

    return session.list_tools(params=PaginatedRequestParams(cursor=cursor))  # type: ignore[no-any-return]


def _tool(session: Any, link: _Link, told: Any) -> Tool:
    async def call(arguments: Mapping[str, Any]) -> str:
        result = await link.call(lambda: session.call_tool(told.name, dict(arguments)))
        text = _text(result)
        if result.is_error:
            raise ToolFailed(f"{told.name} failed: {text}")
        return text

    name = re.sub(r"[^a-zA-Z0-9_-]", "_", told.name)[:64]
    return Tool.remote(name, told.description or told.title or "", told.input_schema, call)


def _text(result: Any) -> str:
    parts = [_part(part) for part in result.content]
    if not parts and result.structured_content is not None:
        return json.dumps(result.structured_content, ensure_ascii=False, default=str)
    return "\n".join(parts)


def _part(part: Any) -> str:
    """A part of a result as text; what is not text is named."""
    text = getattr(part, "text", None) or getattr(getattr(part, "resource", None), "text", None)
    if isinstance(text, str):
        return text
    what = getattr(part, "uri", None) or getattr(part, "mime_type", None)
    return f"[{part.type}{f' {what}' if what else ''}]"
