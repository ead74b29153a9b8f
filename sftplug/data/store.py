"""Prepared rows are kept, and prepared again only when something that made them has changed.

The key is a hash over the rows, the template, the tokenizer, every option that matters, and the code: that of sftplug
and of every plugin in use. Processes that want the same rows wait for the first of them, which prepares them, on a
lock on disk; no collective operation is under way meanwhile, so none can time out.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from sftplug.recipe.model import Recipe

KEPT_DAYS = 30
"""Prepared rows that nobody used for so long are deleted when others are written."""


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

    def get(self, key: str, make: Callable[[Path], None]) -> tuple[Path, bool]:
        """Return the folder of `key`, and whether it was there; if not, `make` fills it, in one process only."""
        from filelock import FileLock

        place = self.folder / key
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / f"{key}.lock"):
            if place.is_dir():
                (place / "used").touch()
                return place, True
            self._forget()
            unfinished = Path(tempfile.mkdtemp(prefix=f".{key[:16]}-", dir=self.folder))
            try:
                make(unfinished)
                (unfinished / "used").touch()
                unfinished.rename(place)  # a folder with the final name is always whole
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
        return place, False

    def _forget(self) -> None:
        oldest = time.time() - KEPT_DAYS * 24 * 3600
        for used in self.folder.glob("*/used"):
            if used.stat().st_mtime < oldest:
                shutil.rmtree(used.parent, ignore_errors=True)
                (self.folder / f"{used.parent.name}.lock").unlink(missing_ok=True)


def key_of(
    recipe: Recipe, tokenizer: PreTrainedTokenizerBase, end_tokens: frozenset[str], code: Sequence[Mapping[str, Any]]
) -> str | None:
    """Return a hash over everything that makes the prepared rows; None when a source cannot tell what it holds."""
    rows = [source.source.fingerprint() for source in (*recipe.data.train, *recipe.data.eval)]
    if None in rows:
        return None
    template = str(tokenizer.chat_template)
    made_by = {
        "rows": rows,
        "recipe": recipe.model_dump(mode="json", include={"data", "chat_template", "masking", "spans"}),
        "seed": recipe.train.get("seed"),
        "tokenizer": tokenizer.backend_tokenizer.to_str(),
        "special": sorted(map(repr, tokenizer.special_tokens_map.items())),
        "template": template,
        "ends": sorted(end_tokens),
        # A template may print the date.
        "day": str(datetime.date.today()) if "strftime_now" in template else None,
        "code": [own_code(), *(dict(plugin) for plugin in code)],
    }
    return hashlib.sha256(json.dumps(made_by, sort_keys=True, default=str).encode()).hexdigest()


def own_code() -> str:
    """Return a hash over the code of sftplug, and the versions of what it renders and tokenizes with."""
    from importlib.metadata import version

    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(file.read_bytes())
    libraries = ("transformers", "tokenizers", "tiktoken", "jinja2", "datasets")
    digest.update(repr([version(library) for library in libraries]).encode())
    return digest.hexdigest()
