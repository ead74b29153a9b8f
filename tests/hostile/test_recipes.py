"""Recipes that mean harm, or were made by a program that ran away: each is refused in a sentence, at once."""

import json
import math
import time
from pathlib import Path

import pytest

from sftplug.errors import RecipeError
from sftplug.recipe import load_recipe
from sftplug.recipe.merge import read_override
from sftplug.recipe.yaml import MOST_BYTES, MOST_VALUES, parse_yaml, write_yaml

BOUND = 20.0
"""Seconds of processor time: on a quiet machine each takes less than one, and without its bound minutes or no end."""

DOUBLED = "".join(f"b{n}: &b{n} {{l: *b{n - 1}, r: *b{n - 1}}}\n" for n in range(1, 40))

HOSTILE = {
    "aliases that double 39 times": (f"b0: &b0 [ha]\n{DOUBLED}", "holds more than 20,000 keys and values"),
    "aliases in a list": ("a: &a [1, 2]\nb: [" + "*a, " * 30_000 + "]", "holds more than 20,000 keys and values"),
    "many keys": ("".join(f"key{n}: {n}\n" for n in range(30_000)), "holds more than 20,000 keys and values"),
    "many items": ("[" + "x," * 100_000 + "]", "holds more than 20,000 keys and values"),
    "a file of rows": ('{"messages": []}\n' * 40_000, f"is longer than {MOST_BYTES:,} bytes: it is not a recipe."),
    "lists in lists": ("a: " + "[" * 4_000, "nests more than 50 mappings and lists"),
    "mappings in mappings": ("{a: " * 900 + "1" + "}" * 900, "nests more than 50 mappings and lists"),
    "indented": ("".join(" " * n + "a:\n" for n in range(400)), "nests more than 50 mappings and lists"),
    "aliases nest": ("a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 99)), "nests more than"),
    "an alias of its own list": ("me: &me [1, [*me]]", "an alias stands inside of what it repeats"),
    "an alias of its own mapping": ("me: &me {again: *me}", "an alias stands inside of what it repeats"),
    "a number of many digits": ("a: " + "7" * 9_000, "has a number of 9,000 characters"),
    "a key of many digits": ("? " + "7" * 9_000 + "\n: 1", "has a number of 9,000 characters"),
    "a fraction of many digits": ("a: 0." + "3" * 9_000, "has a number of 9,002 characters"),
    "a number without a type": ("a: 36893488147419103232", "has a number that is too large: 36893488147419103232"),
    "an exponent": ("a: 1e400", "has a number that is too large: 1e400"),
    "a long key": ("k" * 5_000 + "x: 1", "is not valid YAML"),
    "a long key in quotes": (f'? "{"k" * 5_000}"\n: 1', "has a key of 5,000 characters"),
    "a tag with another text": ("a: !!int twelve", "'twelve' is not an int"),
    "a boolean that is none": ("a: !!bool perhaps", "'perhaps' is not a bool"),
    "a key that is a list": ("? [a, b]\n: 1", "a key must be text, not a list or mapping"),
    "a key that is an alias": ("a: &a {b: 1}\n*a : 1", "a key must be text, not a list or mapping"),
    "no such anchor": ("a: *nowhere", "found undefined alias"),
    "an object": ("a: !!python/name:os.system", "a recipe is plain data, and the tag"),
    "a long tag": (f"a: !<{'t' * 5_000}> 1", "a recipe is plain data, and the tag"),
    "two documents": ("a: 1\n---\nb: 2\n", "is not valid YAML"),
    "a null byte": ("a: \0", "is not valid YAML"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_recipe_that_means_harm_is_refused_in_a_sentence(tmp_path, name):
    text, sentence = HOSTILE[name]
    file = tmp_path / "hostile.yaml"
    file.write_text(text, encoding="utf-8")
    begun = time.process_time()
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(file))
    assert time.process_time() - begun < BOUND
    assert sentence in str(caught.value)
    assert len(str(caught.value)) < 600


def test_recipes_extend_each_other_so_often_and_hold_so_much_in_all(tmp_path):
    for number in range(1_200):
        (tmp_path / f"r{number}.yaml").write_text(f"extends: r{number + 1}.yaml\n")
    with pytest.raises(RecipeError, match=r"extends \(r20.yaml:1\): more than 20 recipes extend each other"):
        load_recipe(str(tmp_path / "r0.yaml"))
    many = "train:\n" + "".join(f"  k{number}: 1\n" for number in range(MOST_VALUES // 8))
    for number in range(19):
        (tmp_path / f"r{number}.yaml").write_text(f"extends: r{number + 1}.yaml\n{many}")
    with pytest.raises(RecipeError, match="the recipes that extend each other hold more than 20,000 values"):
        load_recipe(str(tmp_path / "r0.yaml"))


def test_recipes_as_large_as_they_may_be_are_laid_over_each_other_in_little_time(tmp_path):
    """Where a value was written was once looked for among all the others, for each value anew."""
    many = "train:\n" + "".join(f"  k{number}: [1]\n" for number in range(1_500))
    (tmp_path / "low.yaml").write_text(many)
    (tmp_path / "high.yaml").write_text(f"extends: low.yaml\n{many}")
    begun = time.process_time()
    with pytest.raises(RecipeError, match="1502 problems") as caught:
        load_recipe(str(tmp_path / "high.yaml"))
    assert (len(caught.value.problems), str(caught.value).count("\n")) == (1502, 51)
    assert str(caught.value).endswith("… and 1,452 more")
    assert time.process_time() - begun < BOUND


@pytest.mark.parametrize("override", ["a." * 4_000 + "b=1", "a=" + "[" * 4_000, "a=" + "9" * 9_000])
def test_so_does_the_command_line(override):
    with pytest.raises(RecipeError, match=r"levels deep|nests more than|has a number of"):
        read_override(override)


SCALARS = {
    "010": 10,
    "-08": -8,
    "0o17": 15,
    "0x1F": 31,
    "+12": 12,
    ".5": 0.5,
    "1e3": 1000.0,
    "1E-4": 1e-4,
    "3.": 3.0,
    "-.inf": -math.inf,
    "~": None,
    "Null": None,
    "": None,
    "TRUE": True,
    "false": False,
    "1:30": "1:30",
    "190:20:30.15": "190:20:30.15",
    "1_000": "1_000",
    "0b101": "0b101",
    "0o8": "0o8",
    "-0x1F": "-0x1F",
    "yes": "yes",
    "No": "No",
    "on": "on",
    "off": "off",
    "y": "y",
    "nUll": "nUll",
    "2026-11-25": "2026-11-25",
    "<<": "<<",
    "=": "=",
    "'010'": "010",
    '"1e3"': "1e3",
    "!!str 12": "12",
    "!!int '12'": 12,
}


@pytest.mark.parametrize("text", SCALARS)
def test_scalars_are_those_of_yaml_1_2(text):
    value = parse_yaml(f"a: {text}", "x", Path()).data["a"]
    assert (value, type(value) in (int, float, bool, type(None))) == (SCALARS[text], not isinstance(SCALARS[text], str))


def test_what_is_written_is_read_as_what_it_was(tmp_path):
    values = [*map(str, SCALARS), *SCALARS.values(), *json.loads('[1, -2.5, true, null, "", " x", {"a": []}]')]
    text = write_yaml({"values": values})
    again = parse_yaml(text, "x", Path()).data["values"]
    assert [(type(value) is bool, value) for value in again] == [(type(value) is bool, value) for value in values]
