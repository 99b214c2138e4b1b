"""Figures of sensitivity reports: what is drawn is what the report holds, and all can be drawn."""

import dataclasses
import io
import itertools
import sys

import matplotlib.colors
import numpy as np
import pytest
from support.report_cases import made_up_report

from keras_fwd import ConfigurationError
from keras_fwd.sensitivity._showing import figures, maps, swarm
from keras_fwd.sensitivity._showing.plots import KINDS, plot
from keras_fwd.sensitivity._statistics.estimates import Estimate, Interactions, Sample


def drawn(figure):
    """The figure as the bytes of a picture: laid out and drawn in full."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=30)
    return buffer.getvalue()


def names_of_rows(axes):
    return [text.get_text() for text in axes.get_yticklabels()]


def said(figure):
    """The caption in one line."""
    return figure.get_supxlabel().replace("\n", " ")


def with_measure(report, name, value, spread=0.1, pooled=False):
    value = np.asarray(value, float)
    estimate = Estimate(value, np.full(value.shape, spread / 2), value - spread, value + spread)
    part = "pooled" if pooled else "measures"
    return dataclasses.replace(report, **{part: {**getattr(report, part), name: estimate}})


# Every kind can be drawn -----------------------------------------------------------------------

AWKWARD = (
    "$x",
    "a $\\frac{1}$ $",
    "<b>&amp;",
    "two\nlines",
    "long " * 50,
    "",
    r"\$",
    "x_1^2",
    "%s{}",
)


def awkward(features, outputs, **options):
    """Names that break markup, switches, NaN and an empty interval."""
    names = [f"{name}{i}" for i, name in zip(range(features), itertools.cycle(AWKWARD))]
    report = made_up_report(
        features,
        outputs,
        evolution=3,
        feature_names=tuple(names),
        output_names=tuple(itertools.islice(itertools.cycle(AWKWARD), outputs)),
        kinds=("switch", *["derivative"] * (features - 1)),
        **options,
    )
    report.sample.features[:, 0] = np.nan
    report.measures["mean"].low[-1] = report.measures["mean"].high[-1] = np.nan
    if features > 2:
        report.measures["standardized_rms"].value[1, 0] = np.nan
        report.measures["standardized_rms"].low[2, 0] = np.nan
    return report


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("features, outputs", [(9, 1), (30, 6)])
def test_every_kind_is_drawn_whatever_the_names(kind, features, outputs):
    figure = plot(awkward(features, outputs), kind)
    assert drawn(figure).startswith(b"\x89PNG")
    assert figure.get_suptitle() and said(figure)


@pytest.mark.parametrize("kind", ["bar", "beeswarm", "heatmap"])
def test_one_feature_and_one_example_are_drawn(kind):
    report = made_up_report(1, 1, sample=1, interactions=None)
    nan = np.full((1, 1), np.nan)
    for name, estimate in report.measures.items():
        report.measures[name] = Estimate(estimate.value, nan, nan, nan)
    assert drawn(plot(report, kind))


@pytest.mark.parametrize(
    "shapes",
    [[(8, 8)], [(3, 4, 3), (2, 2, 1)], [(12, 1)], [(12, 3), (10, 1)], [(2, 3), (4,)]],
    ids=str,
)
@pytest.mark.parametrize("measure", ["standardized_rms", "mean"])
def test_inputs_of_every_shape_are_drawn(shapes, measure):
    report = made_up_report(sum(map(np.prod, shapes)), 2, inputs=shapes, sample=0)
    assert drawn(plot(report, "heatmap", measure=measure))


def test_no_pyplot_and_no_window(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    for kind in KINDS:
        plot(made_up_report(evolution=2), kind)


def test_notebooks_show_the_figure():
    assert plot(made_up_report(), "bar")._repr_png_().startswith(b"\x89PNG")


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match="plot needs matplotlib: run `pip install matplotlib`"):
        plot(made_up_report(), "bar")


# What is drawn is what the report holds --------------------------------------------------------


def test_bars_are_the_values_the_strongest_first_with_their_intervals():
    report = with_measure(made_up_report(4, 1), "rms", [[1.0], [4.0], [np.nan], [2.0]], 0.25)
    figure = plot(report, "bar", measure="rms")
    (axes,) = figure.axes
    assert [patch.get_width() for patch in axes.patches] == [4.0, 2.0, 1.0]
    assert names_of_rows(axes) == ["feature 1", "feature 3", "feature 0"]
    segments = axes.collections[0].get_segments()
    np.testing.assert_allclose(
        [segment[:, 0] for segment in segments], [[3.75, 4.25], [1.75, 2.25], [0.75, 1.25]]
    )
    assert "95 % confidence intervals over 100 examples" in said(figure)
    assert "3 of 4 features shown" in said(figure)
    assert "output units per feature unit" in axes.get_xlabel()


def test_bars_have_the_color_of_the_direction_and_switches_are_hatched():
    kinds = ("derivative", "derivative", "derivative", "switch")
    report = with_measure(made_up_report(4, 1, kinds=kinds), "rms", [[4.0], [3.0], [2.0], [1.0]])
    report = with_measure(report, "mean", [[1.0], [-1.0], [0.05], [1.0]])
    figure = plot(report, "bar", measure="rms")
    patches = figure.axes[0].patches
    colors = [matplotlib.colors.to_hex(patch.get_facecolor()).upper() for patch in patches]
    assert colors == [figures.UP, figures.DOWN, figures.UNCLEAR, figures.UP]
    assert [bool(patch.get_hatch()) for patch in patches] == [False, False, False, True]
    words = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert words == [
        "raises the output",
        "lowers the output",
        "no clear direction",
        "switch of a value",
    ]
    assert "exact effect of the change of value" in said(figure)


def test_bars_of_several_outputs_are_pooled_where_they_can_be():
    report = with_measure(made_up_report(2, 3), "standardized_rms", [[1.0], [2.0]], pooled=True)
    figure = plot(report, "bar")
    assert [patch.get_width() for patch in figure.axes[0].patches] == [2.0, 1.0]
    assert figure.get_suptitle() == "Sensitivity: all outputs pooled"
    report = with_measure(report, "standardized_rms", [[5.0, 0, 0], [3.0, 7.0, 0]])
    figure = plot(report, "bar", output="output 1")
    assert [patch.get_width() for patch in figure.axes[0].patches] == [7.0, 0.0]
    assert figure.get_suptitle() == "Sensitivity: output 1"


def test_bars_of_several_outputs_stand_side_by_side_where_they_cannot():
    report = with_measure(made_up_report(2, 6), "mean", [[1.0] * 6, [2, 0, -3, 0, 0, 9]])
    figure = plot(report, "bar", measure="mean")
    assert [[p.get_width() for p in axes.patches] for axes in figure.axes] == [
        [2.0, 1.0],
        [0.0, 1.0],
        [-3.0, 1.0],
        [0.0, 1.0],
    ]
    assert [axes.get_title() for axes in figure.axes] == [f"output {k}" for k in range(4)]
    assert "4 of 6 outputs shown. Choose one by output=." in said(figure)


def test_output_can_be_chosen_by_its_index_from_either_end():
    report = made_up_report(2, 3)
    for output, name in ((0, "output 0"), (np.int64(1), "output 1"), (-1, "output 2")):
        assert plot(report, "bar", output=output).get_suptitle().endswith(name)


def test_top_rows_are_the_strongest():
    report = with_measure(made_up_report(50, 1), "rms", np.arange(50.0)[:, None])
    figure = plot(report, "bar", measure="rms", top=3)
    assert names_of_rows(figure.axes[0]) == ["feature 49", "feature 48", "feature 47"]
    assert "3 of 50 features shown" in said(figure)


def test_a_negative_mean_can_be_the_strongest():
    report = with_measure(made_up_report(3, 1), "mean", [[1.0], [-4.0], [0.0]])
    figure = plot(report, "bar", measure="mean")
    assert names_of_rows(figure.axes[0]) == ["feature 1", "feature 0", "feature 2"]


def test_colors_reach_from_the_5_to_the_95_percent_quantile():
    report = made_up_report(1, 1, sample=101)
    report.sample.features[:, 0] = np.arange(101.0) * 1000
    shade = plot(report, "beeswarm").axes[0].collections[1].get_array()
    np.testing.assert_allclose(shade, np.clip((np.arange(101.0) - 5) / 90, 0, 1), atol=1e-12)


def test_dots_are_standardized_derivatives_colored_by_the_value():
    sample = Sample(
        np.array([[1.0, np.nan], [2.0, np.nan], [3.0, np.nan]]),
        np.array([[[1.0], [0.1]], [[2.0], [0.2]], [[-3.0], [np.inf]]]),
    )
    report = made_up_report(2, 1, sample=0, kinds=("derivative", "switch"))
    report = dataclasses.replace(
        report, sample=sample, feature_std=np.array([2.0, 1.0]), output_std=np.array([4.0])
    )
    report = with_measure(report, "standardized_rms", [[2.0], [1.0]])
    figure = plot(report, "beeswarm")
    none, first, gray, last = figure.axes[0].collections
    np.testing.assert_allclose(first.get_offsets()[:, 0], [0.5, 1.0, -1.5])
    assert first.get_array()[0] == 0 and first.get_array()[2] == 1
    np.testing.assert_allclose(gray.get_offsets()[:, 0], [0.025, 0.05])
    assert len(none.get_offsets()) == len(last.get_offsets()) == 0
    assert (np.abs(first.get_offsets()[:, 1]) < 0.5).all()
    assert (np.abs(gray.get_offsets()[:, 1] - 1) < 0.5).all()
    assert names_of_rows(figure.axes[0]) == ["feature 0", "feature 1"]
    assert "Gray: no number." in said(figure) and "one of 3 examples" in said(figure)


def test_dots_at_one_place_do_not_hide_each_other():
    offsets = swarm.stacked(np.zeros(501), -1.0, 1.0)
    assert len(np.unique(offsets)) == 501
    assert offsets.min() == -1.0 and offsets.max() == 1.0
    assert not swarm.stacked(np.array([0.0, 1.0]), 0.0, 1.0).any()
    assert not swarm.stacked(np.zeros(0), 0.0, 0.0).size


def test_a_constant_output_has_no_standardized_derivative():
    report = made_up_report(2, 1, output_std=np.zeros(1))
    dots = plot(report, "beeswarm").axes[0].collections
    assert not any(part.get_offsets()[:, 0].any() for part in dots)


def test_heat_map_holds_the_measure():
    value = np.array([[1.0, -2.0], [5.0, np.nan], [0.0, 1.0]])
    report = with_measure(made_up_report(3, 2), "mean", value)
    figure = plot(report, "heatmap", measure="mean")
    axes = figure.axes[0]
    shown = axes.images[0].get_array()
    np.testing.assert_array_equal(shown.filled(99), [[5.0, 99], [1.0, -2.0], [0.0, 1.0]])
    assert axes.images[0].get_clim() == (-5.0, 5.0)
    assert names_of_rows(axes) == ["feature 1", "feature 0", "feature 2"]
    assert [t.get_text() for t in axes.texts] == ["5.00", "–", "1.00", "-2.00", "0", "1.00"]
    assert "Gray: not defined." in said(figure)


def test_image_is_shown_in_its_shape_with_one_scale():
    report = made_up_report(50, 2, inputs=[(5, 5, 2)])
    figure = plot(report, "heatmap", measure="rms")
    channels = report.measures["rms"].value.reshape(5, 5, 2, 2)
    expected = np.sqrt(np.square(channels).sum(axis=2))
    for k in range(2):
        np.testing.assert_allclose(figure.axes[k].images[0].get_array(), expected[..., k])
    assert figure.axes[0].images[0].get_clim() == figure.axes[1].images[0].get_clim()
    assert figure.axes[0].images[0].get_clim() == (0.0, expected.max())
    assert "Channels together: root of the sum of squares." in said(figure)


def test_images_of_many_outputs_are_cut():
    figure = plot(made_up_report(36, 40, inputs=[(6, 6)]), "heatmap")
    assert sum(len(axes.images) for axes in figure.axes) == 12
    assert "12 of 40 outputs shown" in said(figure)


def test_sequence_of_one_channel_is_a_line_with_a_band():
    report = made_up_report(12, 2, inputs=[(12, 1)])
    figure = plot(report, "heatmap", measure="mean", output=1)
    axes = figure.axes[0]
    line = next(line for line in axes.lines if len(line.get_xdata()) == 12)
    np.testing.assert_array_equal(line.get_ydata(), report.measures["mean"].value[:, 1])
    low = report.measures["mean"].low[:, 1]
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert np.isclose(band.min(), low.min())


def test_sequence_of_several_channels_is_a_map():
    report = made_up_report(24, 1, inputs=[(8, 3)])
    shown = plot(report, "heatmap").axes[0].images[0].get_array()
    expected = report.measures["standardized_rms"].value.reshape(8, 3).T
    np.testing.assert_array_equal(shown, expected)


def test_interactions_are_pairs_of_names_the_strongest_first():
    report = made_up_report(3, 1)
    value = np.array([[1.0], [3.0]])
    estimate = Estimate(value, value, value - 0.5, value + 0.5)
    pairs = Interactions(np.array([[0, 1], [2, 0]]), {"standardized_rms": estimate}, 50)
    figure = plot(dataclasses.replace(report, interactions=pairs), "interactions")
    assert names_of_rows(figure.axes[0]) == ["feature 2 × feature 0", "feature 0 × feature 1"]
    assert [patch.get_width() for patch in figure.axes[0].patches] == [3.0, 1.0]
    assert "over 50 examples" in said(figure)


def test_evolution_is_lines_over_epochs():
    report = made_up_report(9, 1, evolution=4)
    figure = plot(report, "evolution")
    axes = figure.axes[0]
    value = report.evolution.measures["standardized_rms"].value[..., 0]
    order = np.argsort(-value.max(axis=0))
    lines = {line.get_label(): line for line in axes.lines}
    for i in order[:6]:
        np.testing.assert_array_equal(lines[f"feature {i}"].get_ydata(), value[:, i])
        np.testing.assert_array_equal(lines[f"feature {i}"].get_xdata(), range(4))
    assert len(axes.lines) == 9 and len(axes.collections) == 6
    assert axes.get_xlabel() == "epoch (0: before training)"


@pytest.mark.parametrize("seed", range(3))
def test_no_line_leaves_its_panel(seed):
    """The panels share their scale, which must fit each of them."""
    report = made_up_report(12, 4, evolution=5, inputs=[(12, 1)], seed=seed)
    for kind, lines in (("evolution", 12), ("heatmap", 1)):
        panels = [axes for axes in plot(report, kind).axes if axes.lines]
        assert len(panels) == 4
        for axes in panels:
            assert len(axes.lines) == lines
            top = max(max(line.get_ydata()) for line in axes.lines)
            assert axes.get_ylim()[0] == 0 and axes.get_ylim()[1] > top


def test_legend_lies_within_the_figure():
    figure = plot(awkward(30, 1), "bar")
    drawn(figure)
    box = figure.axes[0].get_legend().get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.width


# Maps and profiles -----------------------------------------------------------------------------


def test_maps_have_the_shapes_of_the_inputs():
    report = made_up_report(4 + 6 + 1, 2, inputs=[(4,), (3, 2), ()])
    found = maps.maps(report, "mean")
    assert {name: array.shape for name, array in found.items()} == {
        "input 0": (4, 2),
        "input 1": (3, 2, 2),
        "input 2": (2,),
    }
    np.testing.assert_array_equal(found["input 1"][2, 1], report.measures["mean"].value[4 + 5])


def test_profiles_pool_the_channels():
    report = made_up_report(6 + 2, 2, inputs=[(3, 2), (2,)])
    for name, pool in (("rms", lambda a: np.sqrt((a**2).sum(1))), ("mean", lambda a: a.sum(1))):
        report.measures[name] = report.measures[name].map(
            lambda a, n=name: abs(a) if n == "rms" else a
        )
        found = maps.profiles(report, name)
        assert list(found) == ["input 0"]
        for part, array in zip(("value", "low", "high"), found["input 0"], strict=True):
            expected = pool(getattr(report.measures[name], part)[:6].reshape(3, 2, 2))
            np.testing.assert_allclose(array, expected, rtol=1e-12)


def test_an_interval_below_zero_of_a_root_mean_square_ends_there():
    report = with_measure(made_up_report(4, 1, inputs=[(2, 2)]), "rms", np.full((4, 1), 1.0), 3.0)
    value, low, high = maps.profiles(report, "rms")["input 0"]
    np.testing.assert_array_equal(low, 0.0)
    np.testing.assert_allclose(value, np.sqrt(2.0))
    np.testing.assert_allclose(high, np.sqrt(32.0))


def test_profile_of_one_channel_is_the_measure_itself():
    report = made_up_report(5, 1, inputs=[(5, 1)])
    for name in ("q05", "rms"):
        value, low, high = maps.profiles(report, name)["input 0"]
        for array, part in ((value, "value"), (low, "low"), (high, "high")):
            np.testing.assert_array_equal(array, getattr(report.measures[name], part))


def test_quantiles_of_several_channels_have_no_profile():
    report = made_up_report(6, 1, inputs=[(3, 2)])
    with pytest.raises(ConfigurationError, match="channels of 'input 0' together: `measure` must"):
        maps.profiles(report, "q50")


@pytest.mark.parametrize("call", [maps.maps, maps.profiles])
def test_maps_of_unknown_measures_are_refused(call):
    with pytest.raises(ConfigurationError, match="`measure` must be one of mean, mean_abs"):
        call(made_up_report(), "median")


# What there is not -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"kind": "pie"}, '`kind` must be one of "bar", "beeswarm", "heatmap", "interactions"'),
        ({"kind": ["bar"]}, "`kind` must be one of"),
        ({"kind": "bar", "output": "z"}, "`output` must be the name or index of an output: 'outp"),
        ({"kind": "bar", "output": 2}, "`output` must be the name or index of an output"),
        ({"kind": "bar", "output": True}, "`output` must be the name or index of an output"),
        ({"kind": "bar", "measure": "median"}, "`measure` must be one of mean, mean_abs, rms"),
        ({"kind": "bar", "top": 0}, "`top` must be a whole number of at least 1"),
        ({"kind": "interactions", "measure": "mean"}, "one of rms, standardized_rms with kind="),
        ({"kind": "evolution"}, 'with kind="evolution" the report must hold an evolution'),
    ],
)
def test_figures_that_there_are_not_are_refused_with_the_choices(arguments, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        plot(made_up_report(), **arguments)
    assert str(caught.value).startswith("SensitivityReport.plot: ")


def test_kinds_of_which_the_report_holds_nothing_are_refused():
    report = made_up_report(3, 1, sample=0, interactions=None)
    with pytest.raises(ConfigurationError, match=r"`kind` can be .bar., .heatmap.\."):
        plot(report, "interactions")
    with pytest.raises(ConfigurationError, match="must hold examples in its sample"):
        plot(report, "beeswarm")
    report = made_up_report(1, 1)  # one feature has no pairs
    with pytest.raises(ConfigurationError, match="must hold interactions"):
        plot(report, "interactions")


def test_a_measure_without_values_is_refused():
    report = with_measure(made_up_report(2, 1), "elasticity", [[np.nan], [np.nan]])
    with pytest.raises(ConfigurationError, match="must hold a value of `measure`"):
        plot(report, "bar", measure="elasticity")
