"""What will be removed is announced in one place, warns where it is used, and is gone when it was to be gone."""

import inspect
import pickle
import sys
import types
import warnings
from pathlib import Path
from typing import Literal

import numpy as np
import pluggy
import pytest
from packaging.version import Version
from typer.testing import CliRunner

import sftplug
from sftplug.cli import app
from sftplug.plugin import hookspecs
from sftplug.plugin.deprecation import (
    DEPRECATIONS,
    ApiDeprecationWarning,
    Deprecation,
    old_name,
    overdue,
    too_soon,
    warning,
    words,
)
from sftplug.plugin.manager import load_plugins
from sftplug.plugin.registry import build_registry
from sftplug.recipe import load_recipe
from sftplug.recipe.describe import options_of
from sftplug.testing import check_component

ROOT = Path(__file__).parents[1]

EXAMPLE = (
    Deprecation("sftplug_acme_roles", "0.2.0", "0.4.0", "Offer a masking strategy instead"),
    Deprecation("sftplug_acme_begun(size)", "0.2.0", "0.4.0", "Read `recipe.acme.size`"),
    Deprecation("acme.Mask", "0.3.0", "0.5.0", "Import `acme.Masking`", renamed="Masking"),
    Deprecation("masking.loud.gain", "0.3.0", "1.0.0", "Set `weight`"),
)
"""Of an API of which every sort of thing is on its way out."""


# --- the product ------------------------------------------------------------------------------------------------------


def test_nothing_is_overdue_or_removed_too_soon():
    assert overdue(sftplug.__version__) == []
    assert too_soon() == []
    assert len({item.what for item in DEPRECATIONS}) == len(DEPRECATIONS)


NAMES = [item for item in DEPRECATIONS if item.renamed and item.what.count(".") == 1]
"""Names of the package; of a field of one of its classes the name has another point."""


@pytest.mark.parametrize("item", NAMES, ids=lambda item: item.what)
def test_an_old_name_stands_for_the_one_that_its_warning_names(item):
    with pytest.warns(ApiDeprecationWarning, match=f"Use `sftplug.{item.renamed}`"):
        old = getattr(sftplug, item.what.removeprefix("sftplug."))
    assert old is getattr(sftplug, item.renamed)


def test_every_deprecation_is_listed_and_every_one_listed_is_real():
    listed = {item.what: str(item) for item in DEPRECATIONS}
    marked = {**dict(_hooks_marked()), **dict(_options_marked())}
    for what, said in marked.items():
        assert listed.get(what) == said, f"{what} is not in sftplug/plugin/deprecation.py in these words"
    names = {item.what for item in DEPRECATIONS if item.renamed}
    assert set(listed) == set(marked) | names
    for name in names:
        assert name.removeprefix("sftplug.") not in sftplug.__all__


def test_a_field_is_read_and_given_by_its_old_name_where_its_user_is_told():
    arrays = {
        name: np.zeros(2, np.int32) for name in ("ids", "row", "message", "role", "part", "trainable", "start", "end")
    }
    said = r"sftplug\.TokenBatch\.item is deprecated since sftplug 0\.2 and goes in 0\.4\. Use `content_part`\."
    with pytest.warns(ApiDeprecationWarning, match=said) as given:
        tokens = sftplug.TokenBatch(**arrays, item=np.array([0, 1]), texts=["a b"], conversations=[])
    with pytest.warns(ApiDeprecationWarning, match=said) as read:
        assert tokens.item.tolist() == [0, 1]
    assert {Path(warning.filename) for warning in (*given, *read)} == {Path(__file__)}
    assert tokens.where(np.array([False, True])).content_part.tolist() == [1]
    assert pickle.loads(pickle.dumps(tokens)).content_part.tolist() == [0, 1]


def _hooks_marked():
    for name, spec in vars(hookspecs).items():
        if name.startswith("sftplug_"):
            options = spec.sftplug_spec
            if options["warn_on_impl"]:
                yield name, str(options["warn_on_impl"])
            for argument, said in (options["warn_on_impl_args"] or {}).items():
                yield f"{name}({argument})", str(said)


def _options_marked():
    from sftplug.plugin.kinds import NOUNS

    for kind, offers in build_registry(load_plugins()).offers.items():
        for name, offer in offers.items():
            if offer.library is None and offer.plugin.distribution == "sftplug":
                for option, field in offer.component.model_fields.items():
                    if field.deprecation_message:
                        yield f"{NOUNS[kind]}.{name}.{option}", field.deprecation_message


def test_the_page_of_changes_tells_them_all():
    page = (ROOT / "docs" / "api-changes.md").read_text()
    for item in DEPRECATIONS:
        assert f"`{item.what}`" in page
    assert ("Nothing is deprecated at present." in page) == (not DEPRECATIONS)


def test_other_names_are_missing_as_python_says_it():
    with pytest.raises(AttributeError, match="module 'sftplug' has no attribute 'Maskin'") as caught:
        sftplug.Maskin  # noqa: B018
    assert (caught.value.name, caught.value.obj) == ("Maskin", sftplug)
    with pytest.raises(ImportError, match="cannot import name 'Maskin' from 'sftplug'"):
        from sftplug import Maskin  # noqa: F401


# --- an example -------------------------------------------------------------------------------------------------------


