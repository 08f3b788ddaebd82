"""Values as text in prompts: whole, or without their middle, but never reformatted."""

from __future__ import annotations

__all__ = ["excerpt", "excerpt_of_parts", "labelled"]


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


def excerpt_of_parts(text: str, limit: int) -> str:
    """A text without its middle, like ``excerpt``, but cut between paragraphs, else between lines, if a part that fits
    takes at least half of ``limit``. So examples that are separated by empty lines stay whole."""
    if len(text) <= limit:
        return text
    for separator in ("\n\n", "\n"):
        shortened = _outer_parts(text.split(separator), separator, limit)
        if len(shortened) >= limit // 2:
            return shortened
    return excerpt(text, limit)


def _outer_parts(parts: list[str], separator: str, limit: int) -> str:
    """As many parts as fit, by turns from the beginning and the end, with a mark for those between."""
    begin = 0
    end = len(parts)
    room = limit
    while begin < end:
        from_end = begin > len(parts) - end
        part = parts[end - 1] if from_end else parts[begin]
        room -= len(part) + len(separator)
        if room < 0:
            break
        if from_end:
            end -= 1
        else:
            begin += 1
    if begin + len(parts) - end == 0:
        return ""
    left_out = len(separator.join(parts[begin:end]))
    return separator.join([*parts[:begin], f"… [{left_out} characters] …", *parts[end:]])
