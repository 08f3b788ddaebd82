"""Tools of an MCP server (Model Context Protocol), called with the official client (the extra ``mcp``)."""

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

_MIN_SECRET_LENGTH = 6

_MISSING = 'MCP tools need the package mcp: pip install "dspynb[mcp]"'
_MAX_PAGES = 100


@contextlib.asynccontextmanager
async def mcp_tools(
    *,
    command: str | Sequence[str] | None = None,
    url: str | None = None,
    session: Any = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 30.0,  # noqa: ASYNC109  # for connecting, not for the block
) -> AsyncIterator[list[Tool]]:
    """Connect to an MCP server and yield its tools: ``async with mcp_tools(command="python server.py") as tools``.

    Exactly one of ``command``, ``url`` and ``session`` is required. A failed tool, or a server that has ended, becomes
    an observation. Characters that providers do not accept in names are replaced by ``_``.

    Args:
        command: Starts a server that communicates over its standard input and output. A list, or a text that is split
            as in a shell.
        url: The address of a running server (streamable HTTP).
        session: An open ``mcp.Client`` or ``ClientSession``, for example with headers or sign-in.
        env: Environment variables of the command, beside the few that it inherits (HOME, PATH, …).
        timeout: Seconds that the server has for its first answer.

    Raises:
        ConfigurationError: The server cannot be reached, or the package ``mcp`` is missing.

    >>> from mcp import Client
    >>> from mcp.server import MCPServer
    >>> server = MCPServer("sums")  # in this process; usually command= or url=
    >>> @server.tool()
    ... def add(a: int, b: int) -> int:
    ...     return a + b
    >>> async def main():
    ...     async with Client(server) as session, dn.mcp_tools(session=session) as tools:
    ...         return tools, (await tools[0]({"a": 2, "b": 2})).text
    >>> dn.run_sync(main)
    ([Tool(add)], '4')
    """
    targets = [target for target in (command, url, session) if target is not None]
    if len(targets) != 1:
        raise ConfigurationError("mcp_tools takes exactly one of command=, url= and session=")
    if session is not None:
        yield await _list_tools(_Connection(session, redact))
        return
    _import_mcp()
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        server_log = _ServerLog(log, env or {}, url)
        connection = await _connect(_client(command, url, env, log), server_log, timeout)
        try:
            yield await _list_tools(connection)
        finally:
            await connection.close()


def _import_mcp() -> Any:
    try:
        import mcp
    except ImportError as error:
        raise ConfigurationError(f"{_MISSING} ({error})") from None
    if not hasattr(mcp, "Client"):
        raise ConfigurationError('the package mcp is too old: pip install "mcp>=2"')
    return mcp


def _client(command: str | Sequence[str] | None, url: str | None, env: Mapping[str, str] | None, log: IO[str]) -> Any:
    mcp = _import_mcp()
    if command is None:
        return mcp.Client(url)
    words = shlex.split(command) if isinstance(command, str) else [str(word) for word in command]
    if not words:
        raise ConfigurationError("command= is empty; it must be the program of the server and its arguments")
    parameters = mcp.StdioServerParameters(command=words[0], args=words[1:], env=dict(env) if env else None)
    return mcp.Client(mcp.stdio_client(parameters, errlog=log))  # the sys.stderr of a notebook is not a file


class _ServerLog:
    """The error output of a server. Removes the secrets of its environment and address from texts."""

    def __init__(self, log: IO[str], env: Mapping[str, str], url: str | None) -> None:
        address = urlsplit(url or "")
        self._log = log
        self._secrets = [*env.values(), address.query, address.password]
        self._secrets += [value for _, value in parse_qsl(address.query)]

    def without_secrets(self, text: str) -> str:
        """Replace the values of the environment, and the password and query of the address, by ``***``."""
        for secret in sorted(filter(None, self._secrets), key=len, reverse=True):
            if len(secret) >= _MIN_SECRET_LENGTH:
                text = text.replace(secret, "***")
        return redact(text)

    def __str__(self) -> str:
        self._log.seek(0)
        text = self.without_secrets(self._log.read()[-4000:])
        if not text.strip():
            return ""
        return f"; its error output: {shorten(text[-600:])}"


