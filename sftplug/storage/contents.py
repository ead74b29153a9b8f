"""What is kept in a folder to be used again: every file is listed with its size and checksum, and looked at each time.

XXH3 (https://xxhash.com) tells a flipped bit or a page that never reached the disk, at the speed of memory. It does not
tell somebody who means harm: whoever may write the folder may write the list.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

import xxhash

from sftplug.util.processes import is_main

CONTENTS = "contents.json"
"""Name of the file that lists the others of a folder."""
_BLOCK = 1 << 22
_log = logging.getLogger("sftplug.cache")


def list_contents(folder: Path) -> None:
    """Write the list of all files in `folder`: from then on they are not to change."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / CONTENTS)
    listed = {str(file.relative_to(folder)): {"bytes": file.stat().st_size, "xxh3": checksum(file)} for file in files}
    (folder / CONTENTS).write_text(json.dumps({"files": listed}), encoding="utf-8")


def integrity_error(folder: Path) -> str | None:
    """Return why `folder` is not, to the byte, what was listed; None if it is. Reads all of it."""
    try:
        listed = json.loads((folder / CONTENTS).read_text(encoding="utf-8"))["files"].items()
        for name, known in listed:
            if not (folder / name).is_file():
                return f"has lost {name}"
            # The size first: that costs nothing, and a file that was cut short is not read.
            if (folder / name).stat().st_size != known["bytes"] or checksum(folder / name) != known["xxh3"]:
                return f"has a {name} that is not what was written"
    except FileNotFoundError:
        return f"has no {CONTENTS}"
    except OSError as error:
        return f"cannot be read ({error})"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"has a {CONTENTS} that cannot be read ({error})"
    return None


def is_whole(folder: Path) -> bool:
    """Whether `folder` is there, and holds what was listed."""
    return folder.is_dir() and integrity_error(folder) is None


def say_dropped(folder: Path) -> None:
    """Tell the user, once for all processes, what is wrong with `folder` if it is there: it is about to be replaced."""
    if folder.is_dir() and (why := integrity_error(folder)) is not None and is_main():
        _log.warning("%s %s; it is dropped and made again", folder, why)


def checksum(file: Path) -> str:
    """Return the 128 bits of XXH3 over a file's bytes, in hexadecimal."""
    digest = xxhash.xxh3_128()
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
