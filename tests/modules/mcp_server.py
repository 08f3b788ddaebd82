"""An MCP server for tests, over standard input and output or HTTP: ``python mcp_server.py [port]``."""

from __future__ import annotations

import os
import sys

from mcp.server import MCPServer

server = MCPServer("library")


@server.tool()
def search(query: str, limit: int = 3) -> str:
    """Search the library."""
    return f"{limit} on {query}"


@server.tool(name="add.two")
def add(a: int, b: int) -> dict[str, int]:
    """Add two numbers."""
    return {"sum": a + b}


@server.tool()
def fail() -> str:
    """Always fails."""
    raise ValueError("out of paper")


@server.tool()
def die() -> str:
    """Ends the server."""
    os._exit(3)


@server.tool()
def environment(name: str) -> str:
    """A variable of the server's environment."""
    return os.environ.get(name, "(not set)")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
    else:
        server.run("stdio")
