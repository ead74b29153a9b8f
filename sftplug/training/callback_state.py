"""What callbacks, components and the optimizer remember between two steps: kept with every checkpoint, or refused."""

from __future__ import annotations

import inspect
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from sftplug.errors import RunError, TrainingError
from sftplug.training.object_state import Snapshot, give_back, take_down, tensor_names

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from transformers import TrainingArguments

    from sftplug.plugin.components import Component

_GIVEN = frozenset({"torch", "transformers", "trl", "accelerate", "datasets", "peft", "tokenizers", "sftplug"})
"""Packages of what a trainer hands to its callbacks: model, tokenizer, state, loaders. It is not state of theirs."""
_HANDLES = frozenset({"io", "_io", "logging", "threading", "_thread", "pathlib", "concurrent", "tqdm", "rich"})
"""Packages of what is opened anew by every process."""


def is_resumable(arguments: TrainingArguments) -> bool:
    """Whether the run saves checkpoints that it could resume from."""
    return str(getattr(arguments.save_strategy, "value", arguments.save_strategy)) != "no" and not bool(
        arguments.save_only_model
    )


# --- callbacks --------------------------------------------------------------------------------------------------------


class Carried:
    """What the recipe's callbacks remember in attributes, without saying so.

    What changes once training has begun is kept: numbers, texts, lists, dicts, tensors, random generators. Callbacks
    that implement transformers' `ExportableState` see to themselves.
    """

    noun = "callback"
    way = "implement transformers' `ExportableState`"
    """What else than to remember plain values one can do."""

    def __init__(self, callbacks: Sequence[Any]) -> None:
        self._callbacks = [callback for callback in callbacks if not isinstance(callback, ExportableState)]
        self._first = [Snapshot() for _ in self._callbacks]

    def begin(self) -> None:
        """Note what they remember when training begins: that they remember in every process."""
        self._first = [take_down(callback) for callback in self._callbacks]

    def refuse_lossy(self) -> None:
        """Raise TrainingError for what has changed since the beginning, and cannot be kept."""
        for callback, first in zip(self._callbacks, self._first, strict=True):
            for path, (value, _) in take_down(callback).since(first).opaque.items():
                if not _is_given(value):
                    raise TrainingError(self._says(callback, ".".join(path), value))

    def write(self, folder: Path, process: int) -> None:
        """Write what has changed since the beginning. Raises TrainingError for what cannot be kept."""
        from safetensors.torch import save_file

        self.refuse_lossy()
        told: list[dict[str, Any]] = []
        tensors: dict[str, torch.Tensor] = {}
        for number, (callback, first) in enumerate(zip(self._callbacks, self._first, strict=True)):
            changed = take_down(callback).since(first)
            told.append(
                {"class": _name(callback), "plain": [[list(path), text] for path, text in changed.plain.items()]}
            )
            tensors |= {f"{number}:{name}": tensor for name, tensor in changed.tensors.items()}
        if any(callback["plain"] for callback in told):
            tensors[":none"] = torch.zeros(1)  # the format knows no file without tensors
            save_file(tensors, folder / self._file(process), metadata={"callbacks": json.dumps(told)})

    def read(self, folder: Path, process: int) -> None:
        """Give the callbacks back what was written. Raises RunError when they are others."""
        from safetensors import safe_open

        if not (folder / self._file(process)).is_file():
            return
        with safe_open(folder / self._file(process), "pt") as opened:
            told = json.loads(opened.metadata()["callbacks"])
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - it is not a mapping
        then, now = [known["class"] for known in told], [_name(callback) for callback in self._callbacks]
        if then != now:
            raise RunError(f"the checkpoint is of other {self.noun}s: {', '.join(then)} then, {', '.join(now)} now.")
        for number, (callback, known) in enumerate(zip(self._callbacks, told, strict=True)):
            own = {name.partition(":")[2]: item for name, item in tensors.items() if name.startswith(f"{number}:")}
            self._give_back(callback, known["plain"], own)

    def _give_back(self, callback: object, plain: Sequence[Any], tensors: Mapping[str, torch.Tensor]) -> None:
        for path, text in plain:
            try:
                give_back(callback, tuple(path), text, tensors)
            except (AttributeError, KeyError, TypeError) as error:
                raise RunError(
                    f"the {self.noun} {_name(callback)} cannot be given back `{'.'.join(path)}`: {error}. Let it "
                    f"{self.way}, and begin a new run."
                ) from error

    def _file(self, process: int) -> str:
        return f"{self.noun}s.safetensors" if process == 0 else f"{self.noun}s_{process}.safetensors"

    def _says(self, callback: object, what: str, value: object) -> str:
        return (
            f"the {self.noun} {_name(callback)} remembers `{what}`, with a {type(value).__name__} in it, which a "
            "checkpoint cannot hold: a resumed run would be another one. Let it remember numbers, texts, lists, dicts "
            f"or tensors, or {self.way}; with `train.save_strategy: no`, and no other `train.save_*`, it need not."
        )


class CarriedComponents(Carried):
    """The same of the components that are called at every step, such as a loss: what private attributes remember."""

    noun = "component"
    way = "make it anew where it is asked for"

    def __init__(self, components: Iterable[Component | None]) -> None:
        there = {id(component): component for component in components if component is not None}
        super().__init__([_private(component) for component in there.values()])


