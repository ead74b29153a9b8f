"""Plain data that cannot be changed, in a copy: what is handed to code that may look at a recipe, and no more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

M = TypeVar("M", bound=BaseModel)

WAY = (
    "a recipe cannot be changed once it is loaded: the record of the run would say something else than was done. Write "
    "the value into the recipe or into one that it `extends`, or let a callback return it from `train_options`"
)


def frozen(model: M, *, whole: Callable[[BaseModel], bool] = lambda _: False) -> M:
    """Return `model` with all dicts, lists and sets in it replaced by such that raise TypeError when they are changed.

    Models in it for which `whole` returns True stay the very same objects.
    """
    copy = model.model_copy()
    # Not by `update`, after which each field would count as one that was set.
    vars(copy).update({name: _frozen(value, whole) for name, value in vars(model).items()})
    return copy


def _frozen(value: Any, whole: Callable[[BaseModel], bool]) -> Any:
    if isinstance(value, BaseModel):
        return value if whole(value) else frozen(value, whole=whole)
    if isinstance(value, tuple) and type(value) is tuple:
        return tuple(_frozen(item, whole) for item in value)
    if type(value) is list:
        return FrozenList(_frozen(item, whole) for item in value)
    if type(value) is dict:
        return FrozenDict({name: _frozen(item, whole) for name, item in value.items()})
    return FrozenSet(value) if type(value) is set else value


def refused(error: BaseException) -> str:
    """Return what to do instead, where `error` is that of a frozen model somebody assigned to; else nothing."""
    assigned = isinstance(error, ValidationError) and all(item["type"] == "frozen_instance" for item in error.errors())
    return f"{WAY}" if assigned else ""


def _refuse(*_: object, **__: object) -> NoReturn:
    raise TypeError(WAY)


class FrozenDict(dict[Any, Any]):
    """A dict to read; `dict(it)` can be changed."""

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how a pickle is made, which else fills it item by item."""
        return FrozenDict, (dict(self),)


class FrozenList(list[Any]):
    """A list to read; `list(it)` can be changed."""

    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = clear = extend = insert = pop = remove = reverse = sort = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how a pickle is made."""
        return FrozenList, (list(self),)


class FrozenSet(set[Any]):
    """A set to read, which is written as a set is; `set(it)` can be changed."""

    add = clear = discard = pop = remove = update = _refuse
    difference_update = intersection_update = symmetric_difference_update = _refuse
    __iand__ = __ior__ = __isub__ = __ixor__ = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how a pickle is made."""
        return FrozenSet, (list(self),)
