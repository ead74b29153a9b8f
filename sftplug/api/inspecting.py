"""Look at a dataset before there is a recipe: what its rows are, and what a recipe for them would look like."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftplug.errors import DataError, RecipeError
from sftplug.types.ledger import Account
from sftplug.types.progress import Progress

if TYPE_CHECKING:
    from sftplug.data.survey import Survey
    from sftplug.recipe.load import LoadedRecipe
    from sftplug.recipe.model import SourceSection

ANY_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""The model of a recipe where none is named."""


@dataclass(frozen=True, slots=True, repr=False)
class DataInspection:
    """What is in a dataset; printed, it is what `sftplug data` shows."""

    source: str
    """The dataset, with its split if one is named."""
    notes: Sequence[str]
    """What the source says of its files: which split is read, and what is left out."""
    format: Mapping[str, Any] | None
    """Type and options of the format, as a recipe has them; None where the rows do not say it."""
    why: str
    """What the rows were known by; or why they were not, with the line to write."""
    survey: Survey
    """What was counted: ``.rows``, ``.columns``, ``.roles``, ``.turns``, ``.duplicates`` …"""
    refused: Sequence[str]
    """A sentence for each reason for which rows do not fit the format: how many, the first of them, and why."""
    unread: Sequence[str]
    """Columns and keys that the format does not read, each a sentence that says what could be done."""
    recipe: str | None
    """A recipe for these rows, as YAML; None where there is no format, or no row that fits it."""

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return {
            "source": self.source,
            "notes": list(self.notes),
            "format": self.format,
            "why": self.why,
            **self.survey.to_dict(),
            "refused": list(self.refused),
            "unread": list(self.unread),
            "recipe": self.recipe,
        }

    def __str__(self) -> str:
        """Return what there is to know, line by line, and the recipe at the end."""
        from sftplug.data.survey_in_words import in_words

        told = [f"note: {self.source} {note}" for note in self.notes]
        name = self.format["type"] if self.format else "not known"
        told += [f"format: {name} ({self.why})", *in_words(self.survey)]
        told += [f"does not fit: {sentence}" for sentence in self.refused]
        told += [f"not read: {sentence}" for sentence in self.unread]
        return "\n".join([*told, *(["", "a recipe for it:", "", self.recipe] if self.recipe else [])])

    __repr__ = __str__


class _UnknownError(DataError):
    """The rows do not say their format."""


@dataclass(slots=True)
class _Asked:
    """What is looked at."""

    written: dict[str, Any]
    """The source, as a recipe has it."""
    model: Any
    plugins: Sequence[Any]
    without: Iterable[str]
    why: str = ""
    account: Account = field(default_factory=lambda: Account(""))

    def load(self, **more: Any) -> LoadedRecipe:
        from sftplug.api.recipes import load

        data = {"train": {**self.written, **more}}
        recipe = {"model": self.model or ANY_MODEL, "data": data}
        try:
            return load(recipe, plugins=self.plugins, without=self.without)
        except RecipeError as error:
            unknown = [problem for problem in error.problems if problem.path == "data.train.format" and not more]
            if len(unknown) == len(error.problems) and "cannot be read from the rows" not in unknown[0].text:
                raise _UnknownError(unknown[0].text.removeprefix("is left out, and ")) from error
            texts = [f"{problem.path.removeprefix('data.train.')}: {problem.text}" for problem in error.problems]
            raise DataError("\n".join(texts)) from error


def inspect_data(  # noqa: PLR0913 - each is an option of the command too
    data: str | Path,
    *,
    split: str | None = None,
    config: str | None = None,
    format: str | Mapping[str, Any] | None = None,
    model: str | Mapping[str, Any] | None = None,
    first: int | None = None,
    plugins: Sequence[Any] = (),
    without: Iterable[str] = (),
    progress: Progress | None = None,
) -> DataInspection:
    """Return what is in a dataset: a path as `path` takes it, or ``"hub:NAME"``.

    `split` and `config` are those of a folder or of a dataset on the Hub, `format` is how to read the rows where they
    do not say it themselves, `model` the name of a model in whose tokens lengths are also told, or a dict as a recipe
    has it; `first` looks at so many rows. Rows are read one after the other, and nothing in them is run or opened.
    `plugins` and `without` are those of `load`; `progress` is told how far it is.

    Raises DataError for rows that cannot be read, and for a source or a format that there is not.
    """
    from sftplug.plugin.calls import label, source_notes

    asked = _Asked(_source(data, split, config, first), model, plugins, without)
    section, sure = _section(asked, format)
    asked.account = Account(label(section.source))
    made = _survey(asked, section, sure, progress)
    return DataInspection(
        asked.account.source,
        source_notes(section.source),
        _written(section) if sure else None,
        asked.why,
        made,
        [group.sentence() for group in _bad(asked.account)],
        list(_unread(asked.account, section)) if sure else [],
        _recipe(asked, section, made) if sure and (made.turns or made.given or asked.account.options) else None,
    )


