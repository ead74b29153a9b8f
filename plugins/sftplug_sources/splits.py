"""Which files of a folder are of which split: what README says, what a saved dataset says of itself, or their names.

The words that name a split, and the form of README's `configs`, are those of `datasets` (its page "Structure your
repository"), so that a cloned folder is read as the Hub reads it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from fsspec.utils import glob_translate

from sftplug import DataError
from sftplug_sources.stored import Listing, Stored

_WORDS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
"""Word in the name of a file or folder -> the split that it names."""
_WORD = re.compile(rf"(?<![a-z])(?:{'|'.join(_WORDS)})(?![a-z])")
_SHARD = re.compile(r"(\w+)-\d{5}-of-\d{5}\b")
"""How the Hub calls the parts of a split: ``test_sft-00000-of-00001.parquet``."""
_BESIDE_DATA = (
    "readme",
    "license",
    "licence",
    "dataset_infos.json",
    "state.json",
    "dataset_info.json",
    "dataset_dict.json",
)
"""What also lies in folders of datasets, by how its name begins."""
_SHOWN = 3
"""So many files of a split are named."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The files that are read, and what is said of those that are not."""

    files: Sequence[Stored]
    said: str = ""
    """What a reader should know; empty where every file is read."""


@dataclass(frozen=True, slots=True)
class Found:
    """The files of a folder or of a pattern, by their splits."""

    path: str
    splits: Mapping[str, Sequence[Stored]]
    rest: Sequence[Stored] = ()
    """Files that are of no split."""
    are_all: bool = False
    """Whether every file was asked for by its name."""

    def choose(self, split: str | None) -> Chosen:
        """Return the files of `split`, or of ``train`` where nothing else can be meant.

        Raises DataError for a split that is not there, and where it is not sure what to read.
        """
        if split is not None:
            return self._named(split)
        if self.are_all or not self.splits or ([*self.splits] == ["train"] and not self.rest):
            return Chosen(sorted([*_united(self.splits), *self.rest], key=lambda file: file.path))
        if self.rest:
            raise DataError(
                f"{self.path}: names of files say {self._listed()}, and {_some(self.rest)} says no split. Choose with "
                "`split`, which leaves that out, or list the files, each as a `path` of its own."
            )
        if "train" not in self.splits:
            raise DataError(
                f"{self.path}: holds {self._listed()}, and no split that is called train. Choose one with "
                f"`split: {self.likely('train')}`."
            )
        return self._named("train")

    def likely(self, *kinds: str) -> str:
        """Return the split that is the likeliest of these kinds, such as ``train_sft`` for ``train``."""
        return next((name for kind in kinds for name in self.splits if kind in _words(name)), next(iter(self.splits)))

    def _named(self, split: str) -> Chosen:
        name = split if split in self.splits else _WORDS.get(split, split)
        if name not in self.splits:
            if not self.splits:
                raise DataError(f"{self.path}: no name of a file or folder there says a split. Leave `split` out.")
            raise DataError(f"{self.path}: there is no split '{split}'. It holds {self._listed()}.")
        others = {other: files for other, files in self.splits.items() if other != name}
        if not others and not self.rest:
            return Chosen(self.splits[name])
        left = [f"{other} ({_some(files)})" for other, files in others.items()] + [_some(self.rest)] * bool(self.rest)
        said = f"reads the split {name} ({_some(self.splits[name])}), and leaves out {', '.join(left)}"
        return Chosen(self.splits[name], said)

    def _listed(self) -> str:
        return ", ".join(f"{name} ({_some(files)})" for name, files in self.splits.items())


def sort_out(listing: Listing, config: str | None) -> Found:
    """Return the files of `listing` with rows in them, by their splits. Raises DataError for what cannot be told."""
    files = [file for file in listing.files if not _is_beside(listing.below(file))]
    files = files or listing.files[: len(listing.files) == 1]
    if not files:
        raise DataError(f"{listing.path}: holds no file with rows, only {_some(listing.files)}")
    if not listing.is_folder:
        if config is not None:
            raise DataError(f"{listing.path}: `config` chooses by README of a folder, and this is none. Leave it out.")
        asked = listing.is_file or _names_a_split(listing.path)
        return _by_name(listing, files, are_all=asked)
    known = {listing.below(file): file for file in listing.files}
    if (configs := _configs(known.get("README.md"))) or config is not None:
        return _by_readme(listing, _config(listing.path, configs, config), files)
    files = _saved(known, files)
    if (saved := known.get("dataset_dict.json")) is not None:
        return _by_folder(listing, files, _json(saved).get("splits", []))
    return _by_name(listing, files)


def _is_beside(below: str) -> bool:
    """Whether a file is none of the data: hidden, in a hidden folder such as ``.git``, or about the data."""
    *folders, name = PurePosixPath(below).parts
    hidden = any(folder.startswith((".", "__")) for folder in folders)
    return hidden or name.lower().startswith((".", "_", *_BESIDE_DATA))


# --- by names ---------------------------------------------------------------------------------------------------------


def _by_name(listing: Listing, files: Sequence[Stored], *, are_all: bool = False) -> Found:
    splits: dict[str, list[Stored]] = {}
    rest: list[Stored] = []
    for file in files:
        named = {} if are_all and not listing.is_file else _splits_in(listing.below(file))
        if len(named) > 1 and not are_all:
            raise DataError(
                f"{listing.path}: {listing.below(file)} names two splits, {' and '.join(named)}. Name the files to "
                "read with a pattern as `path`."
            )
        (splits.setdefault(next(iter(named)), []) if named else rest).append(file)
    return Found(listing.path, splits, rest, are_all)


