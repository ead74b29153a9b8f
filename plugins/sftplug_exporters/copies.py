"""The model as it is, without the record of its run."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

from sftplug import Exporter, FinishedModel

LONG_AGO = (1980, 1, 1, 0, 0, 0)
"""The date of every file in an archive, so that the same model gives the same bytes; ZIP knows none before."""


class _Copies(Exporter):
    """What both have in common."""

    merged: bool = False
    """Write a model that needs no adapter; of a run that trained whole weights it is one anyway."""

    @property
    def needs_merged(self) -> bool:
        """Whether the option says so."""
        return self.merged

    def _files(self, model: FinishedModel) -> Iterator[Path]:
        if not (self.merged and model.is_adapter):
            yield from (model.folder / name for name in model.files)
            return
        yield from sorted(file for file in model.merged().iterdir() if file.is_file())


class FolderExport(_Copies):
    """Copy model or adapter, tokenizer, configurations and card to a folder, and nothing of the record of the run."""

    type: Literal["folder"] = "folder"

    def export(self, model: FinishedModel, target: Path) -> None:
        """Copy the files."""
        for file in self._files(model):
            shutil.copyfile(file, target / file.name)


class ZipExport(_Copies):
    """Put model or adapter, tokenizer, configurations and card into a ZIP archive."""

    type: Literal["zip"] = "zip"
    compression: Literal["stored", "deflated"] = "stored"
    """``deflated`` makes adapters and weights hardly smaller, and takes minutes for large ones."""

    suffix: ClassVar[str] = ".zip"

    def export(self, model: FinishedModel, target: Path) -> None:
        """Write the archive; the same model gives the same bytes."""
        how = {"stored": zipfile.ZIP_STORED, "deflated": zipfile.ZIP_DEFLATED}[self.compression]
        with zipfile.ZipFile(target, "w", how) as archive:
            for file in self._files(model):
                entry = zipfile.ZipInfo(file.name, LONG_AGO)
                entry.compress_type, entry.external_attr = how, 0o644 << 16
                with file.open("rb") as source, archive.open(entry, "w", force_zip64=True) as stream:
                    shutil.copyfileobj(source, stream, 1 << 20)
