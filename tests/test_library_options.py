"""Options of other libraries' classes, read from source."""

import sys

import pytest
from pydantic import ValidationError, create_model

from sftplug import LibrarySource, set_options

SOURCE = """
import enum
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Optional, Union

raise ImportError("reading must not import")

Mode = Literal["fast", "slow"]


class Sort(str, enum.Enum):
    UP = "up"
    DOWN = "down"


@dataclass
class Inner:
    rho: float = 2.0


@dataclass
class Base:
    shared: bool = True


@dataclass
class Config(Base):
    \"\"\"Holds [`Everything`].

    Args:
        documented (`int`, *optional*): Said here,
            and on the next line.
        sizes (`tuple`): Two of them.
    \"\"\"

    required: int = field()
    bare: str
    documented: int = 3
    helped: float = field(default=0.5, metadata={"help": "Said " "beside."})
    sort: Union[Sort, str] = Sort.DOWN
    mode: Mode = "fast"
    inner: Optional[Inner] = None
    either: Union[list[str], str, None] = None
    niter: bool | Literal["svd_[number of iters]", "gauss"] = True
    sizes: tuple[int, int] = (1, 2)
    unknown: Optional["torch.dtype"] = None
    pattern: dict = field(default_factory=dict)
    constant: ClassVar[int] = 1
    own: int = field(default=0, init=False)


class Plain:
    def __init__(self, bits: int = 4, *, axis=None, **kwargs):
        pass
"""


@pytest.fixture
def source(tmp_path, monkeypatch):
    (tmp_path / "somelib" / "deep").mkdir(parents=True)
    (tmp_path / "somelib" / "__init__.py").write_text("")
    (tmp_path / "somelib" / "deep" / "config.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    yield LibrarySource("somelib/*/config.py", "not_installed/x.py")
    assert "somelib.deep.config" not in sys.modules


@pytest.fixture
def model(source):
    return create_model("Model", **source.model_fields("Config"))


def test_options_are_those_that_the_class_takes(source):
    assert list(source.options("Config"))[:4] == ["shared", "required", "bare", "documented"]
    assert not {"constant", "own"} & source.options("Config").keys()
    assert list(source.options("Plain")) == ["bits", "axis"]
    with pytest.raises(KeyError):
        source.options("Missing")


def test_words_come_from_the_field_or_the_docstring(source):
    assert source.options("Config")["helped"].description == "Said beside."
    assert source.options("Config")["documented"].description == "Said here, and on the next line."
    assert source.summary("Config") == "Holds `Everything`."


def test_defaults_are_those_of_the_source(model):
    made = model(required=1, bare="x")
    assert (made.documented, made.sort, made.pattern, made.sizes) == (3, "down", {}, (1, 2))
    assert {name for name, field in model.model_fields.items() if field.is_required()} == {"required", "bare"}


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("documented", 4, "4"),
        ("documented", 4, True),
        ("helped", 1, "1"),
        ("sort", "up", "sideways"),
        ("mode", "slow", "medium"),
        ("inner", {"rho": 1.0}, {"rhoo": 1.0}),
        ("either", ["a"], 3),
        ("niter", "svd_12", "svd"),
        ("sizes", [3, 4], [3]),
        ("unknown", object(), None),
    ],
)
def test_types_are_checked_strictly(model, name, good, bad):
    model(required=1, bare="x", **{name: good})
    if name != "unknown":
        with pytest.raises(ValidationError):
            model(required=1, bare="x", **{name: bad})


def test_a_union_is_refused_in_one_sentence(model):
    with pytest.raises(ValidationError) as caught:
        model(required=1, bare="x", either=3)
    assert [error["msg"] for error in caught.value.errors()] == [
        "Value error, must be list[str] or str or null, not 3."
    ]


def test_only_what_was_set_is_passed_on(model):
    class Text(str):
        """As a recipe has it."""

    options = set_options(model(required=1, bare=Text("x"), documented=3, either=[Text("y")]))
    assert options == {"required": 1, "bare": "x", "either": ["y"]}
    assert type(options["bare"]) is type(options["either"][0]) is str


def test_statements_are_found_without_parsing_the_rest(source):
    ((module, statement),) = source.statements("Mode =")
    assert module == "somelib.deep.config"
    assert statement.targets[0].id == "Mode"
