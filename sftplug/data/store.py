"""Prepared rows are kept, and prepared again only when something that made them has changed.

The key is a hash over the rows, the template, the tokenizer, every option that matters, and the code: that of sftplug
and of every plugin in use. Processes that want the same rows wait for the first of them, which prepares them, on a
lock on disk; no collective operation is under way meanwhile, so none can time out.
"""

from __future__ import annotations

import datetime
import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from sftplug.answers import fingerprint
from sftplug.components import DatasetSource
from sftplug.contents import CONTENTS, is_whole, list_contents, say_dropped
from sftplug.errors import DataError
from sftplug.recipe.model import InputPath
from sftplug.room import no_room

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from sftplug.recipe.model import Recipe

KEPT_DAYS = 30
"""Prepared rows that nobody used for so long are deleted when others are written."""
_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT)


@dataclass(frozen=True, slots=True)
class Store:
    """Where prepared rows are kept."""

    folder: Path
    code: Sequence[Mapping[str, Any]]
    """Name, version and hash of every plugin in use."""

    @property
    def proofs(self) -> Path:
        """Folder that remembers for which vocabularies the tokenizer's engines agree."""
        return self.folder / "engines"

    def get(
        self, key: str, make: Callable[[Path], None], waiting: Callable[[], object] = lambda: None
    ) -> tuple[Path, bool]:
        """Return the folder of `key`, and whether it was there; if not, `make` fills it, in one process only.

        A folder that is no longer what was written is dropped, and that is said. `waiting` is called if another process
        is about to make it. Raises DataError when the folder cannot be written.
        """
        place = self.folder / key
        try:
            if is_whole(place):  # nothing is written into it any more, so nobody has to be waited for
                _note_use(place)
                return place, True
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._lock(key, waiting):
                if is_whole(place):
                    return place, True
                say_dropped(place)
                with making_room(self.folder, "SFTPLUG_CACHE"):
                    self._make(place, make)
        except OSError as error:
            raise cannot_keep(self.folder, "prepared rows", error) from error
        return place, False

    @contextmanager
    def _lock(self, key: str, waiting: Callable[[], object]) -> Iterator[None]:
        """Hold the lock of `key`; the system takes it from a process that dies."""
        from filelock import FileLock, Timeout

        lock = FileLock(self.folder / f"{key}.lock", mode=0o666)  # less what the user's umask takes away
        try:
            lock.acquire(timeout=0)
        except Timeout:
            waiting()
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _make(self, place: Path, make: Callable[[Path], None]) -> None:
        """Fill a folder beside `place`, and give it that name when it is whole; called by the holder of the lock."""
        self._forget()
        unfinished = self.folder / f".{place.name}"
        for left in (unfinished, place):  # by a process that was killed; with files missing
            shutil.rmtree(left, ignore_errors=True)
        unfinished.mkdir()
        try:
            make(unfinished)
            list_contents(unfinished)
            unfinished.rename(place)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def _forget(self) -> None:
        oldest = time.time() - KEPT_DAYS * 24 * 3600
        for contents in self.folder.glob(f"*/{CONTENTS}"):
            if contents.stat().st_mtime < oldest:
                shutil.rmtree(contents.parent, ignore_errors=True)
                (self.folder / f"{contents.parent.name}.lock").unlink(missing_ok=True)


@contextmanager
def making_room(folder: Path, variable: str) -> Iterator[None]:
    """Raise DataError, naming the environment `variable` that says where, when `folder` is on a disk that gets full."""
    try:
        yield
    except OSError as error:
        if (room := no_room(error, folder)) is None:
            raise
        raise DataError(
            f"{folder}: prepared rows cannot be kept here: {room.reason}. {room.sentence(variable)}"
        ) from error


def cannot_keep(folder: Path, what: str, error: OSError) -> Exception:
    """Return what to raise for an error while `what` was kept in `folder`; `error` itself if it is of other files."""
    file = Path(str(error.filename))
    if error.errno not in _UNWRITABLE or not (file.is_relative_to(folder) or folder.is_relative_to(file)):
        return error
    return DataError(
        f"{folder}: {what} cannot be kept here: {error}. Is it read-only, or another user's? Name a folder of your own "
        "in the environment variable SFTPLUG_CACHE."
    )


def _note_use(place: Path) -> None:
    """Let the rows be kept longer, unless they belong to someone else."""
    if os.access(place / CONTENTS, os.W_OK):
        (place / CONTENTS).touch()


def key_of(
    recipe: Recipe, tokenizer: PreTrainedTokenizerBase, end_tokens: frozenset[str], code: Sequence[Mapping[str, Any]]
) -> str | None:
    """Return a hash over everything that makes the prepared rows; None when a source cannot tell what it holds."""
    rows = [fingerprint(source.source) for source in (*recipe.data.train, *recipe.data.eval)]
    if None in rows:
        return None
    template = str(tokenizer.chat_template)
    made_by = {
        "rows": rows,
        "added_tokens": recipe.model.add_tokens,
        "recipe": recipe.model_dump(mode="json", include={"data", "chat_template", "masking", "spans"}),
        "seed": recipe.train.get("seed"),
        "tokenizer": tokenizer.backend_tokenizer.to_str(),
        "special": sorted(map(repr, tokenizer.special_tokens_map.items())),
        "template": template,
        "ends": sorted(end_tokens),
        # A template may print the date.
        "day": str(datetime.date.today()) if "strftime_now" in template else None,
        "files": [_hash_of(Path(path)) for path in _read_by_components(recipe)],
        "code": [own_code(), *(dict(plugin) for plugin in code)],
    }
    return hashlib.sha256(json.dumps(made_by, sort_keys=True, default=str).encode()).hexdigest()


def _read_by_components(recipe: Recipe) -> Iterator[str]:
    """Yield every path that an option names for reading, but those of sources, which know what they read."""
    for _, component in recipe.components():
        if isinstance(component, DatasetSource):
            continue
        for name, field in type(component).model_fields.items():
            value = getattr(component, name)
            if isinstance(value, str) and is_input_path(field.annotation, field.metadata):
                yield value


def is_input_path(annotation: Any, metadata: Sequence[Any]) -> bool:
    """Whether an option, by its type, names a file that is read."""
    *_, marker = get_args(InputPath)
    inner = (get_args(part) for part in get_args(annotation))  # of ``InputPath | None``
    return marker in metadata or any(marker in part for part in inner)


def _hash_of(path: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def own_code() -> str:
    """Return a hash over the code of sftplug, and the versions of what it renders and tokenizes with."""
    from importlib.metadata import version

    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(file.read_bytes())
    libraries = ("transformers", "tokenizers", "tiktoken", "jinja2", "datasets")
    digest.update(repr([version(library) for library in libraries]).encode())
    return digest.hexdigest()
