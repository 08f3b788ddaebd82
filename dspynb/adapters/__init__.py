"""From a signature and values to messages, and from a reply back to typed values."""

from dspynb.adapters.base import Adapter
from dspynb.adapters.chat import ChatAdapter
from dspynb.adapters.json import JSONAdapter
from dspynb.adapters.native_tools import NativeTools
from dspynb.adapters.prefill import PrefillAdapter
from dspynb.adapters.resolve import resolve_adapter
from dspynb.adapters.values import parse_value

__all__ = ["Adapter", "ChatAdapter", "JSONAdapter", "NativeTools", "PrefillAdapter", "parse_value", "resolve_adapter"]
