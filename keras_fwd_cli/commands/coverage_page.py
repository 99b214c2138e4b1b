"""The page that says what the conformance suite covers, from the results of its run."""

import importlib.metadata

ORDER = "Layers|Activations|Losses|keras.ops|TensorFlow ops|Models|Applications".split("|")
MODES = {"graph": "graph", "eager": "eager", "xla": "XLA"}
KINDS = ["exact", "LeakError", "wrong", "error"]

INTRODUCTION = """\
# Coverage

Written by `keras-fwd coverage` from what the suite in `tests/conformance/` finds, with TensorFlow
{tensorflow} and Keras {keras}; do not edit.

* **exact**: agrees with central differences in float64, and the adjoint gap is zero.
* **LeakError**: refused, with the name of the op at fault.
* **wrong**: a number that is not the derivative. **error**: fails in some other way.
* **listed**: there is nothing to differentiate, for the reason given. **not covered**: the suite
  does not know that name yet.

*By*: what is differentiated by, inputs or weights. *Run*: the highest order in each mode. Order 1
is `jvp` and `linearize`; order 2 is `jvp` of `jvp` and the gradient of `⟨w, J u⟩`; order 3 is `jvp`
of `jvp` of `jvp`.
"""


def page(families):
    """The text of the page.

    Args:
        families: Dict from the names of families to what `coverage` read of their results.
    """
    versions = {name: importlib.metadata.version(name) for name in ("tensorflow", "keras")}
    lines = [INTRODUCTION.format(**versions), *_summary(families)]
    for name, family in families.items():
        lines += ["", f"## {name}", ""]
        lines += ["| name | by | order 1 | order 2 | order 3 | run | note |", "|---|" + "---|" * 6]
        lines += [_line(row) for row in family["rows"]]
        lines += [
            f"| {name} | | **not covered** | | | | |" for name in family.get("not covered", [])
        ]
        reasons = {}
        for entry in family.get("listed", []):
            reasons.setdefault(entry["reason"], []).append(f"`{entry['name']}`")
        lines += ["", "Listed:", ""] if reasons else []
        lines += [f"* {reason}: {', '.join(sorted(names))}" for reason, names in reasons.items()]
    return "\n".join(lines) + "\n"


def _summary(families):
    columns = [*KINDS, "listed", "not covered"]
    lines = ["| family | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    totals = [0] * len(columns)
    for name, family in families.items():
        kinds = [_kind(row) for row in family["rows"]]
        counts = [kinds.count(kind) for kind in KINDS]
        counts += [len(family.get(key, [])) for key in ("listed", "not covered")]
        totals = [total + count for total, count in zip(totals, counts, strict=True)]
        lines.append(f"| {name} | " + " | ".join(map(str, counts)) + " |")
    return [*lines, "| **all** | " + " | ".join(map(str, totals)) + " |"]


def _kind(row):
    """The worst that any mode and order shows."""
    found = {
        outcome.partition(":")[0]
        for orders in row["outcomes"].values()
        for outcome in orders.values()
    }
    return max(found, key=KINDS.index, default="error")


def _line(row):
    outcomes = row["outcomes"]
    cells = [_cell({m: outcomes[m].get(k) for m in MODES if m in outcomes}) for k in "123"]
    run = ", ".join(f"{MODES[m]} {max(outcomes[m])}" for m in MODES if m in outcomes)
    return (
        "| "
        + " | ".join([row["name"].replace("|", "\\|"), row["wrt"], *cells, run, row["note"]])
        + " |"
    )


def _cell(by_mode):
    """One outcome if all modes agree, else each with its modes."""
    modes = {}
    for mode, outcome in by_mode.items():
        if outcome:
            modes.setdefault(_short(outcome), []).append(MODES[mode])
    if len(modes) == 1:
        return next(iter(modes))
    return "; ".join(f"{outcome} ({', '.join(names)})" for outcome, names in modes.items()) or "–"


def _short(outcome):
    """Without what differs from run to run."""
    kind, _, rest = outcome.partition(": ")
    if kind == "LeakError":
        return f"LeakError `{rest}`"
    if kind == "error":
        return f"**error** {rest.partition(':')[0]}"
    return f"**{kind}**" if kind == "wrong" else kind
