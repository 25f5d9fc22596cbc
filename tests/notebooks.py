"""Run the cells of a notebook and the code blocks of a page."""

from __future__ import annotations

import ast
import inspect
import json
import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent.parent / "docs"


def code_cells(name: str) -> list[str]:
    """The code of a notebook of ``docs/``, whose outputs are cleared."""
    notebook = json.loads((DOCS / name).read_text(encoding="utf-8"))
    assert all(not cell.get("outputs") for cell in notebook["cells"]), "clear the outputs"
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def _blocks(name: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (DOCS / name).read_text(encoding="utf-8"), re.M | re.S)


def run_block_with(text: str, name: str, names: dict[str, Any]) -> None:
    """Run the one Python block of a page of ``docs/`` that contains this text."""
    (block,) = (block for block in _blocks(name) if text in block)
    exec(compile(block, f"{name}, block with {text}", "exec"), names)


def run_blocks(name: str, names: dict[str, Any]) -> int:
    """Run the Python blocks of a page of ``docs/`` in their order; returns how many there are."""
    blocks = _blocks(name)
    for number, block in enumerate(blocks):
        exec(compile(block, f"{name}, block {number + 1}", "exec"), names)
    return len(blocks)


async def run_cells(cells: list[str], names: dict[str, Any]) -> list[str]:
    """What each cell shows of its last line, in a running event loop, as in a notebook."""
    shown = []
    for number, cell in enumerate(cells):
        tree = ast.parse(cell)
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        for part, mode in ((tree, "exec"), (last and ast.Expression(last.value), "eval")):
            if part is None:
                continue
            code = compile(part, f"cell {number + 1}", mode, flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            value = eval(code, names)  # noqa: S307 (our own page)
            if inspect.isawaitable(value):
                value = await value
            if mode == "eval" and hasattr(value, "_repr_html_"):
                shown.append(value._repr_html_())
    return shown
