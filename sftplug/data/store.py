"""Prepared rows are kept, and prepared again only when something that made them has changed.

The key is a hash over the rows, the template, the tokenizer, every option that matters, and the code: that of sftplug
and of every plugin in use. Processes that want the same rows wait for the first of them, which prepares them, on a
lock on disk; no collective operation is under way meanwhile, so none can time out.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from sftplug.errors import DataError
from sftplug.plugin.calls import fingerprint, processor_fingerprint
from sftplug.plugin.components import (
    ChatTemplate,
    DatasetFormat,
    DatasetSource,
    LengthPolicy,
    Masking,
    RowProcessor,
    sections_given,
)
from sftplug.recipe.section import InputPath
from sftplug.recipe.sources import sources_of
from sftplug.storage.kept import KeptFolders

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from sftplug.recipe.model import Recipe

_MAKERS = (DatasetSource, RowProcessor, DatasetFormat, ChatTemplate, Masking, LengthPolicy)
"""The kinds that make prepared rows of rows."""
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

    def get(
        self, key: str, make: Callable[[Path], None], waiting: Callable[[], object] = lambda: None
    ) -> tuple[Path, bool]:
        """Return the folder of `key`, and whether it was there; see `Kept.get`."""
        kept = KeptFolders(self.folder, "prepared rows", DataError, KEPT_DAYS)
        return kept.get(key, make, waiting)


def _without_meta(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe as plain data without what is merely known of its rows."""
    for source in (*recipe["data"]["train"], *recipe["data"]["eval"]):
        del source["meta"]
    return recipe


def key_of(
    recipe: Recipe, tokenizer: PreTrainedTokenizerBase, end_tokens: frozenset[str], code: Sequence[Mapping[str, Any]]
) -> str | None:
    """Return a hash over everything that makes the prepared rows; None when a source cannot tell what it holds."""
    rows = [fingerprint(source) for _, source in sources_of(recipe)]
    processors = [processor_fingerprint(part) for _, part in recipe.components() if isinstance(part, RowProcessor)]
    if None in rows or None in processors:
        return None
    template = str(tokenizer.chat_template)
    # What changes a token or a label belongs here, or a stale row would be trained on. What changes neither (the
    # weights of the model, the size of batches) does not, or rows would be prepared anew for nothing.
    made_by = {
        "rows": rows,
        "processors": processors,
        "added_tokens": recipe.model.add_tokens,
        "recipe": _without_meta(recipe.model_dump(mode="json", include={"data", "chat_template", "masking", "spans"})),
        "sections": _sections_read(recipe),
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


def _sections_read(recipe: Recipe) -> dict[str, Any]:
    """Return the sections of plugins that the components can read which make the rows, as plain data."""
    makers = [part for _, part in recipe.components() if isinstance(part, _MAKERS)]
    sections = {section.type: section for part in makers for section in sections_given(part)}
    return {name: section.model_dump(mode="json") for name, section in sorted(sections.items())}


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


@cache
def own_code() -> str:
    """Return a hash over the code of sftplug, and the versions of what it renders and tokenizes with."""
    from importlib.metadata import version

    digest = hashlib.sha256()
    # All of it: to know which file may change a label would be a promise to keep, and to prepare rows again takes
    # minutes.
    for file in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(file.read_bytes())
    libraries = ("transformers", "tokenizers", "tiktoken", "jinja2", "datasets")
    digest.update(repr([version(library) for library in libraries]).encode())
    return digest.hexdigest()
