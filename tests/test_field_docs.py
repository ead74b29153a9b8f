"""What stands under an option in its class is what the schema, the laws and `sftplug plugins show` say of it."""

import linecache

from pydantic import create_model

from sftplug import Field
from sftplug.util.field_docs import field_docs
from sftplug.util.strict_model import StrictModel


class Base(StrictModel):
    rank: int = 8
    """Columns of each
    matrix."""
    scale: float = 1.0
    """What the product is multiplied with."""
    bare: int = 0


class Derived(Base):
    scale: float = 2.0
    dropout: float = Field(0.0, alias="drop")
    """Share of inputs left out."""


def test_docstrings_are_inherited_unless_a_field_is_written_anew():
    assert field_docs(Base) == {"rank": "Columns of each\nmatrix.", "scale": "What the product is multiplied with."}
    assert field_docs(Derived) == {"rank": "Columns of each\nmatrix.", "dropout": "Share of inputs left out."}


def test_the_schema_says_them_by_the_names_of_a_recipe():
    said = {name: option.get("description") for name, option in Derived.model_json_schema()["properties"].items()}
    assert said == {
        "rank": "Columns of each\nmatrix.",
        "scale": None,
        "bare": None,
        "drop": "Share of inputs left out.",
    }


def test_a_class_in_a_cell_of_a_notebook_has_them_too():
    cell = 'class Cell(StrictModel):\n    width: int = 1\n    """How wide it is."""\n'
    name = "<cell of a notebook>"
    linecache.cache[name] = (len(cell), None, cell.splitlines(keepends=True), name)
    scope = {"__name__": "a_notebook", "StrictModel": StrictModel}
    exec(compile(cell, name, "exec"), scope)
    assert field_docs(scope["Cell"]) == {"width": "How wide it is."}


def test_a_class_that_nobody_wrote_down_has_none():
    scope = {"__name__": "nowhere", "StrictModel": StrictModel}
    exec('class Lost(StrictModel):\n    width: int = 1\n    """How wide it is."""\n', scope)
    assert field_docs(scope["Lost"]) == {}
    assert field_docs(create_model("Made", __base__=Base, rank=(int, 3), __module__=__name__)) == {
        "scale": "What the product is multiplied with."
    }
