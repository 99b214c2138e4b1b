"""The code in the README and in the pages of `docs/` runs."""

import pathlib
import re

import keras
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
WRITTEN_BY_THE_BUILD = {"api", "gallery", "_extensions", "_static"}
PAGES = [ROOT / "README.md"] + [
    page
    for page in sorted((ROOT / "docs").rglob("*.md"))
    if page.relative_to(ROOT / "docs").parts[0] not in WRITTEN_BY_THE_BUILD
]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
WITH_CODE = [name for name in NAMES if "```python" in (ROOT / name).read_text(encoding="utf-8")]
# What a block that does not run may be; `{…}` is a directive of the site.
SHOWN = {"sh", "text", "toml", "yaml", "json"}


def blocks(text):
    """The Python of a page, each block with as many empty lines before it as it has in the page."""
    for match in re.finditer(r"^```python\n(.*?)^```", text, re.M | re.S):
        yield "\n" * text.count("\n", 0, match.start(1)) + match[1]


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    """What a page saves goes here; what it sets in Keras does not outlive it."""
    monkeypatch.chdir(tmp_path)
    keras.backend.clear_session()  # with the dtype policy, which would outrank a page's `floatx`
    yield
    keras.backend.clear_session()
    keras.config.set_floatx("float32")


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_CODE)
def test_the_code_of_a_page_runs(name, own_folder):
    scope = {"__name__": "__main__"}
    for block in blocks((ROOT / name).read_text(encoding="utf-8")):
        exec(compile(block, str(ROOT / name), "exec"), scope)  # AutoGraph reads the page


@pytest.mark.parametrize("name", NAMES)
def test_no_code_of_a_page_escapes(name):
    """A fence of another name would not run: ```` ```py ````, or none at all."""
    text = (ROOT / name).read_text(encoding="utf-8")
    fences = re.findall(r"^ *(`{3,}|~{3,}|:{3,})(.*)$", text, re.M)
    opened = [fence[1].strip() for fence in fences[::2]]
    assert len(fences) % 2 == 0, "a fence is not closed"
    unknown = [word for word in opened if word not in SHOWN | {"python"} and word[:1] != "{"]
    assert not unknown, f"blocks that are neither python nor one of {sorted(SHOWN)}: {unknown}"


def test_a_block_keeps_its_place_in_the_page():
    (block,) = blocks("# Title\n\n```sh\nls\n```\n\n```python\nx = 1\n```\n")
    assert block == "\n" * 7 + "x = 1\n"


def test_contributing_names_places_that_are_there():
    """Each path in the pages' tables and walk, from the roots that their columns name."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    text = text[text.index("## The house") : text.index("## Rules")]
    roots = [ROOT / "keras_fwd", ROOT / "tests", ROOT]
    named = re.findall(r"`(?:\.\./)?([\w./]+(?:/|\.py))`", text)
    named += re.findall(r"(?<=[ \"=])tests/[\w/.]+", text)
    beside = "keras_fwd/optimizers/_steps"  # files that stand after another one of their folder
    gone = [n for n in named if not any((r / n).exists() for r in [*roots, ROOT / beside])]
    # The two folders of the command and those of a folder stand after its name.
    inner = (
        "keras_fwd_cli",
        "keras_fwd/optimizers",
        "keras_fwd/sensitivity",
        "keras_fwd/callbacks",
    )
    gone = [n for n in gone if not any((ROOT / i / n).exists() for i in inner)]
    assert len(named) > 100 and not gone
