"""The page of a sensitivity report in headless Chromium."""

import re

import numpy as np
import pytest
from support.chromium import PHONE
from support.report_cases import made_up_report
from test_report_page import HOSTILE, hostile_report

from keras_fwd.sensitivity._page import html_page

DESK = {"width": 1280, "height": 800}


@pytest.fixture
def show(browser, tmp_path):
    """A function that opens a report; at the end there were no errors and no requests."""
    seen, pages = [], []

    def opened(report, size=DESK, dark=False, **options):
        path = tmp_path / "report.html"
        path.write_text(html_page.html_page(report, "Report"), encoding="utf-8")
        options["color_scheme"] = "dark" if dark else "light"
        page = browser.new_page(viewport=size, **options)
        page.on("console", lambda message: seen.append(message.text))
        page.on("pageerror", lambda error: seen.append(str(error)))
        page.on("dialog", lambda dialog: seen.append(dialog.message))
        page.on("request", lambda r: None if r.url == path.as_uri() else seen.append(r.url))
        pages.append(page)
        page.goto(path.as_uri())
        return page

    yield opened
    for page in pages:
        page.close()
    assert not seen


def bar_names(page):
    return page.locator("#bars .name bdi").all_text_contents()


def table_names(page):
    return page.locator("#table tbody th bdi").all_text_contents()


def by_strength(report, values):
    return [report.feature_names[i] for i in np.argsort(-values)]


def made_small(report, factor):
    """The report with strengths so small that the labels of the axis are long."""
    for estimate in (report.measures | report.pooled).values():
        for part in vars(estimate).values():
            part *= factor
    return report


SHAPES = {
    "table": {"features": 30, "slices": ("a", "b"), "evolution": 12},
    "image": {"features": 192, "inputs": ((8, 8, 3),), "outputs": 3},
    "sequence": {"features": 60, "inputs": ((20, 3),), "outputs": 1},
    "one": {"features": 1, "outputs": 1, "sample": 1},
}


@pytest.mark.parametrize("measure", ["standardized_rms", "mean"])
def test_long_labels_of_an_axis_fit_the_phone(show, measure):
    page = show(made_small(made_up_report(5, 1), 1e-5), PHONE)
    page.select_option("#measure", measure)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    labels = [label.bounding_box() for label in page.locator("#bars .ticks span").all()]
    assert labels[0]["x"] >= 0 and labels[-1]["x"] + labels[-1]["width"] <= PHONE["width"]


@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
@pytest.mark.parametrize("shape", SHAPES)
def test_page_fits_the_screen(show, shape, size):
    page = show(made_up_report(**SHAPES[shape]), size)
    page.locator("#bars button.name").first.click()
    assert page.locator("#short").inner_text()
    assert page.locator(".detail").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    shown = {name for name in ("maps", "evolution") if page.locator(f"#{name}").is_visible()}
    assert shown == {"table": {"evolution"}, "one": set()}.get(shape, {"maps"})


def test_table_sorts_by_click_and_by_keyboard(show):
    report = made_up_report(12, 1)
    page = show(report)
    strength, mean = (report.measures[m].value[:, 0] for m in ("standardized_rms", "mean"))
    assert table_names(page) == by_strength(report, strength)
    page.locator("#table button", has_text=re.compile("^Mean$")).nth(1).click()
    assert table_names(page) == by_strength(report, mean)
    focused = page.locator("#table th", has=page.locator("button:focus"))
    assert focused.get_attribute("aria-sort") == "descending"
    page.keyboard.press("Enter")
    assert table_names(page) == by_strength(report, -mean)
    assert focused.get_attribute("aria-sort") == "ascending"
    assert page.locator("#table th[aria-sort]").count() == 1
    assert "Sorted by Mean, ascending" in page.locator("#status").inner_text()


def test_filter_narrows_bars_and_table(show):
    page = show(made_up_report(30, 1))
    page.fill("#filter", "FEATURE 2")
    wanted = {name for name in (f"feature {k}" for k in range(30)) if "2" in name}
    assert {*bar_names(page)} == {*table_names(page)} == wanted
    assert "12 of 30 features" in page.locator("#status").inner_text()
    page.fill("#filter", "nothing")
    assert not bar_names(page) and "No feature has this" in page.locator("#table").inner_text()


def test_output_slice_and_measure_change_what_is_shown(show):
    report = made_up_report(8, 2, slices=("young",))
    young = report.slices["young"]
    page = show(report)
    page.select_option("#output", label="output 1")
    expected = by_strength(report, report.measures["standardized_rms"].value[:, 1])
    assert bar_names(page) == table_names(page) == expected
    page.select_option("#view", index=1)
    summary = page.locator("#short").inner_text()
    assert summary.startswith("In the slice young, ") and young.notes[0] in summary
    assert bar_names(page) == by_strength(report, young.measures["standardized_rms"].value[:, 1])
    page.select_option("#measure", "mean")
    assert bar_names(page) == by_strength(report, np.abs(young.measures["mean"].value[:, 1]))
    page.select_option("#output", label="all outputs together")
    assert bar_names(page) == by_strength(report, young.pooled["standardized_rms"].value[:, 0])
    assert page.locator("#measure").input_value() == "standardized_rms"


