"""Tools of agents: functions, modules and MCP servers."""

from dspynb.agents.tools.mcp import mcp_tools
from dspynb.agents.tools.tool import Observation, Tool

__all__ = [
    "Observation",
    "Tool",
    "mcp_tools",
]
