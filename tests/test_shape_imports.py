"""The promises about who imports whom, for type annotations too, and about what hooks hand over."""

import ast
import inspect
import sys
from pathlib import Path

import sftplug
from sftplug.plugin import hookspecs

ROOT = Path(__file__).parents[1]


def modules():
    """Return name -> syntax tree of every module of the core."""
    trees = {}
    for file in sorted((ROOT / "sftplug").rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        trees[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ast.parse(file.read_text())
    return trees


def imports(trees):
    """Return module -> modules of the core that it imports, lazily and for annotations too."""
    found = {}
    for name, tree in trees.items():
        froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
        named = {f"{node.module}.{alias.name}" for node in froms for alias in node.names}
        found[name] = {full if full in trees else full.rpartition(".")[0] for full in named} & trees.keys() - {name}
    return found


def circles(graph):
    """Return the strongly connected components of more than one module (Tarjan 1972)."""
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph[node]:
            if other not in index:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == index[node]:
            at = stack.index(node)
            found.append(set(stack[at:]))
            del stack[at:]

    sys.setrecursionlimit(10_000)
    for node in graph:
        if node not in index:
            visit(node)
    return [circle for circle in found if len(circle) > 1]


def test_a_circle_of_imports_is_seen():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [{"b", "c"}]


def test_the_core_imports_in_circles_where_two_things_are_said_of_each_other_only():
    """A component's check reads a recipe, and a recipe holds components; more than that is a knot."""
    graph = imports(modules())
    assert len(graph) > 150
    kinds = {name for name in graph if name.startswith("sftplug.plugin.components")}
    knots = [circle - kinds for circle in circles(graph)]
    assert any("sftplug.recipe.model" in knot for knot in knots)
    assert max(map(len, knots)) <= 3, knots


def test_what_hooks_hand_over_is_public_and_described():
    plain = {"Mapping", "Sequence", "BaseException", "str", "int", "float", "list", "type", "None", "Callable", "Any"}
    plain |= {"typer", "Path"}
    text = (ROOT / "docs" / "hooks.md").read_text() + (ROOT / "docs" / "kinds.md").read_text()
    for name, spec in vars(hookspecs).items():
        if not name.startswith("sftplug_"):
            continue
        annotations = map(ast.parse, inspect.get_annotations(spec).values())
        used = {node.id for tree in annotations for node in ast.walk(tree) if isinstance(node, ast.Name)}
        assert used - plain <= set(sftplug.__all__), name
        for given in used - plain - {"Recipe"}:
            assert f"# `{given}`" in text or f"# {given}\n" in text or given == "Deferred", given


def test_every_field_of_what_is_handed_over_is_described():
    for cls in (
        sftplug.Ledger,
        sftplug.Account,
        sftplug.Mixed,
        sftplug.Packing,
        sftplug.RowGroup,
        sftplug.RowGroups,
        sftplug.RunResult,
        sftplug.ParameterCounts,
        sftplug.MovedWeights,
        sftplug.RunTrainer,
    ):
        (tree,) = ast.parse(inspect.getsource(cls)).body
        fields = [at for at, node in enumerate(tree.body) if isinstance(node, ast.AnnAssign)]
        assert fields or cls is sftplug.RunTrainer
        for at in fields:
            after = tree.body[at + 1] if at + 1 < len(tree.body) else None
            described = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            assert described, f"{cls.__name__}.{tree.body[at].target.id}"


def test_the_console_says_what_it_is_given():
    """The built-in that shows a run is the example that others copy: it annotates what hooks hand over."""
    tree = ast.parse((ROOT / "plugins" / "sftplug_console" / "__init__.py").read_text())
    hooks = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert len(hooks) >= 5
    given = {ast.unparse(argument.annotation) for hook in hooks for argument in hook.args.args}
    assert {"Ledger", "RunResult", "RunTrainer", "Recipe"} <= given
    assert "Any" not in given
