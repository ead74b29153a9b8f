"""GGUF: a finished model as the one file that llama.cpp, and what is built on it, reads."""

from sftplug import Exporter, hookimpl
from sftplug_gguf.exporter import GgufExport, OllamaExport


@hookimpl
def sftplug_exporters() -> list[type[Exporter]]:
    """Offer them."""
    return [GgufExport, OllamaExport]