def test_what_was_to_be_removed_is_overdue_in_that_version():
    assert overdue("0.3.9", EXAMPLE) == []
    assert overdue("0.4.0", EXAMPLE) == ["sftplug_acme_roles", "sftplug_acme_begun(size)"]
    assert overdue("0.10", EXAMPLE) == ["sftplug_acme_roles", "sftplug_acme_begun(size)", "acme.Mask"]
    assert Version("0.10") > Version("0.5")
    assert too_soon(EXAMPLE) == []
    assert too_soon([Deprecation("acme.Old", "0.4.0", "0.5.0", "Do not")]) == ["acme.Old"]


def test_a_hook_and_an_argument_warn_where_they_are_implemented():
    hookspec, hookimpl = pluggy.HookspecMarker("acme"), pluggy.HookimplMarker("acme")

    class Spec:
        @hookspec(warn_on_impl=warning("sftplug_acme_roles", EXAMPLE))
        def sftplug_acme_roles(self):
            """Offer roles."""

        @hookspec(warn_on_impl_args={"size": warning("sftplug_acme_begun(size)", EXAMPLE)})
        def sftplug_acme_begun(self, recipe, size):
            """A run begins."""

    class Old:
        @hookimpl
        def sftplug_acme_roles(self):
            return []

        @hookimpl
        def sftplug_acme_begun(self, recipe, size):
            """See it."""

    class New:
        @hookimpl
        def sftplug_acme_begun(self, recipe):
            """See it."""

    manager = pluggy.PluginManager("acme")
    manager.add_hookspecs(Spec)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        manager.register(Old())
    said = {str(item.message): item for item in caught}
    assert set(said) == {
        "sftplug_acme_roles is deprecated since sftplug 0.2.0 and goes in 0.4.0. Offer a masking strategy instead.",
        "sftplug_acme_begun(size) is deprecated since sftplug 0.2.0 and goes in 0.4.0. Read `recipe.acme.size`.",
    }
    lines, first = inspect.getsourcelines(Old)
    for item in caught:
        assert item.category is ApiDeprecationWarning
        assert item.filename == __file__
        assert first <= item.lineno < first + len(lines)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        manager.register(New())


def test_a_name_warns_where_it_is_imported():
    acme = types.ModuleType("acme")
    acme.Masking = type("Masking", (), {})
    acme.__getattr__ = lambda name: old_name("acme", name, EXAMPLE)
    sys.modules["acme"] = acme
    try:
        with pytest.warns(
            ApiDeprecationWarning, match=r"^acme\.Mask is deprecated since .* Import `acme.Masking`\.$"
        ) as all_:
            assert acme.Mask is acme.Masking
        assert all_[0].filename == __file__
        with pytest.warns(ApiDeprecationWarning, match="acme.Mask is deprecated"):
            from acme import Mask
        assert Mask is acme.Masking
        with pytest.raises(AttributeError, match="module 'acme' has no attribute 'Masks'"):
            acme.Masks  # noqa: B018
    finally:
        del sys.modules["acme"]


class Loud(sftplug.Masking):
    """Train what the assistant says, louder."""

    type: Literal["loud"] = "loud"
    weight: float = 1.0
    """Loss weight of each token."""
    gain: float | None = sftplug.Field(None, deprecated=words("masking.loud.gain", EXAMPLE))
    """The former name of `weight`."""

    def weights(self, tokens):
        """Return the weights; read past the attribute, which warns."""
        return tokens.trainable * (vars(self)["gain"] or self.weight)


def test_an_option_is_told_to_who_sets_it(recipe_file, tmp_path):
    """The recipe runs on, and its author is told once, with file and line."""
    source = "from typing import Literal\nimport sftplug\n\n" + inspect.getsource(Loud).replace(
        'words("masking.loud.gain", EXAMPLE)', repr(words("masking.loud.gain", EXAMPLE))
    )
    (tmp_path / "loud.py").write_text(f"{source}\n@sftplug.hookimpl\ndef sftplug_maskings():\n    return [Loud]\n")
    said = "masking.loud.gain is deprecated since sftplug 0.3.0 and goes in 1.0.0. Set `weight`."
    file = recipe_file(plugins=["loud.py"], masking={"type": "loud", "gain": 2.0})
    (warned,) = load_recipe(str(file)).warnings()
    assert warned == f"masking.gain (recipe.yaml:24): {said}"
    shown = CliRunner().invoke(app, ["check", str(file)])
    assert shown.exit_code == 0, shown.output
    assert f"warning: masking.gain (recipe.yaml:24): {said}" in shown.stderr
    assert load_recipe(str(recipe_file(plugins=["loud.py"], masking={"loud": {"weight": 2.0}}))).warnings() == []


def test_an_option_is_marked_where_it_is_described():
    described = {option.name: option.description for option in options_of(Loud)}
    assert described["gain"] == f"The former name of `weight`. {words('masking.loud.gain', EXAMPLE)}"
    schema = Loud.model_json_schema()["properties"]
    assert schema["gain"]["deprecated"] is True
    assert "deprecated" not in schema["weight"]
    check_component(Loud, gain=2.0)


def test_what_is_not_listed_cannot_be_marked():
    with pytest.raises(KeyError, match="sftplug_acme_gone"):
        warning("sftplug_acme_gone", EXAMPLE)
