"""Files that are either as they were or as they should be, whenever the machine stops."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sftplug.errors import RunError


def atomic_write(file: Path, text: str, *, private: bool = False) -> None:
    """Write `text` beside `file`, force it to the disk, and put it in the place of `file` in one step.

    What is `private` can be read by its owner alone.
    """
    beside = file.with_name(f".{file.name}.new")
    try:
        if private:
            # Private from the first byte on: a mode that is set afterwards comes too late for whoever opened it before.
            beside.unlink(missing_ok=True)
            beside.touch(mode=0o600, exist_ok=False)
        with beside.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        # In this order: some file systems write the new name first, and a power cut would leave an empty file under it.
        beside.replace(file)
    except (OSError, KeyboardInterrupt):
        beside.unlink(missing_ok=True)
        raise
    sync(file.parent)


def write_json(file: Path, data: Any, *, private: bool = False) -> None:
    """Write `data` as JSON, whole or not at all; what is `private` can be read by its owner alone."""
    atomic_write(file, json.dumps(data, indent=2, ensure_ascii=False) + "\n", private=private)


def append_json(file: Path, entry: Any) -> None:
    """Append one line of JSON; a line is complete when its line feed is there."""
    with file.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(entry, ensure_ascii=False) + "\n")


def read_json_lines(file: Path, damaged: Callable[[str], object] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the entries of a file of JSON lines; a last line that a dying run did not finish is left out.

    `damaged` is told of every other line that is not a JSON object, and it is left out; without it, that is a RunError.
    """
    if not file.is_file():
        return
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                yield _entry(line)
            except ValueError as error:
                said = f"line {number} of {file} cannot be read: {error}."
                if damaged is None:
                    raise RunError(f"{said} Fix it, or start over.") from error
                damaged(f"{said} It is left out.")


def _entry(line: bytes) -> dict[str, Any]:
    entry = json.loads(line.rstrip(b"\r\n"))
    if not isinstance(entry, dict):
        raise ValueError("it is not a JSON object")
    return entry


def count_lines(file: Path) -> int:
    """Return how many whole lines a file has; 0 if it is not there."""
    return file.read_bytes().count(b"\n") if file.is_file() else 0


def sync(path: Path) -> None:
    """Force a file, or the list of names in a folder, to the disk."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(file: Path) -> str:
    """Return the hash of a file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
