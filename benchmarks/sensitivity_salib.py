"""DGSM against SALib on the same samples: Ishigami's function and Sobol's g-function.

SALib takes finite differences of step δ: its error falls with δ, ours has none. Shown are the
largest relative difference between SALib's and our E[(∂y/∂x)²] over the inputs, for two steps, and
the number of model evaluations; then how far ours is from the closed form. Without SALib the points
are drawn evenly. The peer lives in an environment of its own (requirements-salib.txt).

    python benchmarks/sensitivity_salib.py [--salib PYTHON] [--points 4096]
"""

import json
import os
import pathlib
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests"))

import numpy as np
import record
from support import sobol_functions

import keras_fwd

HERE = pathlib.Path(__file__).resolve().parent
STEPS = (1e-2, 1e-4)


def sampled(python, known, points, delta):
    """SALib's points `[·, inputs]`, of which every (inputs + 1)th is ours, and its DGSM or None."""
    count, model = len(known.dgsm), known.model()
    if not python:
        x = np.random.default_rng(0).uniform(known.low, known.high, (points, count))
        return x, x, None
    path = HERE.parent / "build" / "salib.npz"
    path.parent.mkdir(exist_ok=True)
    problem = {"count": count, "low": known.low, "high": known.high}
    np.savez(path, points=points, delta=delta, **problem)

    def ask(what):
        command = [python, str(HERE / "salib_peer.py"), what, str(path)]
        return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout

    ask("sample")
    given = dict(np.load(path))
    y = model.predict(given["x"], batch_size=4096, verbose=0)[:, 0]
    np.savez(path, **given, y=y)
    return given["x"], given["x"][:: count + 1], np.array(json.loads(ask("analyze")))


def compare(table, name, known, options):
    """Rows of the table; the largest distance from the closed form, in standard errors."""
    marginals, off = ("uniform", known.low, known.high), 0.0
    for delta in STEPS if options.salib else (None,):
        x, base, theirs = sampled(options.salib, known, options.points, delta)
        report = keras_fwd.sensitivity_report(known.model(), base, marginals=marginals)
        ours, stderr = report.dgsm[:, 0], report.measures["dgsm"].stderr[:, 0]
        apart = None if theirs is None else np.max(np.abs(theirs / ours - 1))
        off = max(off, np.max(np.abs(ours - known.dgsm) / stderr))
        calls = None if theirs is None else len(x)
        table.add(name, delta, calls, len(base), apart, off)
    return off


def main():
    parser = record.parser(__doc__)
    parser.add_argument("--salib", metavar="PYTHON", help="of the peer's environment")
    parser.add_argument("--points", type=int, default=4096)
    options = parser.parse_args()
    found = record.Record()
    found.peer(options.salib, "salib")
    table = found.table(
        "DGSM, largest difference from SALib",
        "function",
        ("step", ".0e"),
        ("model calls, SALib", "d"),
        ("points, keras_fwd", "d"),
        ("largest relative difference", ".1e"),
        ("ours from the closed form, standard errors", ".1f"),
    )
    off = [
        compare(table, "Ishigami", sobol_functions.ishigami(), options),
        compare(table, "g-function", sobol_functions.g_function(), options),
    ]
    farthest = "largest distance from the closed form, standard errors"
    found.goal(farthest, max(off), at_most=4.0, form=".1f")
    found.finish(options)


if __name__ == "__main__":
    main()
