"""The house: underscore modules are private to their room, and no files import each other in a circle."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = {path.parent.name: path for path in sorted(ROOT.glob("*/statfed"))}
FILES = {path: room for room, root in ROOMS.items() for path in sorted(root.rglob("*.py"))}


def module_of(path: Path) -> str:
    """The dotted name of a file of a room."""
    parts = path.relative_to(next(root for root in ROOMS.values() if root in path.parents)).with_suffix("").parts
    return ".".join(("statfed", *(parts[:-1] if parts[-1] == "__init__" else parts)))


MODULES = {module_of(path): path for path in FILES}


def imported(nodes: list[ast.stmt], module: str, package: bool) -> Iterator[tuple[int, str]]:
    """Lines and dotted names of what these statements import: modules, and names out of them."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = module.split(".")[: None if package and node.level == 1 else (1 if package else 0) - node.level]
                base = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def everywhere(tree: ast.Module) -> list[ast.stmt]:
    """Every statement, inside functions as well."""
    return [node for node in ast.walk(tree) if isinstance(node, ast.stmt)]


def at_import(body: list[ast.stmt]) -> list[ast.stmt]:
    """Statements that run when the module is imported: none of a function, none for type checkers alone."""
    found = []
    for node in body:
        found.append(node)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            found += at_import(node.orelse)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for part in ("body", "orelse", "finalbody"):
                found += at_import(getattr(node, part, []))
            for handler in getattr(node, "handlers", []):
                found += at_import(handler.body)
    return found


def private(name: str, room: str) -> bool:
    """If a dotted name is of an underscore module of another room. A name out of a public module is not looked at."""
    parts = name.split(".")
    if parts[0] != "statfed" or len(parts) < 3 or parts[1] == room:
        return False
    inside = [".".join(parts[: end + 1]) for end in range(2, len(parts)) if parts[end].startswith("_")]
    return any(one in MODULES for one in inside)


def test_the_rooms_are_found() -> None:
    assert {"core", "strategies", "client", "server", "cli"} <= set(ROOMS)
    assert MODULES["statfed.server._flwr"] == ROOT / "server/statfed/server/_flwr.py"


def test_no_room_imports_an_underscore_module_of_another() -> None:
    found = []
    for path, room in FILES.items():
        names = imported(everywhere(ast.parse(path.read_text())), module_of(path), path.name == "__init__.py")
        found += [f"{path.relative_to(ROOT)}, line {line}: {name}" for line, name in names if private(name, room)]
    assert not found, "\n".join([*sorted(set(found)), "want a public module, or the name exported by its package"])


def test_a_private_import_is_seen() -> None:
    assert private("statfed.server._flwr", "client")
    assert private("statfed.server._flwr.TRIED", "client")
    assert not private("statfed.server._flwr", "server")
    assert not private("statfed.server.engine.Session", "client")


def graph() -> dict[str, set[str]]:
    """What each module imports when it is imported, of the rooms' own modules. Packages above are left out."""
    found = {}
    for name, path in MODULES.items():
        body = at_import(ast.parse(path.read_text()).body)
        names = [one for _, one in imported(body, name, path.name == "__init__.py")]
        targets = {one if one in MODULES else one.rpartition(".")[0] for one in names}
        found[name] = {one for one in targets if one in MODULES and one != name}
    return found


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Strongly connected groups of more than one module (Tarjan 1972)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = low[node] = len(order)
        stack.append(node)
        for other in sorted(edges.get(node, ())):
            if other not in order:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], order[other])
        if low[node] == order[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(edges):
        if node not in order:
            visit(node)
    return found


def test_no_files_import_each_other_in_a_circle() -> None:
    edges = graph()
    assert edges["statfed.server.exchange"] >= {"statfed.server.carrier", "statfed.core.protection"}
    found = circles(edges)
    assert not found, "\n".join([*(" <-> ".join(group) for group in found), "want what they share in a third module"])


@pytest.mark.parametrize(
    ("edges", "wanted"),
    [
        ({"a": {"b"}, "b": {"c"}, "c": set()}, []),
        ({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}, [["a", "b", "c"]]),
        ({"a": {"b"}, "b": {"a"}, "c": {"d"}, "d": {"c", "a"}}, [["a", "b"], ["c", "d"]]),
    ],
)
def test_circles_are_seen(edges: dict[str, set[str]], wanted: list[list[str]]) -> None:
    assert sorted(circles(edges)) == wanted


def test_imports_inside_functions_and_for_types_alone_are_no_circle() -> None:
    source = """
from typing import TYPE_CHECKING
import a
if TYPE_CHECKING:
    import b
else:
    import c
try:
    import d
except ImportError:
    import e
class C:
    import f
    def g(self):
        import h
"""
    names = [name for _, name in imported(at_import(ast.parse(source).body), "m", False)]
    assert names == ["typing.TYPE_CHECKING", "a", "c", "d", "e", "f"]
    relative = "from . import x\nfrom .y import z\nfrom .. import w"
    body = ast.parse(relative).body
    assert [n for _, n in imported(body, "statfed.server.grid", True)] == [
        "statfed.server.grid.x",
        "statfed.server.grid.y.z",
        "statfed.server.w",
    ]
    assert [n for _, n in imported(body, "statfed.server.grid.ray", False)] == [
        "statfed.server.grid.x",
        "statfed.server.grid.y.z",
        "statfed.server.w",
    ]
