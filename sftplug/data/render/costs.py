"""What the filters, tests, operators and methods of a chat template cost, said before they run.

Whatever is not listed here is `Unproven`: nobody knows what it would cost, and it runs only where somebody outside can
end it (see `worker`). Sorting, say, is listed for short lists; for long ones it is not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from string import Formatter
from typing import Any

from jinja2.runtime import BlockReference, LoopContext, Macro
from jinja2.utils import Cycler, Joiner

from sftplug.data.render.budget import ITEM, Budget, TooMuch, Unproven, length_of, measured

WIDEST = 1_000_000
"""The largest width, or count, that a template may ask for."""
SMALL = 20_000
"""So much work may anything be given that is known to end, and no more is known of it."""
FEW = 1000
"""The largest number that such a thing may be given."""
BITS = 4096
"""The length of the largest number that may be computed."""

_SPACES = " \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f"
"""What texts of plain letters are split at."""

# --- operators --------------------------------------------------------------------------------------------------------


def apply_operator(budget: Budget, operator: str, left: Any, right: Any, apply: Callable[[Any, Any], Any]) -> Any:
    """Return what an operator makes. Raises TooMuch before it makes too much."""
    if operator == "+":
        budget.afford(length_of(left) + length_of(right))
    elif operator == "%":
        charge_percent(budget, left, right)
    elif operator in ("*", "**"):
        _charge_times(budget, operator, left, right)
    elif not (isinstance(left, int | float) and isinstance(right, int | float)):
        budget.deep((left, right))  # the difference of a mapping's keys, say
    return budget.sized(apply(left, right))


def _charge_times(budget: Budget, operator: str, left: Any, right: Any) -> None:
    for items, times in ((left, right), (right, left)):
        if isinstance(times, int) and length_of(items) * times > budget.longest:
            raise TooMuch(f"it repeats a text or list {times:,} times")
    if isinstance(left, int) and isinstance(right, int):
        # 7 is a number of 3 bits, so 7 ** 1000 has 3,000 at most.
        bits = left.bit_length() * right if operator == "**" else left.bit_length() + right.bit_length()
        if bits > BITS:
            raise TooMuch(f"it computes a number of more than {BITS:,} bits")


_PERCENT = re.compile(r"%(?:\([^)]*\))?[-+ #0]*(\*|\d*)(?:\.(\*|\d*))?")


def charge_percent(budget: Budget, pattern: Any, values: Any) -> None:
    """Count what ``pattern % values`` makes."""
    if not isinstance(pattern, str):
        return
    specs = _PERCENT.findall(str.__str__(pattern))
    for width in (item for spec in specs for item in spec if item):
        # 20 digits are more than any width; to read a number of a million digits would take long by itself.
        _check_width("%", int(width[:20]) if width != "*" else max(map(_largest, _as_tuple(values)), default=0))
    most = _most(budget, values) + max((sum(int(i or 0) for i in s if i != "*") for s in specs), default=0)
    budget.afford(length_of(pattern) + len(specs) * most)
    budget.charge(length_of(pattern) + len(specs) * most)


def charge_format(budget: Budget, pattern: str, args: Any, kwargs: Any) -> None:
    """Count what ``pattern.format(…)`` makes."""
    fields = [field for field in Formatter().parse(str.__str__(pattern)) if field[1] is not None]
    widest = max((_largest(item) for item in [*args, *kwargs.values()]), default=0)
    widths = [0]
    for _, _, spec, _ in fields:
        numbers = [int(number[:20]) for number in re.findall(r"\d+", spec or "")]
        widths += [*numbers, widest if "{" in (spec or "") else 0]
    _check_width("format", max(widths))
    most = _most(budget, (args, kwargs)) + max(widths)
    budget.afford(length_of(pattern) + len(fields) * most)
    budget.charge(length_of(pattern) + len(fields) * most)


def _most(budget: Budget, values: Any) -> int:
    """Return the most that one of `values` can be when it is written out, a character as ``\\U0010ffff`` at worst."""
    return budget.deep(values) * (1 if isinstance(values, str | int | float) else 10)


def _as_tuple(values: Any) -> Iterable[Any]:
    if isinstance(values, Mapping):
        return values.values()
    return values if isinstance(values, tuple) else (values,)


def _largest(value: Any) -> int:
    return abs(value) if isinstance(value, int) else 0


def _check_width(name: str, width: int) -> None:
    if width > WIDEST:
        raise TooMuch(f"`{name}` is asked for a width of more than {WIDEST:,}")


# --- methods ----------------------------------------------------------------------------------------------------------

_LINEAR = frozenset(
    {"capitalize", "casefold", "count", "endswith", "find", "index", "lower", "lstrip", "removeprefix", "removesuffix"}
    | {"rfind", "rindex", "rstrip", "startswith", "strip", "swapcase", "title", "upper", "partition", "rpartition"}
    | {name for name in dir(str) if name.startswith("is")}
)
_CUTTING = frozenset({"split", "rsplit", "splitlines"})
_PADDING = frozenset({"center", "ljust", "rjust", "zfill"})
_OF_LISTS = frozenset({"index", "count", "copy", "get", "items", "keys", "values"})
_OF_JINJA = (Macro, BlockReference, LoopContext, Joiner)
"""What only runs the template's own body, or only says how far a loop is."""
_SIMPLE = (str, int, float, bool, type(None))
KNOWN = ("range", "namespace", "dict", "joiner", "cycler", "raise_exception", "strftime_now")
"""The functions that templates are given of which it is known what they cost."""


