"""The page of a sensitivity report: what is in it. `test_report_browser.py` has what it does."""

import dataclasses
import html.parser
import json
import re
import sys

import numpy as np
import pytest
from support.report_cases import made_up_report

from keras_fwd.sensitivity._page import html_page, page_data

HOSTILE = (
    "<script>alert(1)</script>",
    "quo\"te' & co",
    "</script><b>bold</b>",
    "&amp;",
    "long" * 240,
    "line\u2028end\u202ereversed",
    "half a character \ud800",
)


class Page(html.parser.HTMLParser):
    """The text of a page, its tags, and every attribute that may load or run something."""

    def __init__(self, source):
        super().__init__()
        self.text, self.tags, self.loads, self.open, self.data = [], [], [], [], ""
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        keys = ("src", "href", "srcset", "data", "action")
        self.loads += [v for k, v in attrs if k in keys or k.startswith("on")]
        if tag not in ("meta", "br", "link", "img", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.data = self.data or data
        else:
            self.text.append(data)


def hostile_report():
    return made_up_report(
        len(HOSTILE),
        2,
        feature_names=HOSTILE,
        output_names=("<img src=x onerror=alert(1)>", "</script>"),
        slices=("<b>slice</b>",),
        about={"model": "</pre><script>alert(2)</script>"},
        notes=("<i>note</i>",),
    )


def test_page_is_self_contained_and_escapes_names():
    source = html_page.html_page(hostile_report(), "A <i>title</i>")
    page = Page(source)
    text = "".join(page.text)
    for name in [*HOSTILE[:6], "half a character ?", "<i>note</i>", "A <i>title</i>", "</pre>"]:
        assert name in text
    assert page.tags.count("script") == 2 and not {"img", "iframe", "object", "b"} & {*page.tags}
    assert not page.open and all(value.startswith(("#", "data:,")) for value in page.loads)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|@import|url\(|innerHTML", source)
    assert not re.search("[<>&\u2028]", page.data)
    assert "default-src 'none'" in source.split("<style>")[0]
    assert json.loads(page.data)["features"][0] in HOSTILE


def test_fragment_is_a_table_without_scripts_and_escapes_names():
    page = Page(html_page.fragment(hostile_report()))
    text = "".join(page.text)
    assert all(name in text for name in HOSTILE[:6])
    assert not {"script", "img", "b ", "style"} & {*page.tags} and not page.open and not page.loads
    assert text.count("▲") + text.count("▼") + text.count("◆") == 14
    assert "Not shown: 5 weaker features" in html_page.fragment(made_up_report(25))


def test_page_without_scripts_has_the_numbers_of_the_first_output():
    report = made_up_report(4, 2, kinds=("derivative",) * 3 + ("switch",))
    text = " ".join("".join(Page(html_page.html_page(report, "t")).text).split())
    for value in report.measures["standardized_rms"].value[:, 0]:
        assert f" {value:.2f}"[:-1] in text
    assert "100 examples used, 3 left out" in text and "feature 3 switch" in text


def test_page_is_below_six_megabytes_and_says_what_it_leaves_out():
    report = made_up_report(600, 3, sample=200, slices=("a", "b", "c"))
    source = html_page.html_page(report, "t")
    assert 1e6 < len(source.encode()) < 6e6
    assert "100 weaker features not shown" in "".join(Page(source).text)
    assert len(page_data.page_data(report)["features"]) == 500
    many = page_data.page_data(made_up_report(600, 120, sample=5, interactions=None))
    assert (len(many["features"]), len(many["outputs"]), many["hiddenOutputs"]) == (75, 100, 20)
    slices = [f"slice {k}" for k in range(6)]
    many = page_data.page_data(made_up_report(30, 100, sample=5, slices=slices))
    assert (len(many["features"]), len(many["views"]), many["hiddenSlices"]) == (25, 3, 4)


def test_names_and_evolutions_without_end_do_not_make_a_page_without_end():
    names = [f"{k}{'x' * 50_000}" for k in range(100)]
    report = made_up_report(100, 20, sample=5, evolution=500, feature_names=names)
    data = page_data.page_data(report)
    assert len(data["evolution"]["epochs"]) == 100 and data["evolution"]["epochs"][-1] == 499
    assert {len(name) for name in data["features"]} == {1000}
    assert len(html_page.html_page(report, "t").encode()) < 6e6


def test_histograms_leave_out_what_is_no_number():
    derivatives = np.arange(300.0).reshape(100, 3)
    derivatives[:, 1], derivatives[7, 2] = np.nan, np.inf
    first, second, third = page_data.histograms(derivatives)
    assert second is None and sum(first[2]) == 100 and sum(third[2]) == 99
    assert max(first[2][1:-1]) - min(first[2][1:-1]) <= 1
    assert page_data.histograms(np.ones((4, 1))) == [[1, 1, [4] + [0] * 23]]
    assert page_data.histograms(np.ones((0, 2))) == [None, None]


def test_data_are_those_of_the_report_in_the_order_of_its_ranking():
    report = made_up_report(6, 2, slices=("part",), evolution=3)
    data = page_data.page_data(report)
    order = [int(i) for i in report.ranking()]
    assert data["features"] == [report.feature_names[i] for i in order]
    for view, part in zip(data["views"], [report, report.slices["part"]], strict=True):
        for k, name in enumerate(("value", "low", "high")):
            wanted = getattr(part.measures["mean"], name)[order].T
            np.testing.assert_allclose(view["measures"]["mean"][k], wanted, rtol=1e-3)
        np.testing.assert_allclose(view["means"], part.feature_mean[order], rtol=1e-3)
        np.testing.assert_allclose(view["spreads"], part.feature_std[order], rtol=1e-3)
        low, high, counts = view["histograms"][1][0]
        derivatives = part.sample.derivatives[:, order[0], 1]
        assert derivatives.min() <= low < high <= derivatives.max() and sum(counts) == 40
    lines = report.evolution.measures["standardized_rms"].value
    np.testing.assert_allclose(
        data["evolution"]["lines"][0][1][0], lines[:, order[0], 1], rtol=1e-3
    )


def test_numbers_that_are_not_defined_are_null():
    report = made_up_report(2, 1)
    report.measures["elasticity"].value[:] = np.nan
    report.measures["mean"].high[0] = np.inf
    data = page_data.page_data(report)["views"][0]["measures"]
    assert data["elasticity"][0] == [[None, None]] and None in data["mean"][2][0]
    assert json.loads(html_page.embedded(data)) == data


def test_large_images_are_averaged_over_blocks():
    report = made_up_report(130 * 90, 1, sample=2, inputs=((130, 90),))
    shape = dataclasses.replace(report.inputs[0], shape=(130, 90, 1))
    grid = page_data.input_grids(report, shape, 1, np.asarray)
    assert (grid["height"], grid["width"], grid["block"]) == (44, 30, 3)
    rms = report.measures["rms"].value.reshape(130, 90)
    got = np.reshape(grid["grids"]["rms"], (44, 30))
    np.testing.assert_allclose(got[1, 2] ** 2, np.mean(rms[3:6, 6:9] ** 2))
    np.testing.assert_allclose(got[-1, 0] ** 2, np.mean(rms[129:, :3] ** 2))


def test_jinja_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    for make in (lambda r: html_page.html_page(r, "t"), html_page.fragment):
        with pytest.raises(ImportError, match="pip install jinja2"):
            make(made_up_report())


def luminance(color):
    parts = [int(color[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", [0, 1])
def test_colors_have_the_contrast_of_wcag_aa(scheme):
    source = html_page.html_page(made_up_report(2, 1), "t")
    colors = dict(re.findall(r"--([\w-]+): (#\w{6})", source.split(":root {")[1 + scheme]))
    for back in ("page", "band", "raised", "note"):
        for name, least in [("ink", 4.5), ("soft", 4.5), ("link", 4.5), ("up", 3), ("down", 3)] + [
            (name, 3) for name in ("none", "edge", "focus", "whisker")
        ]:
            bright, dark = sorted((luminance(colors[name]), luminance(colors[back])))[::-1]
            assert (bright + 0.05) / (dark + 0.05) >= least, (name, back)
