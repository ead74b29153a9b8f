"""Say whose fault something is: which component of which plugin, in which file and line."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import pluggy

from sftplug.errors import PluginError, SftplugError

if TYPE_CHECKING:
    from sftplug.plugin.components import Component

_owners: WeakKeyDictionary[type[Component], str] = WeakKeyDictionary()


def register_owner(component: type[Component], plugin: str) -> None:
    """Remember which plugin offers `component`, so that every message about it can say so."""
    _owners[component] = plugin


def owner_of(component: type[Component]) -> str:
    """Return the name of the plugin that offers a class; that of its module if none does."""
    return _owners[component].partition(" ")[0] if component in _owners else component.__module__


def describe(component: Component | type[Component]) -> str:
    """Return ``masking 'mine' of plugin acme (acme 1.2.3)``."""
    from sftplug.plugin.kinds import NOUNS  # what lists plugins and commands must not wait for all kinds

    cls = component if isinstance(component, type) else type(component)
    noun = next((noun for kind, noun in NOUNS.items() if issubclass(cls, kind)), cls.__name__)
    owner = f" of plugin {_owners[cls]}" if cls in _owners else ""
    name = cls.model_fields["type"].default if isinstance(component, type) else component.type
    return f"{noun} '{name}'{owner}"


def place_of(thing: Any) -> str:
    """Return the file and line where a class, function or method is defined; its module if there is no source."""
    thing = inspect.unwrap(getattr(thing, "__func__", thing))
    try:
        return f"{inspect.getsourcefile(thing)}:{inspect.getsourcelines(thing)[1]}"
    except (OSError, TypeError):
        return str(getattr(thing, "__module__", type(thing).__module__))


def place_of_method(component: Component | type[Component], method: str) -> str:
    """Return the file and line of a component's method, a property too."""
    found = getattr(component if isinstance(component, type) else type(component), method)
    return place_of(found.fget if isinstance(found, property) else found)


def complain(component: Component | type[Component], method: str, text: str) -> str:
    """Return a sentence about what `method` of `component` returned: whose it is, what is wrong, and where."""
    return f"{describe(component)}: {method}() {text} ({place_of_method(component, method)})"


def plugin_error(component: Component | type[Component], method: str, text: str) -> PluginError:
    """Return the error for something that `method` of `component` must not return."""
    return PluginError(complain(component, method, text))


@contextmanager
def plugin_errors(component: Component | type[Component], method: str) -> Iterator[None]:
    """Turn whatever a component's method raises, other than what it says on purpose, into a PluginError with blame."""
    try:
        yield
    except SftplugError:
        raise
    except Exception as error:
        raise failed(component, method, error) from error


def failed(component: Component | type[Component], method: str, error: Exception) -> PluginError:
    """Return the error for what `method` of `component` raised by accident."""
    return PluginError(f"{describe(component)}: {method}() failed: {reason(error)}")


# --- where it happened ------------------------------------------------------------------------------------------------


def reason(error: BaseException) -> str:
    """Return what went wrong, and on which line of the plugin; where that called other code, the place there too."""
    from sftplug.util.frozen import refused

    text = str(error) if isinstance(error, PluginError) else f"{type(error).__name__}: {refused(error) or error}"
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg} ({error.filename}:{error.lineno})"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_foreign(frame.filename)]
    if not frames:
        return text
    home = _home(frames[0].filename)
    own = next(frame for frame in reversed(frames) if _home(frame.filename) == home)
    deeper = "" if frames[-1] is own else f", raised at {frames[-1].filename}:{frames[-1].lineno}"
    return f"{text} ({own.filename}:{own.lineno}{deeper})"


def _home(file: str) -> Path:
    """Return the outermost package around a file; the file itself if it is in none."""
    place = Path(file)
    while (place.parent / "__init__.py").is_file():
        place = place.parent
    return place


_CORE, _PLUGGY = str(Path(__file__).parents[1]), str(Path(pluggy.__file__).parent)


def _is_foreign(filename: str) -> bool:
    """Whether a frame is of no machinery: neither of the core nor of what imports and calls plugins."""
    return not (filename.startswith(("<frozen", _CORE, _PLUGGY)) or "/importlib/" in filename)
