"""What "sensitivity" means here: statistics of d = ∂y/∂x over a data set, defined once.

For one feature x and one output y, with means E, standard deviations σ over the examples:

| measure | formula | reads as |
|---|---|---|
| mean | E[d] | the average effect; effects of opposite sign cancel |
| mean_abs | E[abs(d)] | the average strength, whatever the sign |
| rms | √E[d²] | the strength, with large effects counting more |
| positive | P[d > 0] | how often a larger x means a larger y |
| q05 … q95 | quantiles of d | how the effect differs between examples |
| standardized_… | the first three · σ(x) / σ(y) | without units: features compare |
| elasticity | E[d · x / y] | percent of y for a percent of x; examples with y = 0 left out |
| dgsm | E[d²] | derivative-based global sensitivity measure ν |
| total_index_bound | C(x) E[d²] / σ²(y) | bounds the total Sobol index, x independent |

`C(x)` is the Poincaré constant of the feature's distribution (`poincare.py`).

A *switch* is a discrete feature that moves from one value to another. Its d is the exact difference
of the outputs, y(x with the value b) − y(x with the value a), and no derivative; σ(x) is that of
the indicator of b; elasticity is not defined; and `total_index_bound` is the total index itself,
E[Σᵥ p(v) (y(x with v) − y)²] / (2 σ²(y)), by Jansen's formula over the feature's own frequencies.

References:
    Sobol and Kucherenko, Derivative based global sensitivity measures and their link with global
    sensitivity indices, Mathematics and Computers in Simulation 79 (2009); Lamboni, Iooss, Popelin
    and Gamboa, Derivative-based global sensitivity measures: general links with Sobol' indices and
    numerical tests, same journal 87 (2013); Jansen, Computer Physics Communications 117 (1999).
"""

import numpy as np

__all__ = ["MEASURES", "POOLED", "QUANTILES", "SIGNED", "STANDARDIZED"]

SIGNED = ("mean", "mean_abs", "rms")
QUANTILES = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}
STANDARDIZED = ("standardized_mean", "standardized_mean_abs", "standardized_rms")
#: Every measure, in the order of tables.
MEASURES = (
    *SIGNED,
    "positive",
    *QUANTILES,
    *STANDARDIZED,
    "elasticity",
    "dgsm",
    "total_index_bound",
)
#: Those that compare between outputs, and so may be averaged over them.
POOLED = ("positive", *STANDARDIZED, "total_index_bound")


def of_sums(sums, constants, is_switch):
    """The measures that are functions of sums over examples, but `dgsm`, the square of rms.

    Args:
        sums: Dict of arrays with any leading axes: `"count"` `[…, 1, 1]`, `"d"`, `"abs"`,
            `"square"`, `"elastic"`, `"index"`, `[…, features, outputs]` each, `"nonzero"`
            `[…, 1, outputs]`, and the variances `"var_x"` `[…, features, 1]` and `"var_y"`
            `[…, 1, outputs]`.
        constants: Poincaré constants, `[features, 1]`.
        is_switch: `[features, 1]`.

    Returns:
        Dict of arrays `[…, features, outputs]`.
    """
    count = sums["count"]
    mean, mean_abs, square = (sums[name] / count for name in ("d", "abs", "square"))
    rms = np.sqrt(square)
    ratio = _quotient(np.sqrt(sums["var_x"]), np.sqrt(sums["var_y"]))
    elasticity = _quotient(sums["elastic"], sums["nonzero"] + np.zeros_like(mean))
    bound = _quotient(constants * square, sums["var_y"])
    if "index" in sums:
        bound = np.where(is_switch, _quotient(sums["index"] / count, sums["var_y"]), bound)
    return {
        "mean": mean,
        "mean_abs": mean_abs,
        "rms": rms,
        "standardized_mean": ratio * mean,
        "standardized_mean_abs": ratio * mean_abs,
        "standardized_rms": ratio * rms,
        "elasticity": np.where(is_switch, np.nan, elasticity),
        "total_index_bound": bound,
    }


def pooled(measures):
    """The measures in `POOLED`, averaged over the outputs: rms as a root mean square."""
    return {
        name: np.sqrt(np.mean(np.square(values), axis=-1, keepdims=True))
        if name == "standardized_rms"
        else np.mean(values, axis=-1, keepdims=True)
        for name, values in measures.items()
        if name in POOLED
    }


def shares(found, inside, counted):
    """Some features' share of the strengths of groups: a dict, `[…, groups, outputs]` each.

    Args:
        found: Measures of these features.
        inside: 1 where a feature belongs to a group, `[groups, features]`.
        counted: Which features count in the sum of total indices: of the switches of one discrete
            feature, which all carry its index, only one.
    """
    if not len(inside):
        return {}
    squares = np.square(found["standardized_rms"])
    return {
        "standardized_rms": inside @ squares,
        # NaN is of features that the bound is not defined for; they add nothing to it.
        "total_index_bound": (inside * counted) @ np.nan_to_num(found["total_index_bound"]),
    }


def of_groups(parts):
    """Measures of groups of features, `[…, groups, outputs]`, from the shares of all features.

    Root of the sum of squared standardized rms: the typical size of a gradient by all of them; and
    the sum of the bounds, which bounds the total index of the group (independent features).
    """
    totals = {name: sum(part[name] for part in parts) for name in parts[0]}
    if "standardized_rms" in totals:
        totals["standardized_rms"] = np.sqrt(totals["standardized_rms"])
    return totals


def _quotient(numerator, denominator):
    """The quotient; 0 / 0 is 0 (what is constant has no effect), others by 0 are NaN."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    with np.errstate(divide="ignore", invalid="ignore"):
        quotient = numerator / denominator
    quotient = np.where(denominator == 0, np.nan, quotient)
    return np.where((denominator == 0) & (numerator == 0), 0.0, quotient)
