"""Which tests of this folder are collected."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def _has_current_sdk() -> bool:
    """Whether OpenAI's SDK is installed with the types of the Responses API. An old litellm brings an older one."""
    try:
        return int(version("openai").partition(".")[0]) >= 3
    except PackageNotFoundError:
        return False


collect_ignore_glob = [] if _has_current_sdk() else ["test_responses*.py"]
