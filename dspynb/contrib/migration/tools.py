"""A dspy.Tool as a dn.Tool."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dspynb.agents.tools.tool import Tool

__all__ = ["tool_of"]


def tool_of(theirs: Any) -> Tool:
    """The same function under the same name. One whose arguments were described by hand (an MCP server's, LangChain's)
    stays behind DSPy's tool, which checks them."""
    plain = type(theirs)(theirs.func)  # what DSPy reads off the function alone
    if theirs.has_kwargs or theirs.args != plain.args:
        return Tool.remote(theirs.name, theirs.desc or "", _schema(theirs), _caller(theirs))
    return Tool(theirs.func, name=theirs.name, description=None if theirs.desc == plain.desc else theirs.desc)


def _schema(theirs: Any) -> dict[str, Any]:
    required = [name for name, schema in theirs.args.items() if "default" not in schema]
    return {"properties": dict(theirs.args), "required": required}


def _caller(theirs: Any) -> Any:
    async def call(arguments: Mapping[str, Any]) -> Any:
        return await theirs.acall(**arguments)

    return call
