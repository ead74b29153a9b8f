"""Files wherever they are stored, found by path, pattern, folder or URL."""

from __future__ import annotations

import gzip
import io
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from sftplug import DataError

_LIBRARIES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs"}
"""Protocol -> the library through which `fsspec` speaks it."""


def is_url(path: str) -> bool:
    """Whether `path` names a protocol, as in ``s3://bucket/file``."""
    return "://" in path


def is_pattern(path: str) -> bool:
    """Whether `path` may stand for several files."""
    return any(sign in path for sign in "*?[")


def printable(path: str) -> str:
    """Return `path` with a mark in place of each byte that is not UTF-8, as names of files may hold."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Stored:
    """One file."""

    path: str
    filesystem: Any
    """The `fsspec` filesystem it is in."""

    @property
    def name(self) -> str:
        """The file's own name, without folders, and without the question of a web address."""
        path = self.path.partition("?")[0] if is_url(self.path) else self.path
        return printable(PurePosixPath(path).name)

    @property
    def is_remote(self) -> bool:
        """Whether it is on another machine."""
        return "file" not in self.filesystem.protocol

    @property
    def url(self) -> str:
        """The path with its protocol, as libraries take it."""
        return self.path if not self.is_remote else str(self.filesystem.unstrip_protocol(self.path))

    def __str__(self) -> str:
        return printable(self.url)

    def stamp(self) -> tuple[Any, ...] | None:
        """Return what changes whenever a local file is written to or replaced; None for one on another machine."""
        if self.is_remote:
            return None
        try:
            known = Path(self.path).stat()
        except OSError as error:
            raise DataError(f"{self}: cannot be read: {error.strerror or error}") from error
        return self.path, known.st_dev, known.st_ino, known.st_size, known.st_mtime_ns, known.st_ctime_ns

    def open(self) -> IO[bytes]:
        """Open for reading bytes. Raises DataError when it cannot be had."""
        try:
            return cast("IO[bytes]", self.filesystem.open(self.path, "rb"))
        except OSError as error:
            raise DataError(f"{self}: cannot be read: {error.strerror or error}") from error

    def open_decompressed(self) -> IO[bytes]:
        """Open for reading what is in it, if it is compressed."""
        if self.name.lower().endswith(".gz"):
            return io.BufferedReader(cast("Any", gzip.open(self.open())))
        if self.name.lower().endswith(".zst"):
            import pyarrow

            return io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.PythonFile(self.open(), mode="r"), "zstd"))
        return self.open()


@dataclass(frozen=True, slots=True)
class Listing:
    """The files that a path stands for."""

    path: str
    """The path as it is named."""
    files: list[Stored]
    root: str
    """The folder that they are in, as the filesystem has it: that of the path, or the fixed beginning of a pattern."""
    is_folder: bool
    is_file: bool

    def below(self, file: Stored) -> str:
        """Return where a file stands below the folder."""
        return file.path.removeprefix(self.root).lstrip("/")


def find(path: str) -> Listing:
    """Return the files that `path` stands for, sorted by name. Raises DataError when there is none."""
    filesystem, inner = _filesystem(path)
    try:
        # A web address may well have a question mark, and is not looked for before it is read.
        searched = not path.startswith(("http://", "https://")) or "*" in inner
        found = _match(filesystem, inner) if searched else [inner]
        is_file = not searched or found == [inner]
        is_folder = not is_file and filesystem.isdir(inner)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if not found:
        raise DataError(f"{path}: no file {'matches this pattern' if is_pattern(path) else 'is there'}")
    files = [Stored(name, filesystem) for name in found]
    link = next((file for file in files if not file.is_remote and Path(file.path).is_dir()), None)
    if link is not None:
        text = "is a folder behind a symbolic link, which is not followed. Name that folder as a `path` of its own"
        raise DataError(f"{link}: {text}, or take the link away.")
    root = inner if is_folder else str(PurePosixPath(re.split(r"[*?\[]", inner)[0] + "x").parent)
    return Listing(path, files, root, is_folder, is_file)


def _match(filesystem: Any, path: str) -> list[str]:
    if filesystem.isfile(path):
        return [path]
    if filesystem.isdir(path):
        return sorted(filesystem.find(path))
    if is_pattern(path):
        return sorted(name for name in filesystem.glob(path) if filesystem.isfile(name))
    return []


def _filesystem(path: str) -> tuple[Any, str]:
    import fsspec

    protocol = path.partition("://")[0] if is_url(path) else "file"
    try:
        return cast("tuple[Any, str]", fsspec.core.url_to_fs(path))
    except ImportError as error:
        library = _LIBRARIES.get(protocol, protocol)
        raise DataError(f"{path}: reading {protocol}:// needs the library {library}: pip install {library}") from error
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error
