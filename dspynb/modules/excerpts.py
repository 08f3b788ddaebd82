"""Values as models are shown them: whole, or with the middle left out, but never reformatted."""

from __future__ import annotations

__all__ = ["excerpt", "labelled"]


def excerpt(value: object, limit: int) -> str:
    """``str(value)`` with its line breaks and indentation, which code, YAML and Markdown need.

    Of more than about ``limit`` characters the middle is left out.
    """
    text = str(value).replace("\r\n", "\n").rstrip().lstrip("\n")
    if len(text) <= limit:
        return text
    head, tail = text[: limit // 2], text[-(limit // 2) :]
    mark = f"… [{len(text) - len(head) - len(tail)} characters] …"
    cut = f"{head}\n{mark}\n{tail}" if "\n" in text else f"{head} {mark} {tail}"
    return cut if len(cut) < len(text) else text


def labelled(name: str, value: object, limit: int, sign: str = ":") -> str:
    """``name: value``; a value of several lines begins on a line of its own."""
    text = excerpt(value, limit)
    return f"{name}{sign}\n{text}" if "\n" in text else f"{name}{sign} {text}"
