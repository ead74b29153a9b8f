"""What an object remembers in plain attributes, taken down so that another of its kind can be given it back.

Adapters, callbacks and optimizers keep counts, averages and random positions where no ``state_dict`` looks: AdaLoRA its
running importance of each rank, a callback its best score so far. Plain values become JSON, tensors stay tensors.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import inf
from random import Random
from typing import Any

import numpy as np
import torch

AttributePath = tuple[str, ...]
"""How to get to an attribute from the object: names of attributes, and keys of mappings."""
_KINDS: Mapping[str, Callable[[Any], Any]] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}


class _OpaqueError(Exception):
    """A value that is neither plain nor a tensor, nor made of such."""

    def __init__(self, value: object) -> None:
        super().__init__(value)
        self.value = value


@dataclass(slots=True)
class Snapshot:
    """What was taken down of one object."""

    plain: dict[AttributePath, str] = field(default_factory=dict)
    """Attribute -> JSON, with names in place of tensors."""
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    """Name -> a copy on the CPU."""
    opaque: dict[AttributePath, tuple[object, object]] = field(default_factory=dict)
    """Attribute that cannot be taken down -> the first value in it because of which, and by what it is known again."""

    def since(self, before: Snapshot) -> Snapshot:
        """Return what is another than it was `before`, or is new."""
        changed = {path: text for path, text in self.plain.items() if not self._same(before, path, text)}
        names = {name for text in changed.values() for name in tensor_names(text)}
        # What cannot be taken down counts as changed where it is another object; what changes within one, nobody sees.
        opaque = {path: known for path, known in self.opaque.items() if before.opaque.get(path, known)[1] != known[1]}
        opaque |= {path: known for path, known in self.opaque.items() if path not in before.opaque}
        return Snapshot(changed, {name: self.tensors[name] for name in names}, opaque)

    def _same(self, before: Snapshot, path: AttributePath, text: str) -> bool:
        return before.plain.get(path) == text and all(
            equal(self.tensors[name], before.tensors[name]) for name in tensor_names(text)
        )


def equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors are the same in type, shape and every number; so are two NaNs, which `torch.equal` denies."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if one.is_floating_point() or one.is_complex():
        return bool(torch.equal(one.isnan(), other.isnan()) and torch.equal(_without_nan(one), _without_nan(other)))
    return bool(torch.equal(one, other))


def _without_nan(tensor: torch.Tensor) -> torch.Tensor:
    return torch.nan_to_num(tensor, nan=0.0, posinf=inf, neginf=-inf)  # by itself it makes numbers of infinities too


def take_down(root: object) -> Snapshot:
    """Return what `root` remembers, and what helper objects do that are of the same package."""
    memory = Snapshot()
    for path, value in _attributes(root, (), {id(root)}):
        found: dict[str, torch.Tensor] = {}
        try:
            encoded = _encode(value, ".".join(path), found)
        except _OpaqueError as error:
            memory.opaque[path] = (error.value, _outline(value))
        else:
            memory.plain[path] = json.dumps(encoded)
            memory.tensors |= found
    return memory


def tensor_names(text: str) -> Iterator[str]:
    """Yield the names of the tensors in the JSON of one attribute."""
    return _names(json.loads(text))


def give_back(root: object, path: AttributePath, text: str, tensors: Mapping[str, torch.Tensor]) -> None:
    """Set the attribute at `path` to what was taken down. Raises AttributeError or KeyError where there is no such."""
    *way, last = path
    owner: Any = root
    for step in way:
        owner = owner[step] if isinstance(owner, Mapping) else getattr(owner, step)
    value = _decode(json.loads(text), tensors)
    if isinstance(owner, dict):
        owner[last] = value
    else:
        setattr(owner, last, value)


# --- the way through an object ----------------------------------------------------------------------------------------


def _attributes(owner: object, path: AttributePath, seen: set[int]) -> Iterator[tuple[AttributePath, Any]]:
    """Yield path and value of the attributes of `owner` and of its helpers; modules have theirs told elsewhere."""
    for name, value in vars(owner).items():
        if name in _OF_MODULES and isinstance(owner, torch.nn.Module):
            continue
        yield from _values(owner, (*path, name), value, seen)


_OF_MODULES = frozenset(vars(torch.nn.Module()))


def _values(owner: object, path: AttributePath, value: Any, seen: set[int]) -> Iterator[tuple[AttributePath, Any]]:
    if _is_helper(owner, value):
        # Helpers may hold each other.
        if id(value) not in seen:
            seen.add(id(value))
            yield from _attributes(value, path, seen)
    elif isinstance(value, dict) and any(_is_helper(owner, item) for item in value.values()):
        for key, item in value.items():
            yield from _values(owner, (*path, str(key)), item, seen)
    else:
        yield path, value


def _is_helper(owner: object, value: object) -> bool:
    """Whether `value` is an object of the package that `owner` is of, with attributes of its own."""
    if isinstance(value, torch.nn.Module | torch.Tensor | type) or callable(value) or not hasattr(value, "__dict__"):
        return False
    return type(value).__module__.partition(".")[0] == type(owner).__module__.partition(".")[0]


# --- values -----------------------------------------------------------------------------------------------------------


def _encode(value: Any, name: str, found: dict[str, torch.Tensor]) -> Any:
    """Return `value` as JSON holds it; tensors go to `found`, under names that begin with `name`."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) is torch.Tensor or type(value) is torch.nn.Parameter:
        found[name] = value.detach().cpu().clone()
        return {"tensor": name}
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biuf":
        found[name] = torch.from_numpy(np.array(value))
        return {"array": name, "scalar": isinstance(value, np.generic)}
    return _encode_many(value, name, found)


