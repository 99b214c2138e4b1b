"""A disk that is full while something is written: one line says so, and what stood there stays.

On a small file system of memory where the rights allow it to be mounted, and under a limit on the
size of files, which works everywhere and ends a file at an exact byte.
"""

import contextlib
import errno
import os
import resource
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest

import keras_fwd
from keras_fwd_cli.main import main

pytestmark = pytest.mark.slow
X = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
BEFORE = "what stood there"


def compiled(optimizer=None):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(optimizer or keras_fwd.GaussNewton(), "mse")
    return model


@pytest.fixture(scope="module")
def report():
    return keras_fwd.sensitivity_report(compiled(), X)


@pytest.fixture(scope="module")
def sources(report, tmp_path_factory):
    """A model, data and a report, on a disk with space."""
    folder = tmp_path_factory.mktemp("sources")
    compiled().save(folder / "model.keras")
    np.savetxt(folder / "x.csv", X, delimiter=",", header="a,b,c", comments="")
    report.to_json(folder / "before.json")
    return folder


class Mounted:
    """A file system of its own, full but for so many bytes."""

    error = errno.ENOSPC

    def __init__(self, folder):
        self.folder = folder

    @contextlib.contextmanager
    def full(self, free):
        ballast = self.folder / "ballast"
        with open(ballast, "wb", buffering=0) as file:
            with contextlib.suppress(OSError):
                while file.write(bytes(4096)):
                    pass
            file.truncate(file.tell() - free)
        try:
            yield
        finally:
            ballast.unlink()


class Limited(Mounted):
    """A limit on what each file may hold."""

    error = errno.EFBIG

    @contextlib.contextmanager
    def full(self, free):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (free, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(params=["mounted", "limited"])
def disk(request, tmp_path):
    if request.param == "limited":
        yield Limited(tmp_path)
        return
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount; the limit on the size of files stands for it")
    try:
        yield Mounted(tmp_path)
    finally:
        subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


FREE = [0, 4096]  # nothing at all can be written, or a part


def assert_as_before(path):
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert path.read_text() == BEFORE


@pytest.mark.parametrize("free", FREE)
@pytest.mark.parametrize("form", ["html", "json"])
def test_a_report_of_a_full_disk_is_an_error_that_names_it(report, disk, form, free):
    path = disk.folder / f"report.{form}"
    path.write_text(BEFORE)
    with disk.full(free), pytest.raises(keras_fwd.ConfigurationError) as caught:
        getattr(report, f"to_{form}")(path)
    assert f"path={str(path)!r} ({os.strerror(disk.error)})" in str(caught.value)
    assert_as_before(path)
    getattr(report, f"to_{form}")(path)  # and goes well when there is space
    assert path.stat().st_size > 4096


# A table or a comparison is short: no part of it may fit.
COMMANDS = {
    ("report", "html"): 4096,
    ("report", "json"): 4096,
    ("report", "csv"): 0,
    ("compare", "json"): 0,
    ("compare", "csv"): 0,
}


@pytest.mark.parametrize(("command", "form"), COMMANDS)
def test_a_command_says_it_in_one_line(sources, disk, command, form, capsys):
    path = disk.folder / f"result.{form}"
    path.write_text(BEFORE)
    given = ["model.keras", "x.csv"] if command == "report" else ["before.json"] * 2
    arguments = [command, *(str(sources / name) for name in given), "-o", str(path)]
    with disk.full(COMMANDS[command, form]):
        code = main(arguments)
    said = f"keras-fwd: {path}: {os.strerror(disk.error)}\n"
    assert (code, *capsys.readouterr()) == (2, "", said)
    assert_as_before(path)


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_standard_output_that_is_full_is_said_too(sources, options):
    command = [sys.executable, "-m", "keras_fwd_cli", "compare", *["before.json"] * 2, *options]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command, cwd=sources, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "standard output: No space left" in done.stderr


@pytest.mark.parametrize("kind", [keras_fwd.GaussNewton, keras_fwd.KFAC])
def test_training_survives_a_checkpoint_that_finds_no_space(disk, kind, sources, capsys):
    """Keras writes over what stands there, so each checkpoint needs a name of its own.

    What is cut off is no archive and is refused; the one before goes on to the same weights.
    """
    y = np.sin(X[:, :1])

    def fit(model, epochs=2):
        model.fit(X, y, batch_size=20, epochs=epochs, shuffle=False, verbose=0)

    model = compiled(kind())
    fit(model)
    first, second = (disk.folder / f"{name}.keras" for name in ("first", "second"))
    model.save(first)
    with disk.full(4096), pytest.raises(OSError, match=os.strerror(disk.error)):
        model.save(second)
    assert not zipfile.is_zipfile(second)
    with pytest.raises(ValueError):
        keras.saving.load_model(second)
    assert main(["leaks", str(second)]) == 2 and capsys.readouterr().err.count("\n") == 1
    again = keras.saving.load_model(first)
    for each in (model, again):
        fit(each)
    for a, b in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
