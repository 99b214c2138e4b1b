"""The figures of `docs/scaling.md`, from the record: time against each size, and in gradients."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

# Okabe and Ito's colors, told apart by every eye; baselines are gray.
COLORS = ["#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#000000"]
GRAY = {"forward pass": "#aaaaaa", "gradient": "#666666"}
UNITS = {"seconds": (None, "ms"), "gradients": ("gradient", "gradients")}


def panels(rows):
    """`{(title, size): {side: (sizes, ms)}}` of the points of a record."""
    found = {}
    for group, side, size, value, ms in rows:
        sides = found.setdefault((group, size), {})
        sizes, times = sides.setdefault(side, ([], []))
        sizes.append(value)
        times.append(ms)
    return found


def draw(points, unit, label, path):
    """One panel for each size of a group; a line for each side, both axes logarithmic."""
    every = panels(points)
    groups = list(dict.fromkeys(group for group, _ in every))
    columns = max(sum(g == group for g, _ in every) for group in groups)
    figure, axes = plt.subplots(
        len(groups),
        columns,
        figsize=(2.6 * columns, 2.9 * len(groups)),
        sharey="row",
        squeeze=False,
    )
    named = [side for sides in every.values() for side in sides if side not in GRAY]
    colors = dict(zip(dict.fromkeys(named), COLORS, strict=False)) | GRAY
    for row, group in zip(axes, groups, strict=True):
        for axis in row:
            axis.set_visible(False)
        sizes = [size for g, size in every if g == group]
        for axis, size in zip(row, sizes, strict=False):
            axis.set_visible(True)
            panel(axis, every[group, size], unit, colors)
            axis.set_xlabel(size)
        row[0].set_ylabel(f"{group}: {label}")
    lines = {line.get_label(): line for axis in axes.flat for line in axis.get_lines()}
    figure.legend(lines.values(), lines.keys(), loc="lower center", ncols=3, frameon=False)
    figure.tight_layout(rect=(0, 0.12, 1, 1))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def panel(axis, sides, unit, colors):
    for side, (sizes, ms) in sides.items():
        if side == unit:
            continue
        values = ms if unit is None else [a / b for a, b in zip(ms, sides[unit][1], strict=True)]
        axis.plot(sizes, values, "o-", color=colors[side], label=side, markersize=3, linewidth=1.5)
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xticks(sizes, [str(size) for size in sizes])
    axis.grid(color="#dddddd", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def write(content, directory):
    """The PNGs of a record."""
    points = next(table["rows"] for table in content["tables"] if table["title"] == "Points")
    directory.mkdir(exist_ok=True)
    for name, (unit, label) in UNITS.items():
        draw(points, unit, label, directory / f"scaling-{name}.png")
