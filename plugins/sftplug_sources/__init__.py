"""Where rows come from: files here or far away, and datasets on the Hub."""

import sftplug
from sftplug_sources.files import File
from sftplug_sources.hub import Hub


@sftplug.hookimpl
def sftplug_dataset_sources() -> list[type[sftplug.DatasetSource]]:
    """Offer the built-in sources."""
    return [File, Hub]