def _encode_many(value: Any, name: str, found: dict[str, torch.Tensor]) -> Any:
    def encoded(items: Any) -> list[Any]:
        return [_encode(item, f"{name}.{index}", found) for index, item in enumerate(items)]

    # {"mean": tensor} in the attribute `seen` is {"dict": [["mean", {"tensor": "seen.mean"}]]}.
    # Pairs, for the keys of JSON are texts, and those of a dict may be numbers.
    if type(value) in (dict, Counter):
        keys = [_encode(key, f"{name}.key", found) for key in value]
        values = [_encode(item, f"{name}.{key}", found) for key, item in value.items()]
        return {type(value).__name__.lower(): [list(pair) for pair in zip(keys, values, strict=True)]}
    if type(value) is deque:
        return {"deque": encoded(value), "maxlen": value.maxlen}
    if type(value) is Random:
        return {"random": _encode(value.getstate(), name, found)}
    if type(value) is np.random.Generator:
        return {"generator": _encode(value.bit_generator.state, name, found)}
    if type(value).__name__ in _KINDS and type(value) is _KINDS[type(value).__name__]:
        # A set has no order: sorted, the same set is always the same text.
        return {type(value).__name__: encoded(sorted(value, key=repr) if isinstance(value, set | frozenset) else value)}
    raise _OpaqueError(value)


def _outline(value: Any) -> object:
    """Return what tells whether a value holds the same objects as before; of an object itself, which one it is."""
    if isinstance(value, dict):
        return tuple((repr(key), _outline(item)) for key, item in value.items())
    if isinstance(value, list | tuple | deque):
        return tuple(map(_outline, value))
    return value if type(value) in (bool, int, float, str) else id(value)


def _decode(known: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if not isinstance(known, dict):
        return known
    if "tensor" in known:
        return tensors[known["tensor"]].clone()
    if "array" in known:
        array = tensors[known["array"]].numpy().copy()
        return array[()] if known["scalar"] else array
    if "deque" in known:
        return deque((_decode(item, tensors) for item in known["deque"]), known["maxlen"])
    ((kind, items),) = known.items()
    if kind in ("random", "generator"):
        return _generator(kind, _decode(items, tensors))
    if kind in ("dict", "counter"):
        pairs = {_decode(key, tensors): _decode(item, tensors) for key, item in items}
        return Counter(pairs) if kind == "counter" else pairs
    return _KINDS[kind](_decode(item, tensors) for item in items)


def _generator(kind: str, state: Any) -> Random | np.random.Generator:
    """Return a random generator that resumes from `state`."""
    if kind == "generator":
        bits = getattr(np.random, state["bit_generator"])()
        bits.state = state
        return np.random.Generator(bits)
    made = Random()
    made.setstate(state)
    return made


def _names(known: Any) -> Iterator[str]:
    """Yield the names of the tensors in what `_encode` returned."""
    if isinstance(known, list):
        for item in known:
            yield from _names(item)
    elif isinstance(known, dict):
        yield from (known[kind] for kind in ("tensor", "array") if kind in known)
        for kind in known.keys() - {"tensor", "array", "scalar", "maxlen"}:
            yield from _names(known[kind])
