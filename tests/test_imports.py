"""The import direction, read from the source: finetune → adapters → data_prep → configs, lazy imports included."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ORDER = ("configs", "data_prep", "adapters", "finetune", "starter")
"""Each package may import those before it, and itself. The starter's recipe stands on all; nothing imports it."""
REFUSED_NAMES = {"utils", "util", "common", "helpers", "helper", "misc"}
HEAVY = {"torch", "torchaudio", "transformers", "peft", "accelerate", "librosa", "demucs", "datasets", "matplotlib"}


def sources() -> list[Path]:
    return [path for package in ORDER for path in sorted((ROOT / package).rglob("*.py"))]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.AST, module: str) -> Iterator[str]:
    """Every module named by an import anywhere below a node; `from a import b` names both a and a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative imports hide the direction; name the package"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def at_import_time(path: Path) -> set[str]:
    """What importing a file imports: not what its functions do, nor what stands under TYPE_CHECKING."""

    class Strip(ast.NodeTransformer):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
            return None

        def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
            return None

        def visit_If(self, node: ast.If) -> ast.If | None:
            return None if "TYPE_CHECKING" in ast.dump(node.test) else node

    tree = ast.parse(path.read_text(encoding="utf-8"))
    return set(imports(Strip().visit(tree), module_name(path)))


def wrong_directions(module: str, imported: set[str]) -> list[str]:
    allowed = ORDER[: ORDER.index(module.partition(".")[0]) + 1]
    outside = (*ORDER, "tests", "benchmarks")
    return sorted({name for name in imported if (top := name.partition(".")[0]) in outside and top not in allowed})


def find_cycle(graph: dict[str, set[str]]) -> list[str]:
    """A path of modules that ends where it began, or nothing."""
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        found = next((cycle for after in sorted(graph[module]) if (cycle := visit(after, [*path, module]))), [])
        done.add(module)
        return found

    return next((cycle for module in sorted(graph) if (cycle := visit(module, []))), [])


def test_there_is_something_to_look_at():
    assert len(sources()) > 10


@pytest.mark.parametrize("path", sources(), ids=module_name)
def test_imports_go_downward_only(path):
    found = set(imports(ast.parse(path.read_text(encoding="utf-8")), module_name(path)))
    assert not wrong_directions(module_name(path), found)


def test_an_upward_import_would_be_seen():
    lazy = ast.parse("def f():\n    from finetune import cli\n    import adapters.lm\n    import data_prep.scan\n")
    assert wrong_directions("data_prep.x", set(imports(lazy, "x"))) == ["adapters.lm", "finetune", "finetune.cli"]


def test_no_cycles():
    modules = {module_name(path): path for path in sources()}
    graph = {name: {other for other in at_import_time(path) if other in modules} for name, path in modules.items()}
    for name, others in graph.items():
        others.discard(name)
    assert find_cycle(graph) == []


def test_a_cycle_would_be_seen():
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert find_cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_every_file_is_named_for_its_one_idea():
    assert not [str(path) for path in sources() if REFUSED_NAMES & set(path.relative_to(ROOT).with_suffix("").parts)]


def test_commands_and_settings_import_nothing_heavy_at_once():
    slow = {
        str(path.relative_to(ROOT)): heavy
        for path in [*(ROOT / "configs").rglob("*.py"), *(ROOT / "finetune" / "commands").rglob("*.py")]
        if (heavy := {name.partition(".")[0] for name in at_import_time(path)} & HEAVY)
    }
    assert not slow