def _splits_in(below: str) -> dict[str, None]:
    """Return the splits that a path names; ``train_sft-00000-of-00001.parquet``, a part of one, names that alone."""
    shard = _SHARD.search(PurePosixPath(below).name)
    if shard is not None and (words := dict.fromkeys(_words(shard[1]))):
        return words if shard[1] in _WORDS else {shard[1]: None}
    return dict.fromkeys(_words(below))


def _words(text: str) -> Iterator[str]:
    return (_WORDS[match.group()] for match in _WORD.finditer(text.lower()))


def _names_a_split(pattern: str) -> bool:
    """Whether a pattern says itself which split it means: ``data/test-*.parquet``."""
    return any(True for _ in _words(PurePosixPath(pattern).name))


# --- saved datasets, and README ---------------------------------------------------------------------------------------


def _saved(known: Mapping[str, Stored], files: Sequence[Stored]) -> list[Stored]:
    """Return `files` without what `datasets` keeps beside those that it saved, such as results of ``map``."""
    listed = {}
    for below, file in known.items():
        if PurePosixPath(below).name == "state.json" and (named := _json(file).get("_data_files")):
            listed[str(PurePosixPath(file.path).parent)] = {str(item["filename"]) for item in named}
    folders = [(str(PurePosixPath(file.path).parent), file) for file in files]
    return [file for folder, file in folders if folder not in listed or PurePosixPath(file.path).name in listed[folder]]


def _json(file: Stored) -> Mapping[str, Any]:
    with file.open() as stream:
        try:
            value = json.load(stream)
        except ValueError as error:
            raise DataError(f"{file}: is not valid JSON: {error}") from error
    return value if isinstance(value, dict) else {}


def _by_folder(listing: Listing, files: Sequence[Stored], names: Iterable[str]) -> Found:
    """Sort out what ``DatasetDict.save_to_disk`` wrote: a folder for each split, whatever it is called."""
    splits: dict[str, list[Stored]] = {name: [] for name in names}
    rest: list[Stored] = []
    for file in files:
        splits.get(PurePosixPath(listing.below(file)).parts[0], rest).append(file)
    return Found(listing.path, splits, rest)


def _configs(readme: Stored | None) -> list[Mapping[str, Any]]:
    """Return the `configs` at the head of a README; none where there is no such head."""
    import yaml

    if readme is None:
        return []
    with readme.open() as stream:
        head = re.match(r"\ufeff?---\s*\n(.*?)\n---\s*(?:\n|\Z)", stream.read().decode(errors="replace"), re.DOTALL)
    try:
        value = yaml.safe_load(head[1]) if head else None
    except yaml.YAMLError as error:
        raise DataError(f"{readme}: its head is not valid YAML: {error}") from error
    configs = value.get("configs") if isinstance(value, dict) else None
    return [item for item in configs if isinstance(item, dict)] if isinstance(configs, list) else []


def _config(path: str, configs: Sequence[Mapping[str, Any]], name: str | None) -> Mapping[str, Any]:
    """Return the configuration called `name`, or the one that is meant without a name."""
    known = {str(item.get("config_name", "default")): item for item in configs}
    chosen = name or next((key for key, item in known.items() if item.get("default")), None)
    chosen = chosen or ("default" if "default" in known else next(iter(known)) if len(known) == 1 else None)
    if chosen in known:
        return known[chosen]
    what = "its README names several configurations" if name is None else f"its README names no configuration '{name}'"
    example = f" Choose one with `config: {next(iter(known))}`." if known else " Leave `config` out."
    raise DataError(f"{path}: {what}. It names: {', '.join(known) or 'none'}.{example}")


def _by_readme(listing: Listing, config: Mapping[str, Any], files: Sequence[Stored]) -> Found:
    root = str(config.get("data_dir") or "").strip("/")
    inside = [file for file in files if not root or listing.below(file).startswith(f"{root}/")]
    if (stated := config.get("data_files")) is None:
        return _by_name(listing, inside)
    splits = {}
    for split, patterns in _stated(stated):
        splits[split] = [file for pattern in patterns for file in _matching(listing, inside, root, pattern)]
        if not splits[split]:
            raise DataError(
                f"{listing.path}: README says that the split {split} is {', '.join(patterns)}, and no such file is "
                "there. Fetch it, or name files with a pattern as `path`."
            )
    return Found(listing.path, splits)


def _stated(data_files: Any) -> Iterator[tuple[str, list[str]]]:
    """Yield (split, patterns) of a `data_files`: one pattern, a list, a mapping, or a list of {split, path}."""
    if isinstance(data_files, Mapping):
        yield from ((str(split), _texts(paths)) for split, paths in data_files.items())
    elif isinstance(data_files, list) and data_files and all(isinstance(item, Mapping) for item in data_files):
        yield from ((str(item.get("split", "train")), _texts(item.get("path"))) for item in data_files)
    else:
        yield "train", _texts(data_files)


def _texts(paths: Any) -> list[str]:
    return [str(path) for path in paths] if isinstance(paths, list) else [str(paths)]


def _matching(listing: Listing, files: Sequence[Stored], root: str, pattern: str) -> Iterator[Stored]:
    matches = re.compile(glob_translate(f"{root}/{pattern}".lstrip("/").removeprefix("./")))
    return (file for file in files if matches.match(listing.below(file)))


# --- in words ---------------------------------------------------------------------------------------------------------


def _united(splits: Mapping[str, Sequence[Stored]]) -> Iterator[Stored]:
    return (file for files in splits.values() for file in files)


def _some(files: Sequence[Stored]) -> str:
    """Return the names of files, the first of many."""
    names = ", ".join(file.name for file in files[:_SHOWN])
    return names + f" and {len(files) - _SHOWN:,} more" * (len(files) > _SHOWN)