class _Connection:
    """A session with a server. ``owner`` is the task that holds it open until ``leave`` is set; None for a session of
    the user's own."""

    def __init__(
        self,
        session: Any,
        without_secrets: Callable[[str], str],
        owner: asyncio.Task[None] | None = None,
        leave: asyncio.Event | None = None,
    ) -> None:
        self.session = session
        self._without_secrets = without_secrets
        self._owner = owner
        self._leave = leave
        self._loop = asyncio.get_running_loop()
        self._closed = False

    async def call(self, make: Callable[[], Awaitable[Any]]) -> Any:
        """Send one request and return its result. Raises ToolFailed if the server fails or cannot be reached."""
        if self._closed:
            raise ToolFailed("the MCP server was closed; call its tools inside the `async with mcp_tools(…)` block")
        if asyncio.get_running_loop() is not self._loop:
            raise ToolFailed("the MCP server belongs to another event loop; await the program where the block is")
        task = asyncio.ensure_future(make())
        tasks = [task]
        if self._owner:
            tasks.append(self._owner)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise ToolFailed("the MCP server has ended")
            return task.result()
        except ToolFailed:
            raise
        except Exception as error:
            raise ToolFailed(f"the MCP server failed: {self._without_secrets(_first_error(error))}") from None
        finally:
            await end_tasks([task])

    async def close(self) -> None:
        """Close the connection, and end a server that was started for it."""
        self._closed = True
        if self._leave is not None and self._owner is not None:
            self._leave.set()
            try:
                await asyncio.wait([self._owner], timeout=10)
            finally:
                await end_tasks([self._owner])


async def _connect(
    client: contextlib.AbstractAsyncContextManager[Any],
    server_log: _ServerLog,
    timeout: float,  # noqa: ASYNC109
) -> _Connection:
    """Wait until the server answers, and return the connection. Raises ConfigurationError if it does not answer.

    The client is entered and left in a task of its own. When the server fails, the client cancels the task that has
    entered it, and wraps exceptions in groups; the user's block must see neither.
    """
    ready = asyncio.get_running_loop().create_future()
    leave = asyncio.Event()
    owner = asyncio.create_task(_hold_open(client, ready, leave), name="dspynb mcp client")
    try:
        await asyncio.wait([owner, ready], timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        await end_tasks([owner])
        raise
    if ready.done():
        return _Connection(client, server_log.without_secrets, owner, leave)
    error = owner.exception() if owner.done() and not owner.cancelled() else None
    await end_tasks([owner])
    reason = f"within {timeout:g} s"
    if error:
        reason = f"({server_log.without_secrets(_first_error(error))})"
    raise ConfigurationError(f"the MCP server did not answer {reason}{server_log}")


async def _hold_open(
    client: contextlib.AbstractAsyncContextManager[Any], ready: asyncio.Future[None], leave: asyncio.Event
) -> None:
    async with client:
        ready.set_result(None)
        await leave.wait()


def _first_error(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return shorten(f"{type(error).__name__}: {error}")


async def _list_tools(connection: _Connection) -> list[Tool]:
    """Return all tools of the server."""
    tools: list[Tool] = []
    cursor: str | None = None
    for _ in range(_MAX_PAGES):
        try:
            page = await connection.call(functools.partial(_request_page, connection.session, cursor))
        except ToolFailed as error:
            raise ConfigurationError(f"the MCP server did not list its tools: {error}") from None
        tools += [_tool(connection, description) for description in page.tools]
        cursor = page.next_cursor
        if not cursor:
            break
    return tools


def _request_page(session: Any, cursor: str | None) -> Awaitable[Any]:
    if hasattr(session, "session"):  # a Client
        return session.list_tools(cursor=cursor)  # type: ignore[no-any-return]
    from mcp.types import PaginatedRequestParams

    return session.list_tools(params=PaginatedRequestParams(cursor=cursor))  # type: ignore[no-any-return]


def _tool(connection: _Connection, description: Any) -> Tool:
    async def call(arguments: Mapping[str, Any]) -> str:
        request = functools.partial(connection.session.call_tool, description.name, dict(arguments))
        result = await connection.call(request)
        text = _result_text(result)
        if result.is_error:
            raise ToolFailed(f"{description.name} failed: {text}")
        return text

    name = re.sub(r"[^a-zA-Z0-9_-]", "_", description.name)[:64]
    return Tool.remote(name, description.description or description.title or "", description.input_schema, call)


def _result_text(result: Any) -> str:
    parts = [_part_text(part) for part in result.content]
    if not parts and result.structured_content is not None:
        return json.dumps(result.structured_content, ensure_ascii=False, default=str)
    return "\n".join(parts)


def _part_text(part: Any) -> str:
    """Return the text of a part of a result. For other parts, such as images, name their type and address."""
    text = getattr(part, "text", None) or getattr(getattr(part, "resource", None), "text", None)
    if isinstance(text, str):
        return text
    detail = getattr(part, "uri", None) or getattr(part, "mime_type", None)
    return f"[{part.type} {detail}]" if detail else f"[{part.type}]"