def charge_call(
    budget: Budget, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], known: tuple[Any, ...]
) -> tuple[Any, ...]:
    """Count what a call costs, and return its positional arguments; an iterator that is joined comes back as a list.

    `known` are the functions that templates are given. Raises Unproven for what is not known.
    """
    budget.charge(10 + 10 * len(args))
    owner, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
    if isinstance(owner, str):
        return charge_method(budget, owner, name, args, kwargs)
    if not (isinstance(function, _OF_JINJA) or isinstance(owner, Cycler)):
        _charge_function(budget, function, args, known)
        for item in (*args, *kwargs.values()):
            if type(item) not in _SIMPLE:
                budget.deep(item)
    return args


def _charge_function(budget: Budget, function: Any, args: tuple[Any, ...], known: tuple[Any, ...]) -> None:
    owner, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
    if isinstance(owner, dict | list | tuple) and name in _OF_LISTS:
        budget.charge(length_of(owner))
        if name in ("index", "count"):
            budget.deep(owner)
    elif not (isinstance(owner, LoopContext) or any(function is one for one in known)):
        _unproven(budget)
    if name == "strftime_now" and args:
        budget.charge(256 * length_of(args[0]))  # what `strftime` makes room for


def charge_method(
    budget: Budget, text: str, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Any, ...]:
    """Count what a method of a text costs, and return its positional arguments."""
    size, first = str.__len__(text), next(iter(args), None)
    budget.charge(size)
    if name in _CUTTING:
        budget.charge(ITEM * _pieces(text, kwargs.get("sep", first), lines=name == "splitlines"))
    elif name in _PADDING:
        _check_width(name, _largest(first))
    elif name == "expandtabs":
        width = _largest(kwargs.get("tabsize", 8 if first is None else first))
        _check_width(name, width)
        budget.afford(size + str.count(text, "\t") * width)
    elif name == "replace" and len(args) > 1:
        _charge_replace(budget, text, args[0], args[1])
    elif name == "join" and args:
        return (_charge_join(budget, text, args[0]), *args[1:])
    elif name not in _LINEAR and name not in ("replace", "join"):
        _unproven(budget)
    budget.charge(sum(length_of(item) for item in args))
    return args


