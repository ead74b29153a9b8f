"""Exporters: a finished model as a folder or a file that can be carried elsewhere."""

from sftplug import Exporter, hookimpl
from sftplug_exporters.copies import FolderExport, ZipExport


@hookimpl
def sftplug_exporters() -> list[type[Exporter]]:
    """Offer them."""
    return [FolderExport, ZipExport]