def _private(component: Component) -> object:
    """Return an object with the private attributes of a component, which writes to them; it is as of the same class.

    The options of a component are frozen, and what is kept in `functools.cached_property` can be made again.
    """
    kind = type(component)
    made: Any = type(kind.__name__, (), {"__module__": kind.__module__, "__qualname__": kind.__qualname__})()
    made.__dict__ = component.__pydantic_private__ or {}
    return made


def beyond_checkpoints(callback: TrainerCallback) -> Iterator[tuple[str, object]]:
    """Yield attribute and value of each object of its own that a callback holds by now and `Carried` cannot keep."""
    if not isinstance(callback, ExportableState):
        found = take_down(callback).opaque
        yield from ((".".join(path), value) for path, (value, _) in found.items() if not _is_given(value))


def _name(callback: object) -> str:
    return type(callback).__qualname__


def _is_given(value: object) -> bool:
    """Whether a value is not state of the callback: handed to it by the trainer, a function, a file that is open."""
    package = type(value).__module__.partition(".")[0]
    if isinstance(value, type | ModuleType | io.IOBase) or inspect.isroutine(value):
        return True
    return package in _HANDLES or (package in _GIVEN and not isinstance(value, torch.Tensor | torch.Generator))


def states_of(callbacks: Sequence[TrainerCallback]) -> list[dict[str, Any]]:
    """Return class and state of the callbacks that implement transformers' `ExportableState`, in their order."""
    stateful = [callback for callback in callbacks if isinstance(callback, ExportableState)]
    return [{"class": type(callback).__name__, **callback.state()} for callback in stateful]


def with_states(callbacks: Sequence[TrainerCallback], states: Sequence[Mapping[str, Any]]) -> list[TrainerCallback]:
    """Return `callbacks`, each in its place, those with a state made again from what `states_of` has told of them.

    transformers' own way gives the first of several of one class the state of the run's beginning, and moves them
    behind all others. Raises RunError when the callbacks are not those that the states are of.
    """
    stateful = [type(callback).__name__ for callback in callbacks if isinstance(callback, ExportableState)]
    known = [str(state["class"]) for state in states]
    if stateful != known:
        now, then = (", ".join(names) or "none" for names in (stateful, known))
        raise RunError(f"the checkpoint holds the states of other callbacks: {then} then, {now} now. Begin a new run.")
    rest = iter(states)
    return [
        _anew(callback, next(rest)) if isinstance(callback, ExportableState) else callback for callback in callbacks
    ]


def _anew(callback: TrainerCallback, state: Mapping[str, Any]) -> TrainerCallback:
    try:
        made = type(callback)(**state["args"])
        for name, value in state["attributes"].items():
            setattr(made, name, value)
    except (TypeError, KeyError, AttributeError) as error:
        name = f"{type(callback).__module__}.{type(callback).__qualname__}"
        raise RunError(
            f"the callback {name} cannot be given back its state: {type(error).__name__}: {error}. Its `state()` must "
            "return `args`, with which its class can be made, and `attributes`."
        ) from error
    return made


# --- the optimizer ----------------------------------------------------------------------------------------------------


def remembered(optimizer: Optimizer) -> Snapshot:
    """Return what an optimizer remembers beside its state: asked for before its first step, and after."""
    beside = {name: value for name, value in vars(_bare(optimizer)).items() if name not in _STANDARD and name[0] != "_"}
    return take_down(SimpleNamespace(**beside))


def refuse_lossy(optimizer: Optimizer, first: Snapshot) -> None:
    """Raise TrainingError where what the optimizer has by now does not come back from a checkpoint.

    `first` is what it remembered before its first step; the smallest state of any parameter stands for all.
    """
    bare = _bare(optimizer)
    name = type(bare).__name__
    changed = remembered(optimizer).since(first)
    hidden = {path[0] for path, text in changed.plain.items() if set(tensor_names(text))}
    if getattr(bare, "optimizer_dict", None):
        hidden.add("optimizer_dict")  # one optimizer a parameter, called by hooks; the outer one knows nothing of them
    if hidden:
        raise TrainingError(
            f"the optimizer {name} keeps {', '.join(sorted(hidden))} where no checkpoint looks. {_ANOTHER}"
        )
    known = bare.state_dict()
    few = dict(sorted(known["state"].items(), key=_size)[:1])
    refuse_unreadable(f"the optimizer {name}", {"state": few, "param_groups": known["param_groups"]})


def _size(state: tuple[object, Any]) -> int:
    parts = state[1].values() if isinstance(state[1], Mapping) else ()
    return sum(part.numel() for part in parts if isinstance(part, torch.Tensor))


_STANDARD = frozenset({"state", "param_groups", "defaults"})
_ANOTHER = (
    "So the run could not resume from a checkpoint: choose another `train.optim`, or `train.save_strategy: no` and no "
    "other `train.save_*`."
)


def _bare(optimizer: Any) -> Any:
    """Return the optimizer that accelerate has wrapped."""
    return getattr(optimizer, "optimizer", optimizer)


def refuse_unreadable(what: str, state: Mapping[str, Any]) -> None:
    """Raise TrainingError where `state` does not come back from a file that is read without running code."""
    file = io.BytesIO()
    try:
        torch.save(state, file)
        file.seek(0)
        torch.load(file, weights_only=True)
    except Exception as error:  # pickle raises what it likes
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise TrainingError(
            f"the state of {what} cannot be read back from a checkpoint: {reason}. {_ANOTHER}"
        ) from error
