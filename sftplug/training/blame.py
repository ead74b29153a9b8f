"""Whose fault it is when a callback fails in the midst of training: component, plugin, file and line."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from transformers.trainer_callback import CallbackHandler

from sftplug.errors import PluginFault, SftplugError
from sftplug.plugin.errors import describe, reason

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from sftplug.plugin.components import Component
    from sftplug.plugin.manager import Plugin


class BlamingHandler(CallbackHandler):  # type: ignore[misc]
    """Calls the trainer's callbacks as before, and says whose it is where one of them fails."""

    components: Mapping[type, Component]
    """Class of a callback -> the component of the recipe that made it."""
    plugins: Iterable[Plugin]
    """The plugins in use, which may have added callbacks of their own."""

    @classmethod
    def around(
        cls, handler: CallbackHandler, callbacks: Sequence[TrainerCallback], components: Sequence[Component]
    ) -> BlamingHandler:
        """Return a handler in place of `handler`, with all that it knows; each of `components` made a callback."""
        # All that the handler holds is taken over, whatever that is in the installed version of transformers.
        made = cls.__new__(cls)
        owners = dict(zip(map(type, callbacks), components, strict=True))
        made.__dict__.update(vars(handler), components=owners, plugins=())
        return made

    def call_event(self, event: str, *arguments: Any, **named: Any) -> Any:
        """Tell every callback of an event. Raises PluginFault for what a component's or a plugin's raises by mistake.

        What others raise, such as those of a tracker, is raised as it is; so is a full disk, which is nobody's fault.
        """
        try:
            return super().call_event(event, *arguments, **named)
        except (SftplugError, OSError):
            raise
        except Exception as error:
            callback, where = self._failed(event, error)
            whose = self._owner(callback) if callback is not None else None
            if whose is None:
                raise
            # What called the callback is nobody's fault, and no place to look at.
            raise PluginFault(f"{whose}: {event}() failed: {reason(error.with_traceback(where))}") from error

    def _failed(self, event: str, error: Exception) -> tuple[TrainerCallback | None, TracebackType | None]:
        """Return the callback that `error` comes from, and its traceback from there on."""
        # The traceback leads from the trainer into the callback and on from there: the first frame that runs the method
        # of a callback tells whose it is.
        codes = {_code(callback, event): callback for callback in self.callbacks}
        where = error.__traceback__
        while where is not None and where.tb_frame.f_code not in codes:
            where = where.tb_next
        return (None, None) if where is None else (codes[where.tb_frame.f_code], where)

    def _owner(self, callback: TrainerCallback) -> str | None:
        """Return whose a callback is; None where it is no plugin's."""
        cls = type(callback)
        if cls in self.components:
            return describe(self.components[cls])
        package = cls.__module__.partition(".")[0]
        owner = next((item for item in self.plugins if item.module.__name__.partition(".")[0] == package), None)
        return f"callback {cls.__qualname__} of plugin {owner}" if owner is not None else None


def _code(callback: TrainerCallback, event: str) -> object:
    method = inspect.unwrap(getattr(callback, event))
    return getattr(getattr(method, "__func__", method), "__code__", None)
