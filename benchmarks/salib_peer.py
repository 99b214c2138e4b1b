"""The peer of `sensitivity_salib.py --salib`: SALib's points, and what it makes of a model there.

    python salib_peer.py sample CASE.npz
    python salib_peer.py analyze CASE.npz

`sample` prints nothing and adds the points `x` to the file; `analyze` prints E[(∂y/∂x)²] of each
input as JSON.
"""

import json
import sys

import numpy as np
from SALib.analyze import dgsm
from SALib.sample import finite_diff


def main(what, path):
    given = dict(np.load(path))
    count = int(given["count"])
    bounds = [[float(given["low"]), float(given["high"])]] * count
    problem = {"num_vars": count, "names": [f"x{i}" for i in range(count)], "bounds": bounds}
    if what == "sample":
        points, delta = int(given["points"]), float(given["delta"])
        given["x"] = finite_diff.sample(problem, points, delta=delta, seed=0)
        np.savez(path, **given)
    else:
        found = dgsm.analyze(problem, given["x"], given["y"], seed=0)["vi"]
        print(json.dumps(np.array(found, float).tolist()))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
