"""Exporters: a finished model as a folder or a file that can be carried elsewhere."""

from sftplug import Exporter, hookimpl
from sftplug_exporters.copies import FolderExport, ZipExport
from sftplug_exporters.vllm import VllmExport


@hookimpl
def sftplug_exporters() -> list[type[Exporter]]:
    """Offer them."""
    return [FolderExport, VllmExport, ZipExport]
