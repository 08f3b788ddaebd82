"""From a signature and values to messages, and from a reply back to typed values."""

from dspynb.adapters.base import Adapter, resolve_adapter
from dspynb.adapters.chat import ChatAdapter
from dspynb.adapters.json import JSONAdapter
from dspynb.adapters.native import NativeTools
from dspynb.adapters.prefill import PrefillAdapter

__all__ = ["Adapter", "ChatAdapter", "JSONAdapter", "NativeTools", "PrefillAdapter", "resolve_adapter"]
