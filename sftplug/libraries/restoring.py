"""Put back what is changed in the modules of other libraries: kernels are often put there for good."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any


@contextmanager
def restoring(*names: str) -> Iterator[None]:
    """Give modules, and the classes that they define, their attributes back when the block is left.

    `names` are those of modules, which stand for all below them too: ``"transformers.models.llama"``, ``"torch.nn"``.
    Known are the modules that are imported when the block is entered.
    """
    before = Snapshot(*names)
    try:
        yield
    finally:
        before.restore()


class Snapshot:
    """The attributes of modules, and of the classes that they define."""

    def __init__(self, *names: str) -> None:
        """Take down what the modules `names`, and those below them, hold now."""
        self._held: list[tuple[Any, str, Mapping[str, Any]]] = []
        for name, module in sorted(_modules(names)):
            self._held.append((module, name, _own(module)))
            classes = [value for value in vars(module).values() if isinstance(value, type)]
            defined = [cls for cls in classes if cls.__module__ == name]
            self._held += [(cls, f"{name}.{cls.__qualname__}", _own(cls)) for cls in defined]
        # A class may hold a table that others write to, such as that of attention functions.
        tables = [
            (value, f"{name}.{attribute}")
            for owner, name, own in self._held
            for attribute, value in own.items()
            if isinstance(owner, type) and type(value) is dict
        ]
        self._tables = [(table, name, dict(table)) for table, name in tables]

    def changed(self) -> list[str]:
        """Return the full names of the attributes that are others now, or gone, or new."""
        others = [f"{name}.{attribute}" for _, name, attribute, _ in self._differences()]
        return others + [name for table, name, before in self._tables if _ids(table) != _ids(before)]

    def restore(self) -> None:
        """Put them back."""
        for owner, _, attribute, value in list(self._differences()):
            if value is _ABSENT:
                delattr(owner, attribute)
            else:
                setattr(owner, attribute, value)
        for table, _, before in self._tables:
            if _ids(table) != _ids(before):
                table.clear()
                table.update(before)

    def _differences(self) -> Iterator[tuple[Any, str, str, Any]]:
        """Yield (owner, its name, attribute, what it was) of each attribute that is another one now."""
        for owner, name, before in self._held:
            now = _own(owner)
            # What a module imports when it is first asked for is no change.
            new = {} if type(owner) is not ModuleType and isinstance(owner, ModuleType) else now
            for attribute in dict.fromkeys([*before, *new]):
                was, is_now = before.get(attribute, _ABSENT), now.get(attribute, _ABSENT)
                if is_now is not was and not (isinstance(was, ModuleType) or isinstance(is_now, ModuleType)):
                    yield owner, name, attribute, was


_ABSENT = object()


def _ids(table: Mapping[Any, Any]) -> dict[Any, int]:
    return {key: id(value) for key, value in table.items()}


def _modules(names: tuple[str, ...]) -> Iterator[tuple[str, ModuleType]]:
    for name, module in list(sys.modules.items()):
        wanted = any(name == prefix or name.startswith(f"{prefix}.") for prefix in names)
        if wanted and isinstance(module, ModuleType):
            yield name, module


def _own(owner: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(owner).items() if not _is_kept_by_python(name)}


def _is_kept_by_python(name: str) -> bool:
    """Whether Python itself writes an attribute, now and then; methods such as ``__call__`` are others'."""
    return name in (
        "__warningregistry__",
        "__annotations__",
        "__annotations_cache__",
        "__abstractmethods__",
        "_abc_impl",
    )
