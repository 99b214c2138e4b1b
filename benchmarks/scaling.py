"""How derivatives, training steps and reports grow with the size of net, batch and data.

Dense tanh nets; one of width, depth, batch, features, outputs grows by doubling, the others stay.
Milliseconds are medians, by turns with a forward pass and a gradient of the same net. The exponent
b of time ~ size^b is the slope of a least-squares line through the logarithms, with its standard
error: it holds where it was measured, and small sizes flatten it. Then steps of training under
`tf.distribute.MirroredStrategy` on 1 and 2 virtual CPU devices, which share the cores: the same
batch, so that what the second adds is what replicas cost.

    python benchmarks/scaling.py [--seconds 1] [--points 5] [--quick]
"""

import argparse
import json
import os
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import record

DEVICES = (1, 2)


def timed(names, sizes, seconds):
    """Milliseconds of each side on one net."""
    import scaling_cases as cases
    import timing

    calls = {name: cases.SIDES[name][0](sizes) for name in names}
    found = timing.medians(calls, 1)
    if rounds := min(50, int(seconds / sum(found.values()))):
        found = timing.medians(calls, rounds, warm=0, settle=rounds > 10)
    return {name: 1e3 * value / cases.SIDES[name][1] for name, value in found.items()}


def grown(group, options):
    """`(size that grows, its value, milliseconds by side)` for each net of a group."""
    import scaling_cases as cases

    names, base, axes = cases.GROUPS[group]
    known = {}  # the net that all axes share is timed once
    for axis, values in axes.items():
        if options.quick:  # one exponent in all
            more = [2 * base[axis]] if group == next(iter(cases.GROUPS)) else []
            values = [base[axis], *more] if axis == "width" else []
        for value in values[: options.points]:
            sizes = {**base, axis: value}
            key = tuple(sizes.values())
            if key not in known:
                known[key] = timed(names, sizes, options.seconds)
            yield axis, value, known[key]


def fitted(sizes, values):
    """Exponent of a power law and its standard error; None where there are too few points."""
    x, y = np.log(sizes), np.log(values)
    if len(x) < 2:
        return None, None
    x = x - x.mean()
    slope = x @ y / (x @ x)
    if len(x) < 3:
        return slope, None
    rest = y - y.mean() - slope * x
    return slope, np.sqrt(rest @ rest / (len(x) - 2) / (x @ x))


def exponents(found, group, points, base):
    """Two tables of a group: exponents of the time, and of the time in gradients."""
    import scaling_cases as cases

    axes = list(dict.fromkeys(axis for axis, _, _ in points))
    at = ", ".join(f"{axis} {base[axis]}" for axis in cases.SIZES)
    ranges = {axis: [value for a, value, _ in points if a == axis] for axis in axes}
    columns = [f"{axis} {min(v)} to {max(v)}" for axis, v in ranges.items()]
    for what, unit in (("time", None), ("time in gradients", "gradient")):
        title = f"{group.capitalize()}: exponents of {what}, around {at}"
        table = found.table(title, "", *columns)
        for name in points[0][2]:
            if name == unit:
                continue
            cells = []
            for axis in axes:
                ms = [row[name] / (row[unit] if unit else 1.0) for a, _, row in points if a == axis]
                slope, error = fitted(ranges[axis], ms)
                shown = "" if slope is None else f"{slope:.2f}"
                cells.append(shown if error is None else f"{shown} ± {error:.2f}")
            table.add(name, *cells)


def alone(found, options):
    """One device: all groups."""
    import scaling_cases as cases

    columns = "group", "side", "size", ("value", "d"), ("ms", ".3f")
    data = found.table("Points", *columns, shown=False)
    for group, (_, base, _) in cases.GROUPS.items():
        points = []
        for axis, value, row in grown(group, options):
            points.append((axis, value, row))
            for name, ms in row.items():
                data.add(group, name, axis, value, ms)
        at_base = next(row for axis, value, row in points if base[axis] == value)
        sizes = ", ".join(f"{axis} {base[axis]}" for axis in cases.SIZES)
        heads = ("ms", ".2f"), ("forward passes", ".1f"), ("gradients", ".1f")
        table = found.table(f"{group.capitalize()}: {sizes}", "", *heads)
        for name, ms in at_base.items():
            table.add(name, ms, *(ms / at_base[other] for other in cases.BASELINES))
        exponents(found, group, points, base)


def several(found, options):
    """Training steps on as many virtual devices, each count in a process of its own."""
    counts = [f"{count} device{'s' * (count > 1)}, ms" for count in DEVICES]
    title = "Steps of the same batch under MirroredStrategy, virtual devices that share the cores"
    table = found.table(title, "", *((name, ".1f") for name in counts), ("ratio", ".2f"))
    runs = []
    for count in DEVICES:
        command = [sys.executable, __file__, "--devices", str(count)]
        command += ["--quick"] if options.quick else []
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    for name in runs[0]:
        values = [run[name] for run in runs]
        table.add(name, *values, values[-1] / values[0])


def main():
    parser = record.parser(__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="for the sides of one net")
    parser.add_argument("--points", type=int, default=5, help="of each size, 3 at least")
    parser.add_argument("--devices", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.devices:
        import scaling_devices

        found = scaling_devices.milliseconds(options.devices, options.quick)
        print(json.dumps(found))
        return
    found = record.Record()
    alone(found, options)
    several(found, options)
    found.finish(options, width=150)


if __name__ == "__main__":
    main()
