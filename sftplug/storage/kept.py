"""Folders that are made once and then kept: whole or not there, made by one process, and looked at before each use."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sftplug.errors import SftplugError
from sftplug.storage.contents import CONTENTS, is_whole, list_contents, say_dropped
from sftplug.storage.disk import cannot_keep, making_room
from sftplug.storage.lock import waited_for

_looked_at: dict[Path, list[tuple[str, int, int]]] = {}
"""Kept folders whose bytes this process has compared with what was made: each file with its size and time then."""


@dataclass(frozen=True, slots=True)
class KeptFolders:
    """Folders of one sort, each under a key, beside each other in `folder`."""

    folder: Path
    what: str
    """What they hold, for messages: ``prepared rows``."""
    error: type[SftplugError]
    """What is raised where there is no room for one."""
    days: int | None = None
    """What nobody used for so long is deleted when something else is made; None keeps everything."""
    read_once: bool = False
    """Whether this process reads the bytes of one once, and again only if a file's size or time changes."""
    one: str = ""
    """What one of them is, where that is not `what`: ``the model that is built on the spot``."""

    def get(
        self, key: str, make: Callable[[Path], None], waiting: Callable[[], object] = lambda: None
    ) -> tuple[Path, bool]:
        """Return the folder of `key`, and whether it was there; if not, `make` fills it, in one process only.

        A folder that is no longer what was made is dropped, and that is said. `waiting` is called if another process is
        about to make it. Raises DataError when `folder` cannot be written, and `error` when there is no room.
        """
        place = self.folder / key
        try:
            if self._is_as_made(place):  # nothing is written into it any more, so nobody has to be waited for
                _note_use(place)
                return place, True
            self.folder.mkdir(parents=True, exist_ok=True)
            with waited_for(self._lock(key), waiting):
                # Once more, now that the lock is held: another process may have made it while this one waited.
                if self._is_as_made(place):
                    return place, True
                say_dropped(place)
                with making_room(self.folder, "SFTPLUG_CACHE", self.one or self.what, self.error):
                    self._make(place, make)
        except OSError as error:
            raise cannot_keep(self.folder, self.what, error) from error
        return place, False

    def _is_as_made(self, place: Path) -> bool:
        """Whether a folder is there as it was made."""
        if not self.read_once:
            return is_whole(place)
        files = sorted(path for path in place.rglob("*") if path.is_file())
        now = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.name != CONTENTS]
        if now and _looked_at.get(place) == now and (place / CONTENTS).is_file():
            return True
        whole = is_whole(place)
        if whole:
            _looked_at[place] = now
        return whole

    def _lock(self, key: str) -> Path:
        return self.folder / f"{key}.lock"

    def _make(self, place: Path, make: Callable[[Path], None]) -> None:
        """Fill a folder beside `place`, and give it that name when it is whole; called by the holder of the lock."""
        self._forget()
        shutil.rmtree(place, ignore_errors=True)
        self._delete_left(place.name)
        # Under another name until it is whole: whoever looks without the lock sees the whole folder, or none.
        unfinished = self.folder / f".{place.name}-{secrets.token_hex(4)}"
        unfinished.mkdir()  # readable for others as far as the user's umask lets it
        try:
            make(unfinished)
            list_contents(unfinished)
            unfinished.rename(place)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def _forget(self) -> None:
        if self.days is None:
            return
        oldest = time.time() - self.days * 24 * 3600
        for contents in self.folder.glob(f"*/{CONTENTS}"):
            if contents.stat().st_mtime < oldest:
                shutil.rmtree(contents.parent, ignore_errors=True)
                self._lock(contents.parent.name).unlink(missing_ok=True)

    def _delete_left(self, mine: str) -> None:
        """Delete what killed processes left, of every key that nobody makes now; the lock of `mine` is held."""
        from filelock import FileLock, Timeout

        for left in self.folder.glob(".*-????????"):  # as `_make` names them
            key = left.name[1:].rpartition("-")[0]
            if key == mine:
                shutil.rmtree(left, ignore_errors=True)
                continue
            try:
                # Whoever makes a folder holds the lock of its key: where that is free, nobody does any more.
                with FileLock(self._lock(key), timeout=0):
                    shutil.rmtree(left, ignore_errors=True)
            except Timeout:
                continue  # it is being made


def _note_use(place: Path) -> None:
    """Let it be kept longer, unless it belongs to someone else."""
    if os.access(place / CONTENTS, os.W_OK):
        (place / CONTENTS).touch()