def test_bars_and_whiskers_are_as_long_as_the_numbers(show):
    report = made_up_report(5, 1)
    page = show(report)
    best = report.measures["standardized_rms"]
    i = int(np.argmax(best.value[:, 0]))
    fill, whisker = (
        page.locator(f"#bars li .{c}").first.bounding_box() for c in ("fill", "whisker")
    )
    ratio = (whisker["x"] + whisker["width"] - fill["x"]) / fill["width"]
    assert ratio == pytest.approx(best.high[i, 0] / best.value[i, 0], rel=0.02)


def test_hostile_names_are_shown_as_text(show):
    page = show(hostile_report())
    assert {*table_names(page)} >= {*HOSTILE[:4], HOSTILE[5]}
    for button in page.locator("#bars button.name").all():
        button.click()
    assert page.locator("#bars .detail").count() == len(HOSTILE)
    assert page.locator("main b:not(.value b), main img, main script").count() == 0
    assert "<img src=x onerror=alert(1)>" in page.locator("#strength h2").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= DESK["width"]


def test_everything_is_reached_by_keyboard_with_a_visible_focus(show):
    page = show(made_up_report(3, 2, slices=("a",), evolution=3, inputs=((3, 1),)))
    wanted = page.locator(
        "a[href]:visible, button:visible, select:visible, input:visible, summary:visible, "
        ".scroll:visible, canvas[tabindex]:visible"
    ).count()
    reached = set()
    for _ in range(wanted + 5):
        page.keyboard.press("Tab")
        tag, place, outline = page.evaluate(
            "(() => { const a = document.activeElement; return [a.tagName, [...document."
            "querySelectorAll('*')].indexOf(a), getComputedStyle(a).outlineStyle] })()"
        )
        if tag != "BODY":  # where the page ends
            reached.add(place)
            assert outline != "none", (tag, place)
    assert len(reached) >= wanted
    page.locator("#bars button.name").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("#bars button.name").first.get_attribute("aria-expanded") == "true"
    page.keyboard.press("Space")
    assert page.locator(".detail").count() == 0


def test_dark_follows_the_system_and_the_button(show):
    page = show(made_up_report(3, 1), dark=True)
    ground = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(ground) == "rgb(21, 24, 29)"
    page.locator("#theme").click()
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    page = show(made_up_report(3, 1))
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(ground) == "rgb(21, 24, 29)"


def test_maps_are_read_by_arrow_keys_and_choices_keep_the_focus(show):
    report = made_up_report(64, 1, inputs=((8, 8),))
    page = show(report)
    figure = page.locator("#maps figure", has_text="Rms per unit")
    top = int(np.argmax(report.measures["rms"].value[:, 0]))
    assert f"row {top // 8}, column {top % 8}" in figure.locator("figcaption").inner_text()
    figure.locator("canvas").first.press("ArrowLeft" if top % 8 else "ArrowRight")
    beside = top % 8 + (-1 if top % 8 else 1)
    assert f"Row {top // 8}, column {beside}" in figure.locator("figcaption").inner_text()
    page.locator("#maps select").first.select_option("0")
    assert page.locator("#maps svg").count() == 1 and page.locator("#maps canvas").count() == 0


def test_maps_are_those_of_the_slice_and_other_parts_say_that_they_are_not(show):
    report = made_up_report(64, 1, inputs=((8, 8),), slices=("young",))
    page = show(report)
    assert "not of the slice" not in page.locator("main").inner_text()
    page.select_option("#view", index=1)
    young = report.slices["young"].measures["rms"].value[:, 0]
    top = int(np.argmax(young))
    read = page.locator("#maps figure", has_text="Rms per unit").locator("figcaption").inner_text()
    assert read.startswith(f"Largest: row {top // 8}, column {top % 8}: {young[top]:.2f}")
    assert "not of the slice" not in page.locator("#maps").inner_text()
    for part in ("groups", "interactions"):
        assert "Of all examples, not of the slice" in page.locator(f"#{part}").inner_text()


def test_a_switch_in_the_first_place_is_not_said_to_move_the_output_by_its_strength(show):
    report = made_up_report(3, 1, kinds=("switch",) * 3)
    best = report.measures["standardized_rms"].value.max()
    summary = show(report).locator("#short").inner_text()
    assert f"most: its strength is {best:.2f}"[:-1] in summary and "moves" not in summary


def test_interactions_that_are_all_zero_are_not_called_independence(show):
    report = made_up_report(3, 1)
    assert "act independently" in show(report).locator("#interactions").inner_text()
    for part in vars(report.interactions.measures["standardized_rms"]).values():
        part[:] = 0.0
    text = show(report).locator("#interactions").inner_text()
    assert "piecewise linear" in text and "act independently" not in text


def test_a_page_without_strengths_says_whether_effects_or_spreads_are_zero(show):
    report = made_up_report(2, 1)
    report.measures["standardized_rms"].value[:] = 0.0
    assert "do not vary over these examples" in show(report).locator("#short").inner_text()
    for estimate in report.measures.values():
        for part in vars(estimate).values():
            part[:] = 0.0
    report.sample.derivatives[:] = 0.0
    page = show(report)
    assert "No feature moves output 0" in page.locator("#short").inner_text()
    page.locator("#bars button.name").first.click()
    assert "the same at every example" in page.locator(".detail").inner_text()


def test_without_scripts_there_is_the_table_of_the_first_output(show):
    report = made_up_report(5, 2)
    page = show(report, PHONE, java_script_enabled=False)
    expected = [report.feature_names[i] for i in report.ranking()]
    assert table_names(page) == expected
    assert page.get_by_text("need JavaScript").is_visible()
    assert not page.locator("#controls").is_visible()
