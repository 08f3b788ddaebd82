"""Conversion of a dspy.Tool to a dn.Tool."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dspynb.agents.tools.tool import Tool

__all__ = ["convert_tool"]


def convert_tool(dspy_tool: Any) -> Tool:
    """A dn.Tool of the same function, with the same name and description.

    If the arguments were described by hand, as those of MCP servers and LangChain are, the dn.Tool calls the dspy.Tool,
    which checks them.
    """
    default_tool = type(dspy_tool)(dspy_tool.func)  # with what DSPy derives from the function
    if dspy_tool.has_kwargs or dspy_tool.args != default_tool.args:
        return Tool.remote(dspy_tool.name, dspy_tool.desc or "", _schema(dspy_tool), _caller(dspy_tool))
    description = None
    if dspy_tool.desc != default_tool.desc:
        description = dspy_tool.desc
    return Tool(dspy_tool.func, name=dspy_tool.name, description=description)


def _schema(dspy_tool: Any) -> dict[str, Any]:
    required = [name for name, schema in dspy_tool.args.items() if "default" not in schema]
    return {"properties": dict(dspy_tool.args), "required": required}


def _caller(dspy_tool: Any) -> Any:
    async def call(arguments: Mapping[str, Any]) -> Any:
        return await dspy_tool.acall(**arguments)

    return call
