"""Training that is killed at any moment, while it saves too, goes on to the same weights.

Bit for bit: one thread for each op, data in a fixed order, steps that nothing but the saved state
enters. What Keras itself does not save or saves in two parts is told in `killed_case.py`.
"""

import multiprocessing
import os
import pathlib
import time

import numpy as np
import pytest

from faults import killed_case

pytestmark = pytest.mark.slow
HERE = pathlib.Path(__file__).parent
COMBINATIONS = [(kind, way) for way in killed_case.WAYS for kind in killed_case.KINDS]
SEEDS = 50


@pytest.fixture(scope="module")
def server():
    """Forks processes in which TensorFlow is imported, but has not started."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["faults.killed_case"])
    with pytest.MonkeyPatch.context() as patch:
        paths = [str(HERE.parent), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
        patch.setenv("CUDA_VISIBLE_DEVICES", "-1")
        context.Process(target=os.getpid).start()  # the server starts with the first, and stays
    return context


@pytest.fixture(scope="module")
def expected(server):
    """The weights at the end of a training that nothing disturbs."""
    known = {}

    def weights(kind):
        if kind not in known:
            known[kind] = life(server, kind, None, None)
        return known[kind]

    return weights


def life(server, kind, way, folder, kill=None):
    """The weights that a process ends with; None if it was killed.

    Args:
        kill: After which event of which name (its number, from 0), and how many seconds later.
    """
    receiving, sending = server.Pipe(duplex=False)
    process = server.Process(target=killed_case.live, args=(kind, way, folder, sending))
    process.start()
    sending.close()
    seen = []
    try:
        while not isinstance(message := receiving.recv(), list):
            if isinstance(message, Exception):
                raise message
            if kill is not None and message == kill[0] and seen.count(message) == kill[1]:
                time.sleep(kill[2])
                process.kill()
                return None
            seen.append(message)
        return message
    finally:
        process.kill()
        process.join()


def moment(random, steps):
    """When to kill: in the middle of saving, or anywhere."""
    event = random.choice(["epoch", "epoch", "batch", "batch", "start"])
    count = {"epoch": killed_case.EPOCHS, "batch": steps, "start": 1}[event]
    delay = {"epoch": 0.06, "batch": 0.06, "start": 3.0}[event]
    return str(event), int(random.integers(count)), random.uniform(0, delay)


@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(
            seed,
            marks=pytest.mark.recorded(
                "killed trainings", kind=COMBINATIONS[seed % len(COMBINATIONS)][1]
            ),
        )
        for seed in range(SEEDS)
    ],
)
def test_a_killed_training_goes_on_to_the_same_weights(
    seed, server, expected, tmp_path, record_property
):
    random = np.random.default_rng(seed)
    kind, way = COMBINATIONS[seed % len(COMBINATIONS)]
    kills = [moment(random, killed_case.BATCHES * killed_case.EPOCHS)]
    if seed % 5 < 2:
        kills.append(moment(random, killed_case.BATCHES))
    for kill in [*kills, None]:
        found = life(server, kind, way, tmp_path / "saved", kill)
        if found is not None:  # the kill came too late
            break
    record_property("found", {f"{way}: {'killed' if kill is None else 'at its end before'}": 1})
    for a, b in zip(found, expected(kind), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=f"{kind}, {way}, {kills}")
