"""Laws, and what is said when a component breaks one.

A law is a function whose docstring is the law. It gets what it judges and calls `demand`; whatever else it raises is
the component's doing, and breaks the law too.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sftplug.errors import MissingLibraryError, PluginError
from sftplug.libraries.versions import require
from sftplug.plugin.components import Component
from sftplug.plugin.errors import describe
from sftplug.testing.proofs import note

T = TypeVar("T")
C = TypeVar("C", bound=Component)
Law = Callable[[T], None]


class LawBroken(AssertionError):
    """A component breaks a law of its kind."""

    def __init__(self, component: str, law: Law[Any], found: str, fix: str) -> None:
        self.law = law.__name__
        self.found = found
        self.fix = fix
        text = " ".join(str(inspect.getdoc(law)).split())
        super().__init__(f"{component} breaks the law '{self.law}'\n  law:   {text}\n  found: {found}\n  fix:   {fix}")

    @property
    def mend(self) -> str:
        """The name of `fix` in 0.1."""
        return self.fix


class Breach(Exception):
    """What a law found, and how to fix it; `check` says it with the law's own words."""

    def __init__(self, found: str, fix: str) -> None:
        self.found = found
        self.fix = fix
        super().__init__(found)


def demand(kept: bool, found: str, fix: str) -> None:
    """Say that the law is broken unless `kept`: what was `found`, and how to `fix` it."""
    if not kept:
        raise Breach(found, fix)


def make(component: type[C], options: dict[str, Any]) -> C:
    """Return the component with `options`. Raises ValueError when it does not take them."""
    try:
        return component(**options)
    except ValueError as error:
        raise ValueError(
            f"{component.__name__} cannot be made with the options {options or 'none'}: {error}\n"
            "Give the check the options by name, as in check_masking(MyMask, weight=2.0)."
        ) from error


def check(component: Component | type[Component], laws: Sequence[Law[T]], subject: T) -> None:
    """Hold `subject` to each law in turn. Raises LawBroken for the first that it breaks."""
    check_named(describe(component), laws, subject)


def check_named(name: str, laws: Sequence[Law[T]], subject: T) -> None:
    """Do what `check` does, for what is no component and is called `name`."""
    for law in laws:
        try:
            law(subject)
            note([law.__name__])
        except Breach as breach:
            raise LawBroken(name, law, breach.found, breach.fix) from breach.__cause__
        except MissingLibraryError:
            raise  # says what is missing and how to get it
        except PluginError as error:  # what a run would say, too
            raise LawBroken(name, law, str(error), "see the method's docstring.") from error
        except Exception as error:
            raise LawBroken(name, law, f"{_said(error)} was raised{_where(error)}", "see the error above.") from error


def check_drawn(component: Component, laws: Sequence[Law[T]], drawn: Any, examples: int = 60) -> None:
    """Hold `component` to each law on everything that hypothesis draws, the same in every run.

    `drawn` is a strategy for what the laws judge. Raises LawBroken for the simplest that breaks one.
    """
    hypothesis = need_hypothesis()
    settings = hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink),
        report_multiple_bugs=False,
        suppress_health_check=list(hypothesis.HealthCheck),
    )

    def trial(subject: Any) -> None:
        check(component, laws, subject)

    settings(hypothesis.given(drawn)(trial))()


def need_hypothesis() -> Any:
    """Return hypothesis. Raises MissingLibraryError naming the extra that installs it."""
    return require("hypothesis", needed_by="sftplug.testing", install="pip install 'sftplug[testing]'")


def shown(value: object, limit: int = 300) -> str:
    """Return `value` as Python writes it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}…"


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
