"""The options of another library's configuration classes, read from its source without importing it.

Importing torch and what stands on it costs seconds; a typing mistake in a recipe should be answered at once. So names,
types, defaults and descriptions of options come from the syntax tree of the installed source: of the fields of a
dataclass, or of the parameters of ``__init__``. Nothing of them is written down here, so that what a newer version of
the library adds is there by upgrading it. The library itself still has the last word when its class is made.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    create_model,
)
from pydantic.fields import FieldInfo

from sftplug.errors import did_you_mean
from sftplug.libraries.annotations import Kinds, is_union, may_be_null, name_of


@dataclass(frozen=True, slots=True)
class LibraryOption:
    """One option of a configuration class, as the source has it."""

    name: str
    annotation: ast.expr | None
    """Its type; None where the source says none."""
    default: ast.expr | None
    """Its default; None where the option is required."""
    description: str
    """The library's own words; may be empty."""


class LibraryOptions(BaseModel):
    """Options of a configuration class that is itself an option of another one."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), defer_build=True)

    made_from: ClassVar[tuple[str, str]]
    """Module and name of the library's class."""


class LibrarySource:
    """The classes that some source files of installed libraries define."""

    def __init__(self, *patterns: str) -> None:
        """`patterns` begin with a top-level package: ``trl/trainer/sft_config.py``, ``peft/tuners/*/config.py``."""
        self._patterns = patterns
        self._texts: dict[Path, str] = {}
        self._trees: dict[Path, ast.Module] = {}
        self._kinds = Kinds(lambda: self._enums, self._model_named)

    @cached_property
    def files(self) -> Mapping[Path, str]:
        """The files that match, sorted within a pattern, and the module that each is; none of what is not installed."""
        found = {}
        for pattern in self._patterns:
            package, _, inside = pattern.partition("/")
            folder = _package_folder(package)
            for file in sorted(folder.glob(inside)) if folder else ():
                parts = file.relative_to(file.parents[len(Path(inside).parts)]).with_suffix("").parts
                found[file] = ".".join(part for part in parts if part != "__init__")
        return found

    def statements(self, start: str) -> Iterator[tuple[str, ast.stmt]]:
        """Yield module and syntax tree of each statement that begins with the text `start`, indented or not.

        Nothing else of the files is parsed: so names are found among many files in a few milliseconds.
        """
        for file, module in self.files.items():
            text = self._text(file)
            for match in re.finditer(rf"^[ \t]*{re.escape(start)}", text, re.MULTILINE):
                yield module, _first_statement(text[match.start() :])

    def members(self, enumeration: str) -> dict[str, str]:
        """Return name -> value of the members of an enumeration of strings; nothing is parsed for it.

        Empty where the files do not define it.
        """
        for file in self.files:
            found = re.search(rf"^class {enumeration}\b.*\n((?:(?:[ \t].*)?\n)*)", self._text(file), re.MULTILINE)
            if found is not None:
                return dict(re.findall(r'^[ \t]+([A-Z]\w*) = "([^"]*)"', found[1], re.MULTILINE))
        return {}

    @cached_property
    def _index(self) -> Mapping[str, tuple[Path, str]]:
        """File and bases, as text, of every class and function that the files define at their top level."""
        known = re.compile(r"^(?:class (\w+)(?:\(([^)]*)\))?:|def (\w+)\()", re.MULTILINE)
        found = ((file, match) for file in self.files for match in known.findall(self._text(file)))
        return {name or function: (file, bases) for file, (name, bases, function) in found}

    def class_node(self, class_name: str) -> ast.ClassDef:
        """Return the syntax tree of a class. Raises KeyError for a class that the files do not define."""
        node = self._node(class_name)
        if not isinstance(node, ast.ClassDef):
            raise KeyError(class_name)
        return node

    def _node(self, name: str) -> ast.ClassDef | ast.FunctionDef:
        body = self._tree(self._index[name][0]).body
        return next(node for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name)

    def import_class(self, class_name: str) -> Any:
        """Import and return the class, or function, itself. Raises KeyError for one that the files do not define."""
        return getattr(importlib.import_module(self._module_of(class_name)), class_name)

    def _module_of(self, class_name: str) -> str:
        return self.files[self._index[class_name][0]]

    def _text(self, file: Path) -> str:
        if file not in self._texts:
            self._texts[file] = file.read_text(encoding="utf-8")
        return self._texts[file]

    def _tree(self, file: Path) -> ast.Module:
        if file not in self._trees:
            self._trees[file] = ast.parse(self._text(file))
        return self._trees[file]

    # --- the options of one class -------------------------------------------------------------------------------------

    def options(self, class_name: str) -> dict[str, LibraryOption]:
        """Return the options of a class by name: its ``__init__``'s parameters, or its fields and those of its bases.

        Of a function: its parameters but the first, which is what it works on. Bases that the files do not define add
        nothing. Raises KeyError for what the files do not define.
        """
        node = self._node(class_name)
        documented = _arguments_in(ast.get_docstring(node) or "")
        return {
            option.name: LibraryOption(
                option.name, option.annotation, option.default, option.description or documented.get(option.name, "")
            )
            for option in _parameters(node) or (self._fields(node) if isinstance(node, ast.ClassDef) else ())
        }

    def _fields(self, node: ast.ClassDef) -> Iterator[LibraryOption]:
        for base in reversed(node.bases):
            if name_of(base) in self._index:
                yield from self.options(name_of(base)).values()
        for item in node.body:
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and not _is_no_option(item):
                yield LibraryOption(item.target.id, item.annotation, *_default_and_help(item.value))

    def summary(self, class_name: str) -> str:
        """Return the first paragraph of the docstring of a class or function as one line; empty if there is none."""
        text = (ast.get_docstring(self._node(class_name)) or "").strip()
        return _plain(re.split(r"\n\s*\n|\n\s*Args:", text)[0])

    def default(self, option: LibraryOption) -> Any:
        """Return the option's default; None where it has none, or it must be run to be known."""
        return None if option.default is None else self._value_of(option.default)

    def problem(self, option: LibraryOption, value: Any) -> str | None:
        """Return a sentence if `value` has not the option's type."""
        try:
            TypeAdapter(self._kinds.type_of(option.annotation)).validate_python(value)
        except ValidationError:
            return self._wanted(option, value)
        return None

    def _wanted(self, option: LibraryOption, value: Any) -> str:
        wanted, known = self._kinds.readable(option.annotation)
        return f"must be {wanted}, not {value!r}.{did_you_mean(value, known)}"

    def json_schema(self, option: LibraryOption) -> dict[str, Any]:
        """Return the JSON Schema of an option: its type and description."""
        described = {"description": option.description} if option.description else {}
        return {**TypeAdapter(self._kinds.type_of(option.annotation)).json_schema(), **described}

    # --- as a pydantic model ------------------------------------------------------------------------------------------

    def model_fields(
        self, class_name: str, leave_out: frozenset[str] = frozenset(), taken: frozenset[str] = frozenset()
    ) -> dict[str, tuple[Any, FieldInfo]]:
        """Return the options as fields for `pydantic.create_model`: strictly typed, with default and description.

        An option named as one of `taken` becomes the field ``name_`` with the alias ``name``. A default that is no
        literal becomes None, so pass on to the library only what was set: `set_options`.
        """
        fields = {}
        for name, option in self.options(class_name).items():
            if name not in leave_out:
                fields[f"{name}_" if name in taken else name] = self._field(class_name, option, name in taken)
        return fields

    def _field(self, class_name: str, option: LibraryOption, aliased: bool) -> tuple[Any, FieldInfo]:
        kind = self._kinds.type_of(option.annotation)
        default = ... if option.default is None else self._value_of(option.default)
        if inspect.isclass(kind) and issubclass(kind, LibraryOptions):
            default = None  # the library makes its own
        nullable = default is None and not may_be_null(kind)
        if is_union(kind):  # one sentence for all members

            def check(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
                try:
                    return handler(value)
                except ValidationError as error:
                    raise ValueError(self._wanted(option, value)) from error

            kind = Annotated[kind, WrapValidator(check)]
        field: FieldInfo = Field(
            default,
            description=option.description or f"``{class_name}.{option.name}``.",
            alias=option.name if aliased else None,
        )
        return (kind | None if nullable else kind), field

    def _model_named(self, class_name: str) -> type[LibraryOptions] | None:
        if class_name not in self._index or not _is_dataclass(self.class_node(class_name)):
            return None
        fields: Any = self.model_fields(class_name)
        model = create_model(class_name, __base__=LibraryOptions, __doc__=self.summary(class_name), **fields)
        model.made_from = self._module_of(class_name), class_name
        return model

    @cached_property
    def _enums(self) -> Mapping[str, tuple[str, ...]]:
        """The strings that each enumeration, and each alias of a ``Literal``, stands for."""
        found: dict[str, tuple[Any, ...]] = {}
        for name, (_, bases) in self._index.items():
            if "Enum" in bases:
                members = [item.value for item in self.class_node(name).body if isinstance(item, ast.Assign)]
                found[name] = tuple(item.value for item in members if isinstance(item, ast.Constant))
        for file in self.files:
            for name, values in re.findall(r"^(\w+) = Literal\[([^\]]*)\]", self._text(file), re.MULTILINE):
                found[name] = tuple(ast.literal_eval(f"[{values}]"))
        return {name: values for name, values in found.items() if values and all(isinstance(v, str) for v in values)}

    def _value_of(self, default: ast.expr) -> Any:
        """Return a literal, or the value of a member of an enumeration; None for what must be run to be known."""
        # `IntervalStrategy.STEPS` is "steps"; what `os.cpu_count()` is, nobody knows without running it.
        if isinstance(default, ast.Attribute) and name_of(default.value) in self._index:
            body = self.class_node(name_of(default.value)).body
            members = {name_of(item.targets[0]): item.value for item in body if isinstance(item, ast.Assign)}
            default = members.get(default.attr, ast.Constant(None))
        try:
            return ast.literal_eval(default)
        except ValueError:
            return None


def set_options(options: BaseModel, leave_out: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Return what was set otherwise than the default, by the library's names; nested options as the library's classes.

    What was left alone is left to the library: its defaults may be more than literals.
    """
    found = {}
    for name, field in type(options).model_fields.items():
        value = getattr(options, name)
        if name in options.model_fields_set and name not in leave_out and value != field.default:
            found[field.alias or name] = _as_library_has_it(value)
    return found


def _as_library_has_it(value: Any) -> Any:
    if isinstance(value, LibraryOptions):
        module, name = value.made_from
        return getattr(importlib.import_module(module), name)(**set_options(value))
    if isinstance(value, Mapping):
        return {_as_library_has_it(key): _as_library_has_it(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_as_library_has_it, value))
    return str(value) if isinstance(value, str) else value  # a recipe's strings know where they were written


# --- syntax -----------------------------------------------------------------------------------------------------------


def _package_folder(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)  # finds, does not import, a top-level package
    return Path(spec.origin).parent if spec is not None and spec.origin is not None else None


def _first_statement(text: str) -> ast.stmt:
    """Return the statement that `text` begins with: it ends before the next line that could begin another."""
    indent = len(text) - len(text.lstrip(" \t"))
    lines = [line[indent:] if line[:indent].isspace() else line for line in text.splitlines(keepends=True)]
    for end in (number for number in range(1, len(lines) + 1) if lines[number - 1].rstrip().endswith((")", "}", "]"))):
        try:
            return ast.parse("".join(lines[:end])).body[0]
        except SyntaxError:
            continue
    return ast.parse("".join(lines)).body[0]


def _parameters(node: ast.ClassDef | ast.FunctionDef) -> list[LibraryOption]:
    """Return the named parameters of a function, or of the class's own ``__init__``; nothing if it has none.

    Without the first: ``self``.
    """
    init: ast.stmt | None = node
    if isinstance(node, ast.ClassDef):
        init = next((item for item in node.body if getattr(item, "name", "") == "__init__"), None)
    if not isinstance(init, ast.FunctionDef):
        return []
    names = [*init.args.posonlyargs, *init.args.args][1:]
    defaults = [*([None] * (len(names) - len(init.args.defaults))), *init.args.defaults]
    pairs = [*zip(names, defaults, strict=False), *zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True)]
    given = [LibraryOption(argument.arg, argument.annotation, default, "") for argument, default in pairs]
    return given if isinstance(node, ast.ClassDef) else [_of_default(option) for option in given]


def _of_default(option: LibraryOption) -> LibraryOption:
    """Return a parameter with the type of its default where none is written: ``power=1.0`` takes numbers."""
    default = option.default.value if isinstance(option.default, ast.Constant) else None
    if option.annotation is None and isinstance(default, float):
        return replace(option, annotation=ast.Name("float"))
    return option


def _is_no_option(item: ast.AnnAssign) -> bool:
    """Whether a class variable, or a field that is set by the class itself."""
    annotation = item.annotation.value if isinstance(item.annotation, ast.Subscript) else item.annotation
    keywords = _keywords(item.value)
    init = keywords.get("init")
    return name_of(annotation) == "ClassVar" or (isinstance(init, ast.Constant) and init.value is False)


def _default_and_help(value: ast.expr | None) -> tuple[ast.expr | None, str]:
    """Return the default and the description that stand in ``field(default=…, metadata={"help": …})``."""
    if not (isinstance(value, ast.Call) and name_of(value.func) == "field"):
        return value, ""
    keywords = _keywords(value)
    made = {"list": ast.List([]), "dict": ast.Dict([], [])}
    factory = keywords.get("default_factory")
    default = keywords.get("default") if factory is None else made.get(name_of(factory), ast.Constant(None))
    try:
        text = str(ast.literal_eval(keywords["metadata"])["help"]) if "metadata" in keywords else ""
    except (ValueError, KeyError):
        text = ""
    return default, _plain(text)


def _keywords(value: ast.expr | None) -> dict[str, ast.expr]:
    if isinstance(value, ast.Call) and name_of(value.func) == "field":
        return {keyword.arg: keyword.value for keyword in value.keywords if keyword.arg}
    return {}


def _is_dataclass(node: ast.ClassDef) -> bool:
    return any(
        name_of(item.func if isinstance(item, ast.Call) else item) == "dataclass" for item in node.decorator_list
    )


def _arguments_in(docstring: str) -> dict[str, str]:
    """Return the descriptions that stand under ``Args:`` as ``name (type): text``, continued on deeper lines."""
    #     r (`int`, *optional*):
    #         Rank of the update.        -> {"r": "Rank of the update."}
    found: dict[str, list[str]] = {}
    name, depth = "", 0
    for line in docstring.splitlines():
        indent = len(line) - len(line.lstrip())
        match = re.match(r"\s+(\w+) ?\(.+?\)\s*:\s*(.*)", line)
        if match and (not name or indent <= depth):
            name, depth = match[1], indent
            found[name] = [match[2]]
        elif name and indent > depth:
            found[name].append(line)
        elif line.strip():
            name = ""
    return {key: _plain(" ".join(lines)) for key, lines in found.items()}


def _plain(text: str) -> str:
    """Return text on one line, with ``[`Name`]`` as `Name`."""
    return re.sub(r"\[(`[^`]*`)\](?!\()", r"\1", " ".join(text.split()))
