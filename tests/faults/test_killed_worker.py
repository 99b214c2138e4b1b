"""A worker of two that is killed: all are started again, and end at the undisturbed weights."""

import contextlib
import json
import os
import pathlib
import random
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

pytestmark = pytest.mark.slow
HERE = pathlib.Path(__file__).parent


@contextlib.contextmanager
def workers(kind, folder):
    """Two processes that train together; none is left at the end."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(2)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    path = os.pathsep.join([str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "-1"}
    started = []
    try:
        for index in range(2):
            task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            started.append(
                subprocess.Popen(
                    [sys.executable, HERE / "worker_case.py", kind, folder],
                    env={**environment, "TF_CONFIG": json.dumps(task)},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def trained(kind, folder):
    """The weights of both workers at the end, and the epoch in which they began."""
    with workers(kind, folder) as started:
        said = [process.communicate(timeout=500)[0].split("\n") for process in started]
        assert [process.returncode for process in started] == [0, 0], said
    ends = []
    for index in range(2):
        with np.load(folder / f"end{index}.npz") as file:
            ends.append(list(file.values()))
    return ends, {line for lines in said for line in lines if line.startswith("from")}


@pytest.mark.parametrize(("kind", "victim"), [("GaussNewton", 1), ("KFAC", 0)])
def test_a_killed_worker_goes_on_with_the_others_to_the_same_weights(kind, victim, tmp_path):
    for name in ("undisturbed", "killed"):
        (tmp_path / name).mkdir()
    expected, begun = trained(kind, tmp_path / "undisturbed")
    assert begun == {"from epoch 0"}
    with workers(kind, tmp_path / "killed") as started:
        lines = iter(started[victim].stdout.readline, "")
        epochs = 0
        while epochs < 2:  # in the third, or while the second is saved
            epochs += next(lines) == "epoch\n"
        time.sleep(random.Random(kind).uniform(0, 0.05))
        started[victim].kill()
    found, begun = trained(kind, tmp_path / "killed")
    assert begun <= {"from epoch 1", "from epoch 2", "from epoch 3"} and len(begun) == 1
    for mine, other in zip(found, expected, strict=True):
        for a, b in zip(mine, other, strict=True):
            np.testing.assert_array_equal(a, b)
