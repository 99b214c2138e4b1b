"""What the quickstart promises, at the strength of the benchmark: GaussNewton ahead of Adam."""

import importlib.util
import itertools
from pathlib import Path

import keras
import pytest
from support import extras

import keras_fwd

extras.needed("mlxtend", "examples")
PATH = Path(__file__).resolve().parents[2] / "benchmarks" / "autompg.py"


@pytest.mark.slow
def test_fifty_epochs_of_gauss_newton_beat_two_thousand_of_the_best_adam(monkeypatch):
    monkeypatch.syspath_prepend(str(PATH.parent))  # of what the benchmarks share
    spec = importlib.util.spec_from_file_location("autompg_benchmark", PATH)
    assert spec is not None and spec.loader is not None
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    rows = len(benchmark.data()[0])
    ours, _ = benchmark.train(keras_fwd.GaussNewton(), 50, rows, seed=0)
    adams = [
        benchmark.train(keras.optimizers.Adam(rate), 2000, batch, seed=0)[0]
        for batch, rate in itertools.product((rows, 32), benchmark.RATES)
    ]
    assert ours < min(adams)
