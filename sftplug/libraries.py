"""Import an optional library at the moment it is needed, or say by name what is missing and how to get it."""

from __future__ import annotations

import importlib
from types import ModuleType

from sftplug.errors import MissingLibraryError


def require(module: str, needed_by: str, install: str | None = None) -> ModuleType:
    """Return the imported `module`.

    `needed_by` is the component as the user knows it (``quantization nf4``), `install` the command that installs the
    library (default: ``pip install MODULE``). Raises MissingLibraryError when it is not installed, or when it is and
    cannot be imported.
    """
    top = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != top:
            raise MissingLibraryError(
                f"{needed_by} needs {top}, which is installed but fails to import: {error}"
            ) from error
        command = install or f"pip install {top}"
        raise MissingLibraryError(
            f"{needed_by} needs the library {top}, which is not installed. Run: {command}"
        ) from error
    except ImportError as error:
        raise MissingLibraryError(
            f"{needed_by} needs {top}, which is installed but fails to import: {error}"
        ) from error
