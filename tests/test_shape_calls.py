"""The promise that there is one way into a component: in one place answers are checked, redacted and blamed."""

import ast
import inspect
from pathlib import Path

from sftplug.plugin.components import Component
from sftplug.plugin.registry import HOOKS

ROOT = Path(__file__).parents[1]
DOOR = ROOT / "sftplug" / "plugin" / "calls"
AMBIGUOUS = {"build", "check", "export", "load", "merge", "nll", "rows", "save", "source", "weights"}
"""Methods of a kind whose names others have too: there it depends on what the method is called on."""
COMPONENTS = {
    *(
        "adapter",
        "backend",
        "builder",
        "callback",
        "component",
        "exporter",
        "format",
        "format_",
        "head",
        "made",
        "masking",
        "metric",
    ),
    *("part", "policy", "quantization", "source", "template", "union"),
}
"""What a component is called where code holds one."""
GIVEN = {"section"}
"""What a plugin calls on its own component, and does not write."""
PROPERTIES = {"adaptable", "bytes_per_parameter", "label", "mergeable", "remote", "trains"}
"""Properties of a kind; reading one runs a plugin's code as calling a method does."""


def methods():
    """Return the names of all that a plugin writes: the methods and properties of the kinds."""
    found = set()
    for kind in (*HOOKS.values(), Component):
        own = {name: value for name, value in vars(kind).items() if not name.startswith(("_", "model_"))}
        found |= {name for name, value in own.items() if inspect.isfunction(value) or isinstance(value, property)}
    return found - GIVEN


def test_the_methods_are_those_of_the_kinds():
    found = methods()
    assert {"label", "fingerprint", "peft_config", "load_kwargs", "to_conversation", "weights"} <= found
    assert found >= AMBIGUOUS | PROPERTIES


def _imports(node):
    return node.names if isinstance(node, ast.Import | ast.ImportFrom) else ()


def calls_around(tree, names):
    """Yield what in a syntax tree goes into a component by itself."""
    imported = {alias.asname or alias.name for node in ast.walk(tree) for alias in _imports(node)}
    for node in ast.walk(tree):
        called = node.func if isinstance(node, ast.Call) else None
        if isinstance(called, ast.Attribute) and called.attr in names - PROPERTIES:
            on = ast.unparse(called.value)
            last = on.rpartition(".")[2]
            if on not in imported and (called.attr not in AMBIGUOUS or last in COMPONENTS):
                yield node.lineno, ast.unparse(called)
        elif isinstance(node, ast.Attribute) and node.attr in PROPERTIES and isinstance(node.ctx, ast.Load):
            yield node.lineno, ast.unparse(node)


def test_a_call_that_goes_round_the_door_is_seen():
    code = (
        "source.source.label()\nrecipe.adapter.peft_config()\nmetric.label\nself.policy.shorten(row)\n"
        "builder.build(folder)\nmasking.weights(tokens)\nwith_it = source.source.rows()\n"
        "writer.rows\nself.still.check()\nship.merge(run)\nself.weights.quantized\ntemplate.source\n"
    )
    found = sorted(line for line, _ in calls_around(ast.parse(code), methods()))
    assert found == [1, 2, 3, 4, 5, 6, 7]


def test_nothing_else_calls_a_component():
    """What `sftplug.plugin.calls` does not check could be anything, show a password, or be nobody's fault."""
    names, files = methods(), sorted((ROOT / "sftplug").rglob("*.py"))
    files = [file for file in files if DOOR not in file.parents and file.parent.name != "components"]
    assert len(files) > 150
    around = [
        f"{file.relative_to(ROOT)}:{line}: {call}"
        for file in files
        for line, call in calls_around(ast.parse(file.read_text()), names)
    ]
    assert around == []


def test_everything_that_a_plugin_writes_is_called_there():
    inside = {
        node.attr
        for file in DOOR.glob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute)
    }
    assert methods() - inside == set()