def _source(data: str | Path, split: str | None, config: str | None, first: int | None) -> dict[str, Any]:
    text = str(data)
    named = {"hub": text.removeprefix("hub:")} if text.startswith("hub:") else {"path": text}
    more = {"split": split, "config": config, "first": first}
    return {**named, **{key: value for key, value in more.items() if value is not None}}


def _section(asked: _Asked, format: str | Mapping[str, Any] | None) -> tuple[SourceSection, bool]:
    """Return the source with its format, and whether that is known. Raises DataError for anything else wrong."""
    if format is not None:
        asked.why = "as it was named"
        return asked.load(format=format).recipe.data.train[0], True
    try:
        loaded = asked.load()
    except _UnknownError as error:
        asked.why = str(error)
        return asked.load(format="text").recipe.data.train[0], False  # of which only the source is used
    asked.why = loaded.recognized[0].by
    return loaded.recipe.data.train[0], True


def _survey(asked: _Asked, section: SourceSection, sure: bool, progress: Progress | None) -> Survey:
    from itertools import islice

    from sftplug.data.survey import survey
    from sftplug.plugin.calls import rows_of

    made = None
    rows = islice(rows_of(section.source), section.first)
    for made in survey(rows, section if sure else None, asked.account, _lengths(asked)):
        if progress is not None and made.rows and made.rows % 100 == 0:
            progress("reading rows", made.rows, section.first)
    assert made is not None
    asked.account.read = made.rows
    if not made.rows:
        raise DataError(f"{asked.account.source}: holds no rows")
    return made


def _lengths(asked: _Asked) -> Callable[[str], int] | None:
    """Return what counts the tokens of a text, where a model is named. Raises ModelError where it has no tokenizer."""
    if asked.model is None:
        return None
    from sftplug.model.loading import load_tokenizer

    tokenizer = load_tokenizer(asked.load(format="text").recipe)
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False))


def _bad(account: Account) -> list[Any]:
    return account.groups["bad"].largest() if "bad" in account.groups else []


def _unread(account: Account, section: SourceSection) -> Iterator[str]:
    from sftplug.data.unread_columns import unread_columns
    from sftplug.data.unread_keys import offered_options, unread_keys

    yield from unread_columns(account, section.format)
    yield from unread_keys(account)
    yield from offered_options(account)


# --- a recipe ---------------------------------------------------------------------------------------------------------


def _written(section: SourceSection) -> dict[str, Any]:
    """Return the format as a recipe has it: its name, and what differs from the defaults."""
    format = section.format
    options = format.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return {"type": format.type, **{name: value for name, value in options.items() if name != "type"}}


def _recipe(asked: _Asked, section: SourceSection, survey: Survey) -> str:
    """Return a recipe that reads all that the format can, and leaves out by name what nothing reads."""
    from sftplug.data.unread_columns import sorted_out, verdicts
    from sftplug.plugin.calls import undecided_option
    from sftplug.recipe.yaml import write_yaml

    account = asked.account
    could, others, rest = sorted_out(account, section.format)
    format = {**_written(section), **could, **account.options}
    if survey.plain and undecided_option(section.format) is not None:
        format["as"] = "text" if survey.control_tokens else "chat"
    ignore = [*others, *rest, *account.unread_keys]
    good = [{"filter": {"column": name, "keep": True}} for name in verdicts(account)]
    processed = {"process": good} if good else {}
    source = {**asked.written, **processed, "format": format if len(format) > 1 else format["type"]}
    data: dict[str, Any] = {"train": {**source, **({"ignore": ignore} if ignore else {})}}
    if _bad(account) and not account.options:
        data["on_bad_row"] = "skip"
    recipe: dict[str, Any] = {"model": asked.model or ANY_MODEL, "data": data}
    if survey.roles["document"] or survey.given.total() > survey.trained:
        recipe["masking"] = "all"
    head = [f"# {survey.rows:,} rows of {account.source}; ask `sftplug check` before training"]
    model = "the model must be one whose tokenizer made these tokens" if survey.given else "any chat model will do"
    head += [] if asked.model else [f"# {model}"]
    head += [f"# {account.dropped['bad']:,} rows do not fit and are skipped"] if "on_bad_row" in data else []
    return "\n".join([*head, write_yaml(recipe | {"adapter": "lora"})])
