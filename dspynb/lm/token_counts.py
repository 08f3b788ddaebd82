"""Exact numbers of tokens, for models whose tokenizer is known: those of OpenAI, with the vocabularies of litellm."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from dspynb.lm.providers.litellm_files import litellm_file

if TYPE_CHECKING:
    import tiktoken

__all__ = ["token_counter"]

_VARIABLE = "TIKTOKEN_CACHE_DIR"
_VOCABULARIES = "litellm_core_utils/tokenizers"
_PROVIDERS = ("openai", "azure", "azure_ai", "openai_like", "openrouter")
_ADDRESS = "https://openaipublic.blob.core.windows.net/encodings/{name}.tiktoken"
"""The address of a vocabulary. tiktoken names its copy after it."""
_ENCODINGS = {
    "o200k_base": ("gpt-4o", "gpt-4.1", "gpt-4.5", "gpt-5", "gpt-oss", "chatgpt-4o", "o1", "o3", "o4-"),
    "cl100k_base": ("gpt-4-", "gpt-3.5-turbo", "gpt-35-turbo"),
}
"""Tokenizer → how the names of its models begin. Old releases of tiktoken do not know the names of new models."""
_LONGEST = 200_000
"""Characters of a text that is counted. A longer one takes tiktoken seconds if it has no blanks."""
_lock = threading.Lock()


def token_counter(model: str) -> Callable[[str], int | None] | None:
    """A function that counts the tokens of a text for ``provider/model``; None if the tokenizer is not known. It
    returns None for a text that is too long to be counted quickly. The first call loads a vocabulary, which takes about
    a second."""
    provider, _, name = model.partition("/")
    name = name.rpartition("/")[2]
    encoding_name = _encoding_name(name.removeprefix("ft:"))
    if provider not in _PROVIDERS or encoding_name is None:
        return None

    def count(text: str) -> int | None:
        if len(text) > _LONGEST:
            return None
        encoding = _encoding(encoding_name)
        if encoding is None:
            return None
        try:
            return len(encoding.encode_ordinary(text))
        except UnicodeError:  # halves of surrogate pairs
            return None

    return count


def _encoding_name(model: str) -> str | None:
    if model == "gpt-4":
        return "cl100k_base"
    return next((encoding for encoding, names in _ENCODINGS.items() if model.startswith(names)), None)


@lru_cache(maxsize=8)
def _encoding(name: str) -> tiktoken.Encoding | None:
    """A tokenizer. It is read from litellm's folder, and never downloaded; None if that does not have it."""
    folder = litellm_file(_VOCABULARIES)
    if folder is None or not _has_vocabulary(name, folder):
        return None
    try:
        import tiktoken
    except ImportError:
        return None
    with _lock:
        earlier = os.environ.get(_VARIABLE)
        os.environ[_VARIABLE] = str(folder)
        try:
            return tiktoken.get_encoding(name)
        except Exception:  # a file that was changed is downloaded anew, which may fail in any way
            return None
        finally:
            if earlier is None:
                del os.environ[_VARIABLE]
            else:
                os.environ[_VARIABLE] = earlier


def _has_vocabulary(encoding: str, folder: Path) -> bool:
    address = _ADDRESS.format(name=encoding)
    return (folder / hashlib.sha1(address.encode()).hexdigest()).is_file()  # noqa: S324  # a file name
