"""Values as text in prompts: whole, or without their middle, but never reformatted."""

from __future__ import annotations

__all__ = ["excerpt", "labelled"]


def excerpt(value: object, limit: int) -> str:
    """``str(value)`` with its line breaks and indentation, which code, YAML and Markdown need.

    The middle of a text of more than about ``limit`` characters is left out.
    """
    text = str(value).replace("\r\n", "\n").rstrip().lstrip("\n")
    if len(text) <= limit:
        return text
    head = text[: limit // 2]
    tail = text[-(limit // 2) :]
    mark = f"… [{len(text) - len(head) - len(tail)} characters] …"
    separator = "\n" if "\n" in text else " "
    shortened = separator.join([head, mark, tail])
    return shortened if len(shortened) < len(text) else text


def labelled(name: str, value: object, limit: int, sign: str = ":") -> str:
    """``name: value``. A value of several lines begins on a line of its own."""
    text = excerpt(value, limit)
    separator = "\n" if "\n" in text else " "
    return f"{name}{sign}{separator}{text}"
