"""Publish what a run has trained, and nothing of how: the record of the run stays where it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftplug.errors import ModelError, RunError
from sftplug.recipe.adapter_base import adapter_config, is_adapter
from sftplug.run import RunDirectory
from sftplug.run.card import CARD, HERE
from sftplug.run.files import RECORD
from sftplug.ship.tuned import open_finished

PICKLES = (".bin", ".pt", ".pth", ".pkl")


@dataclass(frozen=True, slots=True)
class Pushed:
    """What was published."""

    repo: str
    url: str
    files: tuple[str, ...]


def files_to_push(folder: Path) -> list[str]:
    """Return the names of the files that are published: model, tokenizer, configurations, card.

    Raises RunError when `folder` holds no finished run and no model, ModelError for an adapter that nobody else could
    load because its base is a folder of this machine.
    """
    if RunDirectory(folder).exists():
        open_finished(folder)
    if not (is_adapter(folder) or (folder / "config.json").is_file()):
        raise RunError(f"{folder} holds no model: give the folder of a finished run, or of `sftplug merge`.")
    if is_adapter(folder):
        _refuse_local_base(folder)
    return model_files(folder)


def model_files(folder: Path) -> list[str]:
    """Return the names of the files in `folder` that are not the record of a run, nor pickled."""
    names = [path.name for path in folder.iterdir() if path.is_file() and path.suffix not in PICKLES]
    return sorted(name for name in names if name not in RECORD and not name.startswith("."))


def _refuse_local_base(folder: Path) -> None:
    base = adapter_config(folder)["base_model_name_or_path"]
    if Path(base).is_absolute() or Path(base).exists():
        raise ModelError(
            f"the adapter in {folder} belongs to a base model in a folder of this machine, so nobody else could load "
            f"it. Merge it first (`sftplug merge {folder} --output DIR`), then push DIR."
        )


def push(folder: Path, repo: str, *, private: bool) -> Pushed:
    """Publish a model to the repository `repo` of the Hub, which is made if it is not there.

    The token is that of the Hub's own login. Raises RunError when there is none, or when the Hub refuses.
    """
    names = files_to_push(folder)
    from huggingface_hub import CommitOperationAdd, HfApi, get_token
    from huggingface_hub.errors import HFValidationError, HTTPError, OfflineModeIsEnabled  # type: ignore[attr-defined]

    # `HTTPError` is that of the library beneath, whichever it is: refusals of the Hub and broken connections.
    if get_token() is None:
        raise RunError("you are not logged in to the Hub: run `hf auth login` first.")
    operations = [CommitOperationAdd(name, _content(folder / name, repo)) for name in names]
    api: Any = HfApi()
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        commit = api.create_commit(repo, operations, commit_message="Upload with sftplug")
    except (HTTPError, HFValidationError, OfflineModeIsEnabled, OSError) as error:
        raise RunError(f"{repo} cannot be pushed: {error}") from error
    return Pushed(repo, str(commit.commit_url), tuple(names))


def _content(file: Path, repo: str) -> str | bytes:
    """Return what is uploaded: the file; of the card, the text in which the model's place is the repository."""
    if file.name != CARD:
        return str(file)
    return file.read_text(encoding="utf-8").replace(HERE, f'folder = "{repo}"').encode()
