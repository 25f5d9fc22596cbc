"""Measure the structure of the source: lengths of functions, own imports inside functions, import cycles,
layers, untyped objects.

``make check`` runs it with ``--check``: own imports inside functions and import cycles, between files or packages, are then
an error.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np

SRC = Path(__file__).resolve().parent.parent / "src"
LONG_FUNCTION = 60
RAW = re.compile(r"dict\[str, Any\]")
ALIAS = re.compile(r"^(\w+) = (?:list\[)?(?:dict\[str, Any\]|JsonObject)\]?$", re.MULTILINE)
"""A name for JSON objects: ``JsonObject`` and those that say which object it is."""


def modules() -> dict[str, ast.Module]:
    """Every module of both packages by its dotted name."""
    found = {}
    for path in sorted(SRC.rglob("*.py")):
        name = ".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__")
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imports(tree: ast.Module, known: set[str]) -> list[tuple[str, bool]]:
    """(own module, inside a function) for each import that happens at run time."""
    found: list[tuple[str, bool]] = []

    def visit(node: ast.AST, inside: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.ImportFrom) and child.module:
                names = [f"{child.module}.{alias.name}" for alias in child.names]
                found.extend((name if name in known else str(child.module), inside) for name in names)
            elif isinstance(child, ast.Import):
                found.extend((alias.name, inside) for alias in child.names)
            visit(child, inside or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))

    visit(tree, False)
    return [(name, inside) for name, inside in found if name in known]


def components(graph: dict[str, set[str]]) -> list[list[str]]:
    """Strongly connected components, those that others depend on first (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def connect(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph[node]:
            if other not in index:
                connect(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            found.append(stack[at:])
            del stack[at:]

    for node in graph:
        if node not in index:
            connect(node)
    return found


def packages(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """The same graph between packages: the modules of one folder are one. An ``__init__`` counts apart, since what a
    package says of itself (its version) is imported from below, too."""

    def package(name: str) -> str:
        return f"{name}.__init__" if (SRC / name.replace(".", "/")).is_dir() else name.rpartition(".")[0]

    merged: dict[str, set[str]] = {package(name): set() for name in graph}
    for name, others in graph.items():
        merged[package(name)] |= {package(other) for other in others} - {package(name)}
    return merged


def layers(graph: dict[str, set[str]]) -> int:
    """The longest chain of imports, each component counted once."""
    depth: dict[str, int] = {}
    for component in components(graph):
        below = [depth[other] for name in component for other in graph[name] if other in depth]
        depth |= dict.fromkeys(component, max(below, default=0) + 1)
    return max(depth.values())


def untyped() -> tuple[int, Counter[str]]:
    """How often ``dict[str, Any]`` is written, and each name that stands for JSON objects."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(SRC.rglob("*.py"))]
    names = {name for text in texts for name in ALIAS.findall(text)}
    used = Counter(word for text in texts for word in re.findall(r"[A-Za-z]\w*", text) if word in names)
    imported = Counter(
        word
        for text in texts
        for line in text.splitlines()
        if line.startswith(("from ", "    from ")) or ALIAS.match(line)
        for word in re.findall(r"[A-Za-z]\w*", line)
        if word in names
    )
    return sum(len(RAW.findall(text)) for text in texts), used - imported


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail for cycles and own imports inside functions")
    sys.setrecursionlimit(10_000)
    trees, options = modules(), parser.parse_args()
    own = {name: imports(tree, set(trees)) for name, tree in trees.items()}
    hidden = [(name, other) for name, found in own.items() for other, inside in found if inside]
    graph = {name: {other for other, _ in found} - {name} for name, found in own.items()}
    cycles = [component for component in components(graph) if len(component) > 1]
    lengths = [
        (node.end_lineno or 0) - node.lineno + 1
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    total = sum(len(found) for found in own.values())
    print(f"files                       {len(trees)}")
    print(f"functions over {LONG_FUNCTION} lines     {sum(n > LONG_FUNCTION for n in lengths)} of {len(lengths)}")
    print(f"length, 95th percentile     {np.percentile(lengths, 95):.0f}")
    print(f"own imports in functions    {len(hidden)} of {total}")
    print(f"files in import cycles      {sum(map(len, cycles))}")
    merged = packages(graph)
    tangled = [component for component in components(merged) if len(component) > 1]
    print(f"layers of packages          {layers(merged)}")
    print(f"packages in import cycles   {sum(map(len, tangled))} of {len(merged)}")
    raw, named = untyped()
    print(f"dict[str, Any]              {raw}")
    print(f"named JSON objects          {named.total()} ({', '.join(f'{n} {c}' for n, c in named.most_common())})")
    for name, other in hidden:
        print(f"  {name} imports {other} inside a function: move it to the top of the file")
    for component in cycles + tangled:
        print(f"  cycle: {', '.join(component)}")
    return int(options.check and bool(hidden or cycles or tangled))


if __name__ == "__main__":
    sys.exit(main())
