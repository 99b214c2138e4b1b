"""DGSM against SALib on the same samples: Ishigami's function and Sobol's g-function.

    pip install -r benchmarks/requirements-salib.txt
    python benchmarks/sensitivity_salib.py

SALib takes finite differences of step δ: its error falls with δ, ours has none. Shown are the
largest relative difference between SALib's and our E[(∂y/∂x)²] over the inputs, for two steps, and
the number of model evaluations; then both against the closed form.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import importlib.metadata

import numpy as np
import sobol_functions
from SALib.analyze import dgsm
from SALib.sample import finite_diff

import keras_fwd

POINTS = 4096


def compare(name, known):
    count, model = len(known.dgsm), known.model()
    bounds = [[known.low, known.high]] * count
    problem = {"num_vars": count, "names": [f"x{i}" for i in range(count)], "bounds": bounds}
    marginals = ("uniform", known.low, known.high)
    for delta in (1e-2, 1e-4):
        x = finite_diff.sample(problem, POINTS, delta=delta, seed=0)
        y = model.predict(x, batch_size=4096, verbose=0)[:, 0]
        theirs = np.array(dgsm.analyze(problem, x, y, seed=0)["vi"], float)
        base = x[:: count + 1]
        report = keras_fwd.sensitivity_report(model, base, marginals=marginals)
        ours, stderr = report.dgsm[:, 0], report.measures["dgsm"].stderr[:, 0]
        apart = np.max(np.abs(theirs / ours - 1))
        off = np.max(np.abs(ours - known.dgsm) / stderr)
        print(
            f"  {name:<12}{delta:>8.0e}{len(x):>12}{len(base):>10}{apart:>14.1e}{off:>18.1f}",
            flush=True,
        )


def main():
    print(f"SALib {importlib.metadata.version('salib')}, {POINTS} points")
    head = ("function", "step", "their calls", "ours", "difference", "ours off, s.e.")
    print("  {:<12}{:>8}{:>12}{:>10}{:>14}{:>18}".format(*head))
    compare("Ishigami", sobol_functions.ishigami())
    compare("g-function", sobol_functions.g_function())


if __name__ == "__main__":
    main()
