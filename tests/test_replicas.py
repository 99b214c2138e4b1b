"""`KFAC` on several devices: two of the CPU, in a process of their own."""

import os
import pathlib
import subprocess
import sys

import pytest

from keras_fwd.optimizers import replicas
from keras_fwd.optimizers.factors import Factors

HERE = pathlib.Path(__file__).parent
SLOW = [
    "adaptive rejected",
    "empirical embedded averaged",
    "normalized uneven monte_carlo",
    "not_finite traced",
]


@pytest.mark.parametrize(
    "cases", ["refused fixed", *(pytest.param(cases, marks=pytest.mark.slow) for cases in SLOW)]
)
def test_two_replicas_take_the_steps_of_one(cases):
    command = [sys.executable, str(HERE / "replica_cases.py"), *cases.split()]
    path = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path}
    )
    assert done.returncode == 0, done.stderr[-4000:]


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
