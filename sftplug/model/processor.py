"""What a model of images and text is used with beside its tokenizer: how images are cut into what it sees."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FILES = (
    "processor_config.json",
    "preprocessor_config.json",
    "image_processor_config.json",
    "video_preprocessor_config.json",
)
"""Names under which transformers keeps it."""


def copy_processor(model: PreTrainedModel, folder: Path) -> None:
    """Copy the files of the processor of `model`'s base, where it has any, to `folder`: they are not trained.

    Without them the model that is saved could read text alone, though its towers are as they were.
    """
    from transformers.utils import cached_file

    if model.config.get_text_config() is model.config:
        return
    for name in FILES:
        found = cached_file(
            model.name_or_path,
            name,
            revision=getattr(model.config, "_commit_hash", None),
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        if found is not None and Path(found).parent.resolve() != folder.resolve():
            shutil.copyfile(found, folder / name)
