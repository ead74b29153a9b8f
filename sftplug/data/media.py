"""Pictures, recordings and films in rows: sftplug trains on text, and a placeholder is not what they show."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sftplug.errors import RowError
from sftplug.types.conversation import Message

_KINDS = {"image": "an image", "audio": "a recording", "video": "a video", "file": "a file", "document": "a file"}
_COLUMN = re.compile(r"(image|picture|photo|audio|video)s?(_(path|url|file|name|bytes)s?)?", re.IGNORECASE)
_FILE = re.compile(
    r"data:(image|audio|video)/"
    r"|[A-Za-z0-9+/\s]{200,}=*\Z"  # base64
    r"|.*\.(jpe?g|png|gif|webp|bmp|tiff?|heic|avif|mp3|wav|flac|ogg|m4a|mp4|webm|mov|avi|mkv)([?#].*)?\Z",
    re.IGNORECASE,
)
_PLACEHOLDER = re.compile(r"<(image|video|audio)>|<\|(image|video|audio)(_pad|_soft_token)?\|>")

TEXT_ONLY = "sftplug trains on text only, and what the model should see there would be missing"


def refuse_parts(where: str, content: Any) -> None:
    """Raise RowError for a part of a message that is no text."""
    if content is None or isinstance(content, str):
        return
    for index, part in enumerate(content):
        sort = str(part.get("type", "text"))
        if sort != "text":
            kind = next((words for word, words in _KINDS.items() if word in sort), f"of the type '{sort}'")
            raise RowError(f"{where}[{index}]", f"is {kind}: {TEXT_ONLY}")


def refuse_keys(unread: Sequence[str]) -> None:
    """Raise RowError for keys of messages that hold media, such as ``messages[].images``: to ignore them is no way."""
    for path in unread:
        key = path.rpartition(".")[2]
        if _COLUMN.fullmatch(key):
            kind = next((words for word, words in _KINDS.items() if word in key.lower()), _KINDS["image"])
            raise RowError(path, f"is {kind}: {TEXT_ONLY}")


def refuse_columns(
    data: Mapping[str, Any], read: set[str], ignored: Sequence[str], messages: Sequence[Message]
) -> None:
    """Raise RowError for a column of media that nothing reads, and for placeholders of what such a column holds.

    `ignored` are columns that the source leaves out: without its picture, ``<image>`` in a text is a bare placeholder.
    """
    if not ignored and data.keys() <= read:
        return  # as in nearly all rows
    for column in data:
        if column not in read and _COLUMN.fullmatch(str(column)) and (kind := _medium(data[column], column)):
            raise RowError(str(column), f"is {kind}: {TEXT_ONLY}")
    left_out = [name for name in (*ignored, *map(str, data)) if name not in read and _COLUMN.fullmatch(name)]
    for where, text in _texts(messages) if left_out else ():
        if found := _PLACEHOLDER.search(text):
            raise RowError(where, f"holds {found[0]}, which stands for what `{left_out[0]}` shows: {TEXT_ONLY}")


def _medium(value: Any, column: str) -> str | None:
    """Return what media a value is, or is the address of; None for anything else, such as the name of a container."""
    for item in value if isinstance(value, list | tuple) else [value]:
        if isinstance(item, Mapping) and {"array", "sampling_rate"} <= item.keys():
            return _KINDS["audio"]
        inner = (item.get("bytes"), item.get("path"), item.get("url")) if isinstance(item, Mapping) else (item,)
        if any(isinstance(one, bytes) or (isinstance(one, str) and _FILE.match(one)) for one in inner):
            return next((words for word, words in _KINDS.items() if word in column.lower()), _KINDS["image"])
    return None


def _texts(messages: Sequence[Message]) -> Iterator[tuple[str, str]]:
    for index, message in enumerate(messages):
        content = message.content
        for text in [content] if isinstance(content, str) else [part.get("text") for part in content or ()]:
            if isinstance(text, str):
                yield f"messages[{index}]", text