def _pieces(text: str, separator: Any, *, lines: bool) -> int:
    """Return how many pieces a text is cut into at most."""
    text = str.__str__(text)  # a text that notes what is asked of it must not notice
    if isinstance(separator, str) and separator:
        return text.count(separator) + 1
    if len(text) <= FEW or not text.isascii():
        # Each character may be a line of its own; a word is a character and a blank at least. There are more sorts of
        # blank beyond ASCII than are counted below.
        return len(text) if lines else len(text) // 2 + 1
    return sum(map(text.count, "\n\r\x0b\x0c\x1c\x1d\x1e" if lines else _SPACES)) + 1


def _charge_replace(budget: Budget, text: str, old: Any, new: Any) -> None:
    if isinstance(old, str) and isinstance(new, str):
        # The empty text stands before each character and at the end: "ab".replace("", "-") is "-a-b-".
        count = str.count(text, old) if old else str.__len__(text) + 1
        grown = count * str.__len__(new)
        if grown > budget.longest:
            raise TooMuch(f"`replace` makes a text of more than {budget.longest:,} characters")
        budget.charge(grown + (ITEM // 2) * count)


def _charge_join(budget: Budget, separator: str, values: Any) -> Any:
    values = _listed(budget, values)
    joined = str.__len__(separator) * length_of(values) + budget.deep(values)
    if joined > budget.longest:
        raise TooMuch(f"`join` makes a text of more than {budget.longest:,} characters")
    budget.charge(joined)
    return values


def _listed(budget: Budget, values: Any) -> Any:
    """Return the values of an iterator, a range and the like as a list, counted; a text or list as it is."""
    if isinstance(values, str | list | tuple | dict) or not hasattr(values, "__iter__"):
        return values
    return list(budget.metered(values))


def _unproven(budget: Budget) -> None:
    if not budget.guarded:
        raise Unproven


# --- filters and tests ------------------------------------------------------------------------------------------------

Charge = Callable[[Budget, tuple[Any, ...], Mapping[str, Any]], tuple[Any, ...]]
"""Counts what the arguments of a filter cost, and returns them."""


def _free(_budget: Budget, args: tuple[Any, ...], _kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    return args


def _deep(budget: Budget, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    budget.charge(6 * sum(map(budget.deep, args)))  # ``&`` is written as ``&amp;``
    if kwargs:
        budget.deep(dict(kwargs))
    return args


def _iterating(budget: Budget, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    first: Any = args[0] if args else None
    if hasattr(first, "__next__"):
        return (budget.metered(first), *args[1:])
    budget.charge(ITEM * (len(first) if isinstance(first, range) else length_of(first)))
    if len(args) > 1 or kwargs:
        budget.deep((*args[1:], *kwargs.values()))
    return args


def _joining(budget: Budget, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    separator = args[1] if len(args) > 1 else kwargs.get("d", "")
    values = _charge_join(budget, separator if isinstance(separator, str) else "", args[0])
    return (values, *args[1:])


def _replacing(budget: Budget, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    text, old, new, *_ = [*args, *kwargs.values(), None, None]
    budget.deep(text)
    _charge_replace(budget, text if isinstance(text, str) else "", old, new)
    return args


def _indenting(budget: Budget, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    width = kwargs.get("width", args[1] if len(args) > 1 else 4)
    _check_width("indent", _largest(width))
    lines = str.count(args[0], "\n") + 1 if isinstance(args[0], str) else budget.deep(args[0])
    budget.afford(lines * (_largest(width) or length_of(width)))
    budget.charge(length_of(args[0]) + ITEM * lines + lines * (_largest(width) or length_of(width)))
    # Jinja's own does `value += "\n"` first, which would put a line into a list of the caller's: `messages|indent`.
    return (tuple(args[0]), *args[1:]) if isinstance(args[0], list) else args


def _percenting(budget: Budget, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    charge_percent(budget, args[0], dict(kwargs) or args[1:])
    return args


def _percenting_one(budget: Budget, args: tuple[Any, ...], _kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    charge_percent(budget, args[0], args[1])
    return args


def _jsoning(budget: Budget, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    options = [*args[1:], *kwargs.values()]
    for option in options:
        _check_width("tojson", _largest(option))
    added = sum(_largest(item) + length_of(item) for item in options)
    added += sum(length_of(part) for item in options if isinstance(item, list | tuple) for part in item)
    whole = measured(args[0], budget.longest)
    # The most that it can be: six characters for one (``\u0000``), and for each item quotes, a comma and an indent.
    # Real data is far below that, so only eight times too much is refused here; the text itself is measured once it is
    # made.
    made = 6 * whole.work + whole.items * (4 + added * (whole.depth + 1))
    if made > 8 * budget.longest:
        raise TooMuch(f"`tojson` makes a text of more than {budget.longest:,} characters")
    budget.charge(made)
    return args


def _sorting(budget: Budget, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    """Count what compares the items of a list with each other."""
    values = _listed(budget, args[0])
    # A list of a million items takes some twenty comparisons of each.
    budget.charge(20 * (budget.deep(values) + budget.deep((*args[1:], *kwargs.values()))))
    return (values, *args[1:])


def _small(budget: Budget, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    """Count what is known to end soon when it is given little, and is `Unproven` otherwise."""
    given = [_listed(budget, args[0]), *args[1:]] if args else []
    others = [*given[1:], *kwargs.values()]
    for item in others:
        _check_width("a filter", _largest(item))
    work = 50 * budget.deep((*given, *kwargs.values()))
    if work > 50 * SMALL or any(_largest(item) > FEW for item in others):
        _unproven(budget)
    budget.charge(work)
    return tuple(given)


_FREE = (
    "default d length count safe sftplug_own sftplug_own_here sftplug_mark sftplug_mark_item sftplug_mark_argument "
    "sftplug_push sftplug_pop sftplug_needle first last"
)
_DEEP = "string trim upper lower capitalize title escape e forceescape wordcount sftplug_concat"
_ITERATING = "map select reject selectattr rejectattr list items"
_SORTING = "sort dictsort unique groupby min max reverse"
_SMALL = (
    "sum batch slice truncate center int float round abs attr random pprint wordwrap striptags urlencode xmlattr "
    "filesizeformat"
)
FILTERS: Mapping[str, Charge] = {
    **dict.fromkeys(_FREE.split(), _free),
    **dict.fromkeys(_DEEP.split(), _deep),
    **dict.fromkeys(_ITERATING.split(), _iterating),
    **dict.fromkeys(_SORTING.split(), _sorting),
    **dict.fromkeys(_SMALL.split(), _small),
    "join": _joining,
    "replace": _replacing,
    "indent": _indenting,
    "format": _percenting,
    "sftplug_percent": _percenting_one,
    "tojson": _jsoning,
}
"""What is known of each filter; anything else is `Unproven`."""
_BY_TYPE = frozenset(
    {"boolean", "callable", "defined", "divisibleby", "escaped", "even", "false", "filter", "float", "integer"}
    | {"iterable", "mapping", "none", "number", "odd", "sameas", "sequence", "string", "test", "true", "undefined"}
)
"""Tests that look at a value's type, or at a number."""


def charged_filter(budget: Budget, name: str) -> Callable[[tuple[Any, ...], Mapping[str, Any]], tuple[Any, ...]]:
    """Return what counts the arguments of the filter `name`."""
    charge = FILTERS.get(name)

    def count(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
        if charge is None:
            _unproven(budget)
            return _deep(budget, args, kwargs)
        return charge(budget, args, kwargs)

    return count


def is_free(name: str, *, test: bool = False) -> bool:
    """Whether a filter or test takes no time to speak of."""
    return name in _BY_TYPE if test else FILTERS.get(name) is _free
