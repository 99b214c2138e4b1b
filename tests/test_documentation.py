"""The code in the pages of `docs/` runs."""

import pathlib
import re

import pytest

DOCS = pathlib.Path(__file__).resolve().parents[1] / "docs"
PAGES = sorted(page.name for page in DOCS.glob("*.md") if "```python" in page.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_runs(page, capsys):
    blocks = re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(), re.M | re.S)
    scope = {}
    for block in blocks:
        exec(compile(block, page, "exec"), scope)
    if page == "trainlm.md":
        out = capsys.readouterr().out
        assert "epochs; " in out and float(out.split(":")[-1]) < 1e-3, out
