"""What can go wrong, as a tree; the command line prints these without a traceback.

SftplugError
├── RecipeError            the recipe is wrong; carries every Problem at once
├── PluginError            a plugin cannot be found, imported or registered, or two clash
├── MissingLibraryError    a library is not installed, or in a version that is not supported
├── DataError              a source that cannot be read, or rows that do not fit
│   └── RowError           one row does not fit its format; names the field and the reason
├── TemplateError          a chat template that does not compile, or refuses a conversation
│   └── TemplateStopped    one that does more than a chat template may; it is not tried again
├── MaskError              a loss mask that failed its check
├── ModelError             the model, its tokenizer or its modules do not fit the recipe
├── RunError               a run's folder that cannot be used: taken, unwritable, of another recipe, damaged
├── TrainingError          training was stopped before it could do harm
├── LaunchError            one of several processes failed; names its rank
└── Interrupted            a signal ended the run, after a checkpoint
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


class SftplugError(Exception):
    """Base of every error that sftplug raises on purpose; its text is written for the user."""

    exit_code = 2
    """What the command line exits with: 2 for what was refused before work began, 1 for work that failed."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a recipe."""

    path: str
    """Where in the recipe, dotted: ``adapter.r`` or ``data.train[0].format``."""
    text: str
    """What is wrong, what is known and what was probably meant."""
    origin: str = ""
    """Where the value was written: ``recipe.yaml:12`` or ``command line``."""

    def __str__(self) -> str:
        place = f" ({self.origin})" if self.origin else ""
        return f"{self.path}{place}: {self.text}"


MOST_TOLD = 50
"""So many problems of a recipe are printed; more are those of a program that ran away."""


class RecipeError(SftplugError):
    """The recipe is wrong; ``problems`` holds everything found, in the order of the recipe."""

    def __init__(self, recipe: str, problems: Sequence[Problem]) -> None:
        self.recipe = recipe
        self.problems = tuple(problems)
        count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"
        told = [f"  {problem}" for problem in problems[:MOST_TOLD]]
        more = [f"  … and {len(problems) - MOST_TOLD:,} more"] if len(problems) > MOST_TOLD else []
        super().__init__("\n".join([f"{recipe}: {count}", *told, *more]))


class PluginError(SftplugError):
    """A plugin cannot be found, imported or registered, or two plugins clash."""


class PluginFault(PluginError):
    """What a plugin has added to the training loop failed in the midst of it, perhaps in one process of several."""

    exit_code = 1


class MissingLibraryError(SftplugError):
    """A component was used whose library is not installed, or one is installed in a version that is not supported."""


class DataError(SftplugError):
    """A source cannot be read, or rows do not fit their format."""


class RowError(DataError):
    """One row does not fit its format; a format raises it, the core adds the row's origin.

    `options` are options of the format with which the row would fit, such as ``{"roles": {"bing": "assistant"}}``;
    those of all rows are offered in one line.
    """

    def __init__(self, field: str, reason: str, options: Mapping[str, Mapping[str, str]] | None = None) -> None:
        self.field = field
        self.reason = reason
        self.options = dict(options or {})
        super().__init__(f"{field}: {reason}")


class TemplateError(SftplugError):
    """A chat template does not compile, or refuses a conversation."""


class TemplateStopped(TemplateError):
    """A chat template does more than a chat template may, and was stopped; it is not tried again."""


class MaskError(SftplugError):
    """A loss mask that failed its check: training on it would teach something else than what was meant."""

    def __init__(
        self, text: str, picture: Sequence[tuple[str, str]] = (), reasons: Sequence[tuple[str, str]] = ()
    ) -> None:
        super().__init__(text)
        self.picture = tuple(picture)
        self.reasons = tuple(reasons)
        """Kind and sentence of each finding that the text is put together from."""
        """The first row concerned as (text, style) pieces, its spans and the offending text in colour; may be empty."""


class ModelError(SftplugError):
    """The model, its tokenizer or its modules do not fit the recipe."""


class TrainingError(SftplugError):
    """Training was stopped before it could do harm."""

    exit_code = 1


class RunError(SftplugError):
    """A run's folder cannot be used: another run has it, it cannot be written, or it is not what was asked for."""


class LaunchError(SftplugError):
    """One of several processes failed, and the others were ended; the text names its rank and its own last words."""

    def __init__(self, text: str, exit_code: int = 1) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class Interrupted(SftplugError):
    """A signal asked the run to end, and it did."""

    def __init__(self, text: str, signal: int) -> None:
        super().__init__(text)
        self.signal = signal
        # What a shell reports for a process that the signal ended: 130 for SIGINT, 143 for SIGTERM.
        self.exit_code = 128 + signal


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the nearest of `known`, else an empty string."""
    close = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else ""
