"""Functions that a page of the documentation shows, for the tests of what the page promises."""

import ast
import pathlib
import re

GUIDES = pathlib.Path(__file__).resolve().parents[2] / "docs" / "guides"


def documented(page, name, scope):
    """The function of that name in `docs/guides/PAGE`, compiled in `scope`."""
    for block in re.findall(
        r"^```python\n(.*?)^```", (GUIDES / page).read_text("utf-8"), re.M | re.S
    ):
        for node in ast.parse(block).body:
            if isinstance(node, ast.FunctionDef) and node.name == name:
                exec(compile(ast.Module([node], []), page, "exec"), scope)
                return scope[name]
    raise LookupError(f"docs/guides/{page} has no function {name}")
