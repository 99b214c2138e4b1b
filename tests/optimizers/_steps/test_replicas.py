"""Training on several devices: two of the CPU, in a process of their own; and in two processes."""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys

import pytest

from keras_fwd.optimizers._kronecker.factors import Factors
from keras_fwd.optimizers._steps import replicas

TESTS = pathlib.Path(__file__).parents[2]
SLOW = [
    "dense",
    "dual converged",
    "iterative",
    "repelled",
    "jagged halved",
    "nowhere",
    "adaptive rejected",
    "empirical embedded averaged",
    "normalized uneven monte_carlo",
    "not_finite traced",
]


@pytest.mark.parametrize(
    "cases", ["refused fixed", *(pytest.param(cases, marks=pytest.mark.slow) for cases in SLOW)]
)
def test_two_replicas_take_the_steps_of_one(cases):
    assert_succeeds(start(cases.split()))


@pytest.mark.slow
def test_two_workers_take_the_steps_of_one():
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(2)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    config = {"cluster": {"worker": addresses}}
    tasks = [{"type": "worker", "index": i} for i in range(2)]
    started = [start(["workers"], TF_CONFIG=json.dumps({**config, "task": task})) for task in tasks]
    try:
        for process in started:
            assert_succeeds(process)
    finally:  # one that waits for the other would wait for long
        for process in started:
            process.kill()


def start(arguments, **environment):
    path = os.pathsep.join([str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-m", "support.replica_cases", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path, **environment},
    )


def assert_succeeds(process):
    try:
        _, errors = process.communicate(timeout=500)
    finally:
        process.kill()
    assert process.returncode == 0, errors[-4000:]


class State:
    def __init__(self, cost):
        self.cost = cost


def test_the_work_of_inverses_is_shared(monkeypatch):
    monkeypatch.setattr(replicas, "count", lambda: 3)
    factors = Factors.__new__(Factors)
    factors.states = [State(cost) for cost in (9, 8, 7, 6, 5, 4, 3, 2, 1)]
    turns = factors._turns(1)
    loads = [
        sum(s.cost for s, t in zip(factors.states, turns, strict=True) if t == (0, i))
        for i in range(3)
    ]
    assert sum(loads) == 45 and max(loads) - min(loads) <= 2
    phases = [phase for phase, _ in factors._turns(9)]
    assert sorted(phases) == list(range(9))
    assert len({owner for _, owner in factors._turns(9)}) == 3


def test_one_replica_sends_nothing():
    tensors = [object()]
    assert replicas.sums(tensors) is tensors and replicas.means(tensors) is tensors
    assert (replicas.count(), replicas.index(), replicas.own_seed(7)) == (1, 0, 7)
