"""The archives: the same for the same sources, with what they need and nothing else, and in use."""

import os
import pathlib
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile

import pytest

import keras_fwd

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGES = ("keras_fwd", "keras_fwd_cli")
EPOCH = "1700000000"
OUR_FILES = re.compile(r"keras_fwd(_cli)?/([a-z_]+/)*([a-z_]+\.(py|js|css|html)|py\.typed)")
METADATA = re.compile(
    r"keras_fwd-[\d.]+\.dist-info/(METADATA|RECORD|WHEEL|entry_points\.txt|.*LICENSE)"
)
BESIDES = {
    *(".gitignore", "CHANGELOG.md", "CITATION.cff", "LICENSE"),
    *("PKG-INFO", "README.md", "pyproject.toml"),
}
#: What the wheel may import without an extra. The others are blocked, as if not installed.
EXTRAS = "jinja2 matplotlib pandas pyarrow shtab scipy sklearn tensorboard".split()
BLOCKER = """\
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
"""


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def sources():
    """The files of both packages that git knows or would take."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *PACKAGES]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return {name for name in listed.stdout.split() if (ROOT / name).is_file()}


def build(where):
    """Both archives, by the build backend that is installed; nothing is fetched."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", where, ROOT]
    done = subprocess.run(
        command, env={**os.environ, "SOURCE_DATE_EPOCH": EPOCH}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,), (sdist,) = where.glob("*.whl"), where.glob("*.tar.gz")
    return wheel, sdist


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    return build(tmp_path_factory.mktemp("dist"))


def test_the_version_stands_in_one_place_and_the_papers_agree():
    project = tomllib.loads(text("pyproject.toml"))
    assert "version" not in project["project"]
    assert project["tool"]["hatch"]["version"]["path"] == "keras_fwd/__init__.py"
    version = keras_fwd.__version__
    assert re.search(rf"^version: {re.escape(version)}$", text("CITATION.cff"), re.M)
    released = re.findall(r"^## \[([\d.]+)\] - (\d{4}-\d\d-\d\d)$", text("CHANGELOG.md"), re.M)
    assert released[0][0] == version
    assert f"date-released: {released[0][1]}" in text("CITATION.cff")


def test_the_oldest_set_holds_the_lower_bounds():
    pins = dict(re.findall(r"^([a-z0-9-]+)==(.+)$", text("constraints-lowest.txt"), re.M))
    for requirement in tomllib.loads(text("pyproject.toml"))["project"]["dependencies"]:
        name, _, bound = requirement.partition(">=")
        assert f"{pins[name]}.".startswith(f"{bound}."), requirement


@pytest.mark.slow
def test_two_builds_are_the_same_bytes(archives, tmp_path):
    for first, second in zip(archives, build(tmp_path), strict=True):
        assert first.name == second.name
        assert first.read_bytes() == second.read_bytes()


@pytest.mark.slow
def test_the_wheel_holds_the_packages_and_metadata_alone(archives):
    names = set(zipfile.ZipFile(archives[0]).namelist())
    ours = {name for name in names if not METADATA.fullmatch(name)}
    assert ours == sources()
    assert [name for name in ours if not OUR_FILES.fullmatch(name)] == []
    command = [sys.executable, "-m", "check_wheel_contents", archives[0]]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.slow
def test_the_source_archive_holds_what_builds_the_wheel_and_what_is_read(archives):
    with tarfile.open(archives[1]) as archive:
        members = [member for member in archive.getmembers() if member.isfile()]
    names = {member.name.partition("/")[2] for member in members}
    assert names == sources() | BESIDES
    assert {member.mtime for member in members} == {int(EPOCH)}


@pytest.mark.slow
def test_the_installed_wheel_runs_the_example_of_the_readme(archives, tmp_path):
    """Somewhere else, with TensorFlow, Keras and NumPy alone."""
    site = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*command, "--target", site, archives[0]], check=True)
    (example,) = re.findall(
        r"^## Fifteen lines\n+```python\n(.*?)```", text("README.md"), re.M | re.S
    )
    assert "keras_fwd.GaussNewton()" in example
    (site / "sitecustomize.py").write_text(BLOCKER.format(blocked=EXTRAS))
    ending = "import sys\nprint(keras_fwd.__file__, keras_fwd.__version__)\n"
    ending += f"print([name for name in {EXTRAS} if name in sys.modules])\n"
    (tmp_path / "example.py").write_text(example + ending)
    environment = {**os.environ, "PYTHONPATH": str(site), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-W", "error::ImportWarning", "example.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    *_, where, imported = done.stdout.strip().splitlines()
    assert where == f"{site / 'keras_fwd' / '__init__.py'} {keras_fwd.__version__}"
    assert imported == "[]"
    assert "feature" in done.stdout
    command = [sys.executable, "-m", "keras_fwd_cli", "completion", "bash"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "pip install shtab" in done.stderr
