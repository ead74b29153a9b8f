from pathlib import Path
from typing import Any, Literal

from sftplug import DatasetSource, Field, InputPath, Row, hookimpl, read_text


class FrozenSource(DatasetSource):
    """A folder of Markdown files, in the order of their names, each a row with its `text`."""

    type: Literal["frozen_source"] = "frozen_source"
    folder: InputPath = Field(description="The folder; relative to the recipe that names it.")

    def label(self) -> str:
        return self.folder

    def rows(self) -> Any:
        for file in sorted(Path(self.folder).rglob("*.md")):
            yield Row({"text": read_text(file)}, str(file))


@hookimpl
def sftplug_dataset_sources() -> list[type[DatasetSource]]:
    return [FrozenSource]
