"""What a suite depends on, which share of it runs, and what is said of it."""

import collections

import pytest
from support import records, sources

FILES = {
    "package/__init__.py": "from package.a import f\nfrom package.b import g\nimport other\n",
    "package/a.py": '"""Words."""\nfrom package import inner\n\ndef f():\n    return inner.h()\n',
    "package/b.py": "def g():\n    return 1\n",
    "package/inner/__init__.py": "from package.inner.h import h\nfrom package.inner.i import i\n",
    "package/inner/h.py": "def h():\n    return 2\n",
    "package/inner/i.py": "def i():\n    return 3\n",
    "package/inner/page/page.css": "a {}",
    "other.py": "x = 1\n",
}


@pytest.fixture
def changed(tmp_path):
    """`changed(files)`: the digest of a suite that takes `f` from the package."""

    def digest(uses="import package\npackage.f()\n", **files):
        texts = {**FILES, "suite.py": uses, **files}
        for name, text in texts.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        tree = sources.Tree([tmp_path])
        return sources.digest(tree, [tmp_path / "suite.py"])

    return digest


def test_the_digest_changes_with_code(changed):
    before = changed()
    assert changed() == before
    assert changed(**{"package/a.py": FILES["package/a.py"] + "f.x = 1\n"}) != before
    assert changed(**{"package/inner/h.py": "def h():\n    return 4\n"}) != before
    assert changed(**{"package/inner/page/page.css": "b {}"}) != before  # beside h.py
    assert changed(uses="import package\nassert package.f()\n") != before


def test_the_digest_does_not_change_with_words(changed):
    before = changed()
    words = FILES["package/a.py"].replace("Words", "Other ones").replace("def f", "# why\n\ndef f")
    assert changed(**{"package/a.py": words}) == before
    assert (
        changed(**{"package/a.py": FILES["package/a.py"].replace('"""Words."""\n', "")}) == before
    )


def test_the_digest_does_not_change_with_what_is_not_reached(changed):
    before = changed()
    for name in ("package/b.py", "package/inner/i.py", "other.py"):
        assert changed(**{name: "y = 7\n"}) == before, name


@pytest.mark.parametrize(
    "uses",
    [
        "from package import f, g",
        "from package.b import g",
        "from package import b",
        "import package.b",
        "import package as p\np.g()",
        "import package\nprint(package)",
        "import package\nprint(getattr(package, 'g'))",
        "import package",
        "def late():\n    from package import g",
    ],
)
def test_each_way_to_use_a_module_counts(uses, changed):
    assert changed(uses=uses, **{"package/b.py": "y = 7\n"}) != changed(uses=uses)


def test_the_digest_changes_with_versions(changed, monkeypatch):
    before = changed()
    monkeypatch.setattr(sources, "versions", lambda: {"tensorflow": "99"})
    assert changed() != before


def test_conformance_does_not_depend_on_the_page_of_reports():
    tree = sources.checkout()
    files = [records.TESTS / file for file in records.SUITES["conformance"].files]
    reached = {str(path.relative_to(sources.ROOT)) for path in tree.closure(files)}
    assert "keras_fwd/_derivatives/double_gradient.py" in reached
    assert "keras_fwd/_rules/table.py" in reached and "tests/conformance/layers.py" in reached
    assert not [name for name in reached if name.startswith("keras_fwd/sensitivity/")]


# --- shares ---------------------------------------------------------------------------------------

CASES = [("many", f"case {i}") for i in range(160)] + [("few", "one"), ("few", "two")]


def test_a_share_is_the_same_for_the_same_commit_and_has_some_of_each_kind():
    drawn = records.share(CASES, "abc", 16)
    assert drawn == records.share(CASES[::-1], "abc", 16) != records.share(CASES, "abd", 16)
    kinds = collections.Counter(kind for kind, name in CASES if name in drawn)
    assert kinds == {"many": 10, "few": 1}


def test_shares_of_many_commits_have_all_cases():
    drawn = set.union(*(records.share(CASES, f"commit {i}", 16) for i in range(200)))
    assert drawn == {name for _, name in CASES}


# --- runs -----------------------------------------------------------------------------------------

SUITE = """
import pytest

@pytest.mark.slow
@pytest.mark.parametrize(
    "i", [pytest.param(i, marks=pytest.mark.recorded("laws of old", kind=i % 2)) for i in range(32)]
)
def test_each(i, record_property):
    record_property("found", {"odd" if i % 2 else "even": 1})
    assert i != FAILS
"""
CONFTEST = """
import pathlib
from support import records

records.FOLDER = pathlib.Path("records")
records.SUITES = {"laws of old": records.Suite(("test_suite.py",))}
records.digest = lambda name: pathlib.Path("digest").read_text()
records.commit = lambda: "abcdef"

def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes long")
    config.addinivalue_line("markers", "recorded: has a record")
    config.pluginmanager.register(records.Records(config))
"""
pytest_plugins = ["pytester"]


@pytest.fixture
def run(pytester, monkeypatch):
    """Runs a small suite in a process of its own; what was said of it."""
    pytester.makeconftest(CONFTEST)
    monkeypatch.setenv("PYTHONPATH", str(records.TESTS))
    monkeypatch.delenv(records.PLAN, raising=False)

    def run(*arguments, digest="d1", whole=False, fails=-1):
        monkeypatch.setenv("WHOLE", "1" if whole else "")
        pytester.path.joinpath("digest").write_text(digest)
        pytester.makepyfile(test_suite=SUITE.replace("FAILS", str(fails)))
        done = pytester.runpytest_subprocess("-m", "slow", *arguments)
        lines = [line for line in done.outlines if line.startswith("laws of old: ")]
        return lines[0] if lines else "", done.parseoutcomes()

    return run


@pytest.mark.slow
def test_a_suite_runs_whole_until_there_is_a_record_of_the_same_digest(run, pytester):
    said, counts = run()
    assert said == "laws of old: there is no record; all 32 cases, recorded"
    assert counts["passed"] == 32
    said, _ = run("-n", "2", whole=True)
    assert said == "laws of old: all 32 cases, recorded"
    recorded = (pytester.path / "records" / "laws_of_old.json").read_text()
    assert '"even": 16' in recorded and '"odd": 16' in recorded and '"digest": "d1"' in recorded
    for processes in ("0", "2"):
        said, counts = run("-n", processes)
        assert said.startswith("laws of old: digest as recorded on 2")
        assert said.endswith("; a share of 2 of 32 cases, drawn from commit abcdef")
        assert counts["passed"] == 2
    said, counts = run(digest="d2")
    assert said.startswith("laws of old: digest not as recorded on 2") and counts["passed"] == 32
    assert said.endswith(", recorded")
    assert '"digest": "d2"' in (pytester.path / "records" / "laws_of_old.json").read_text()


@pytest.mark.slow
def test_what_failed_or_ran_in_part_is_not_recorded(run, pytester):
    for arguments, fails in [((), 3), (("-k", "1"), -1)]:
        said, _ = run(*arguments, whole=True, fails=fails)
        assert "recorded" not in said
        assert not (pytester.path / "records").exists()


@pytest.mark.slow
def test_what_is_asked_for_by_name_runs(run):
    run(whole=True)
    _, counts = run("-k", "test_each")
    assert counts["passed"] == 32
