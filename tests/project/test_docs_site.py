"""The site of the documentation: whole, offline, and fit for a phone."""

import fcntl
import importlib
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
from support import extras
from support.chromium import PHONE
from support.site_links import problems

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "docs" / "_extensions"))
import api_pages  # noqa: E402 - needs the path above
import page_links  # noqa: E402

PUBLIC = [(module, name) for module, names in api_pages.public().items() for name in names]
OPTIONS = "-m sphinx -W --keep-going -q -D plot_gallery=0".split()


def text_of(*globs):
    paths = [path for glob in globs for path in sorted(ROOT.glob(glob))]
    return {path: path.read_text(encoding="utf-8") for path in paths}


PROSE = text_of("README.md", "docs/*.md", "docs/guides/*.md")
CODE = "\n".join(re.findall(r"^```python\n(.*?)^```", "\n".join(PROSE.values()), re.M | re.S))
TESTS = "\n".join(text_of("tests/**/*.py").values())


VALUES = {(m, name): getattr(importlib.import_module(m), name) for m, name in PUBLIC}


def is_shown(name, value):
    """By an example of its own, in a page, or, a base class, by those of what derives from it."""
    if re.search(r"^ *(>>>|Example: )", value.__doc__, re.M) or re.search(rf"\b{name}\b", CODE):
        return True
    return isinstance(value, type) and any(
        isinstance(other, type) and issubclass(other, value) and is_shown(other.__name__, other)
        for other in VALUES.values()
        if other is not value
    )


@pytest.mark.parametrize(("module", "name"), PUBLIC, ids=[".".join(pair) for pair in PUBLIC])
def test_a_public_name_is_described_shown_and_tested(module, name):
    value = VALUES[module, name]
    assert (value.__doc__ or "").strip(), "no docstring"
    assert is_shown(name, value), "no example, here or in the pages"
    assert re.search(rf"\b{name}\b", TESTS), "no test names it"


def test_titles_of_examples_become_titles_of_pages():
    extras.needed("sphinx_gallery", "docs")
    example_pages = importlib.import_module("example_pages")
    script = '"""Short.\n\nLong.\n\n    make demo\n"""\n\n# %% Data\nx = 1\n'
    assert example_pages.titled(script) == (
        '"""\nShort\n=====\n\nLong.\n\n::\n\n    make demo\n"""\n\n# %%\n# Data\n# ----\nx = 1\n'
    )


@pytest.mark.parametrize(
    ("link", "folder", "expected"),
    [
        ("../examples/08_burgers.py", "docs", "/gallery/08_burgers.rst"),
        ("../../benchmarks", "docs/guides", "/measurements.md"),
        ("docs/report.png", "", "/report.png"),
        ("../README.md", "docs", "/index.md"),
        ("../LICENSE", "docs", "../LICENSE"),
    ],
)
def test_links_of_the_repository_lead_to_pages(link, folder, expected):
    assert page_links.on_the_site(link, folder) == expected


PLANTED = {
    "other.html": "no such file",
    "page.html#nowhere": "no such place",
    "#nowhere": "no such place",
    "http://example.org/x": "https://host/path",
    "https://example/x": "https://host/path",
}


@pytest.mark.parametrize("link", PLANTED)
def test_a_planted_bad_link_is_found(link, tmp_path):
    (tmp_path / "page.html").write_text('<p id="here"><a href="#here">')
    assert not list(problems(tmp_path))
    (tmp_path / "first.html").write_text(f'<a href="{link}">')
    (problem,) = problems(tmp_path)
    assert PLANTED[link] in problem


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("page.html", '<script src="https://cdn.example.org/x.js"></script>'),
        ("style.css", '@import "https://fonts.example.org/x.css";'),
        ("style.css", "a { background: url(//example.org/x.png) }"),
    ],
)
def test_what_would_be_fetched_is_found(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    (problem,) = problems(tmp_path)
    assert "loaded from elsewhere" in problem


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built strictly from a copy, once for all workers; the examples do not run."""
    extras.needed("sphinx_gallery", "docs")
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if os.environ.get("PYTEST_XDIST_WORKER") else folder
    with open(folder / "site.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "site").exists():
            _build(folder / "copy", folder / "site")
    return folder / "site"


def _build(copy, target):
    shutil.rmtree(copy, ignore_errors=True)  # what a failed build left
    generated = shutil.ignore_patterns("api", "gallery", "__pycache__")
    for name in ("docs", "examples", "benchmarks"):
        shutil.copytree(ROOT / name, copy / name, ignore=generated)
    for name in ("CHANGELOG.md", "CONTRIBUTING.md", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    built = subprocess.run(
        [sys.executable, *OPTIONS, "-d", copy / "doctrees", copy / "docs", copy / "built"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    (copy / "built").rename(target)


@pytest.mark.slow
def test_the_site_has_a_page_for_each_public_name_and_no_bad_link(site):
    for module, name in PUBLIC:
        page = (site / "api" / f"{api_pages.file_name(module, name)}.html").read_text()
        assert "[source]" in page, (module, name)
    found = list(problems(site))
    assert not found, "\n" + "\n".join(found)


@pytest.mark.slow
def test_the_site_has_the_sections_of_the_docstrings(site):
    page = (site / "api" / "keras_fwd.jvp.html").read_text()
    for section in ("Parameters", "Returns", "Raises", "Cost", "Example"):
        assert re.search(rf'(class="rubric">|<dt.*>){section}', page), section


# Elements of the text that stick out of the window, but for those in a part that scrolls.
STICKING_OUT = """() => [...document.querySelectorAll("article *")].filter(element =>
    element.getBoundingClientRect().right > innerWidth + 1
    && !element.closest(".table-wrapper, pre, .highlight")
).map(element => `${element.tagName} ${element.textContent.slice(0, 60)}`)"""


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_a_phone_and_load_nothing_from_elsewhere(site, browser, scheme):
    seen = []
    context = browser.new_context(viewport=PHONE, color_scheme=scheme)
    page = context.new_page()
    page.on("console", lambda message: seen.append((page.url, message.text)))
    page.on("pageerror", lambda error: seen.append((page.url, str(error))))
    page.on("request", lambda r: r.url.startswith(("file:", "data:")) or seen.append(r.url))
    everything = [path for path in sorted(site.rglob("*.html")) if "_modules" not in path.parts]
    assert len(everything) > 80
    for path in everything:
        page.goto(path.as_uri())
        width = page.evaluate("document.documentElement.scrollWidth")
        out = page.evaluate(STICKING_OUT)
        if width > PHONE["width"] or out:
            seen.append((path.name, width, out[:5]))
    context.close()
    assert not seen
