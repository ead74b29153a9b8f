import hashlib
from pathlib import Path
from typing import ClassVar, Literal

from sftplug import Exporter, FinishedModel, hookimpl


class Checksums(Exporter):
    """List the SHA-256 of each file of the model, for ``sha256sum --check``."""

    type: Literal["checksums"] = "checksums"
    suffix: ClassVar[str] = ".sha256"

    def export(self, model: FinishedModel, target: Path) -> None:
        digests = {name: hashlib.sha256((model.folder / name).read_bytes()).hexdigest() for name in model.files}
        target.write_text("".join(f"{digest}  {name}\n" for name, digest in digests.items()))


@hookimpl
def sftplug_exporters() -> list[type[Exporter]]:
    return [Checksums]
