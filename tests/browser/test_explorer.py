"""The explorer in a real browser: in JupyterLab, and on its page without a kernel."""

import os
import re
import time
from pathlib import Path

import pytest
from playwright.sync_api import expect

from lucir_edu import runs
from lucir_edu.lab import report, views
from lucir_edu.lab.explorer import Bank
from tests.browser.test_panels import (
    MINUTE,
    SWITCHES,
    TRAINING,
    go_through,
    open_notebook,
    run,
    run_all,
    until,
    walk,
)  # fmt: skip
from tests.test_explorer import in_another_order, in_three_phases

FOUR = ("replay", "cosine", "cosine+lf", "lucir")


@pytest.fixture(scope="module")
def recorded():
    return list(runs.load_bank("glyphs-b50-5"))


@pytest.fixture(scope="module")
def address(recorded, tmp_path_factory):
    """The page of a few runs, as a file."""
    path = tmp_path_factory.mktemp("page") / "page.html"
    report.write([run for run in recorded if runs.label(run) in (*FOUR, "icarl")], path)
    return path.as_uri()


def screenshot(page, name):
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def heights(page):
    """Of all bars that are drawn, in pixels."""
    return page.evaluate(
        """() => [...document.querySelectorAll('.js-plotly-plot .trace.bars .point path')]
            .filter(bar => bar.checkVisibility()).map(bar => Math.round(bar.getBBox().height))"""
    )


# ---- The page ----


def open_page(page, address, state=""):
    page.goto(f"{address}#{state}" if state else address)
    page.locator("section.explorer .js-plotly-plot .main-svg").first.wait_for(timeout=MINUTE)
    return page.locator("section.explorer")


def test_the_page_answers_switches_slider_and_views(page, address, recorded):
    bank, section = Bank(recorded), open_page(page, address, "cos+lf+mr/seed1/phase5/norms")
    words = section.locator("[data-part=wordsA]")
    expect(words).to_have_text(views.draw("norms", bank["cos+lf+mr", 1], 5).words)
    until(lambda: len(heights(page)) == 200, "a length and a mean logit of each class")
    before = heights(page)

    section.get_by_label("margin ranking").first.uncheck()
    expect(words).to_have_text(views.draw("norms", bank["cos+lf-mr", 1], 5).words)
    expect(section.get_by_label("this view")).to_have_value("cos+lf-mr/seed1/phase5/norms")
    until(lambda: heights(page) != before, "the figure does not follow")
    expect(page).to_have_url(re.compile(r"#cos\+lf-mr/seed1/phase5/norms$"))

    slider = section.get_by_role("slider", name="phase")
    slider.focus()
    page.keyboard.press("ArrowLeft")
    expect(words).to_have_text(views.draw("norms", bank["cos+lf-mr", 1], 4).words)
    until(lambda: len(heights(page)) == 180, "phase 4 is not drawn")

    section.get_by_role("combobox", name="seed").select_option("3")
    section.get_by_role("combobox", name="view").select_option(label="confusion")
    expect(words).to_have_text(views.draw("confusion", bank["cos+lf-mr", 3], 4).words)
    cell = section.locator(".heatmaplayer image")
    box = cell.bounding_box()
    for share in (0.018, 0.02):  # in one cell: pointing at a second one could be told of later
        page.mouse.move(box["x"] + box["width"] * share, box["y"] + box["height"] * 0.98)
    expect(section.locator("[data-part=hovered] img")).to_have_count(2)
    names = recorded[0]["classes"]
    row, column = (section.get_by_role("combobox", name=name) for name in ("row", "column"))
    expect(row).not_to_have_value("")
    for menu, name in ((row, names[3]), (column, names[71])):  # a page needs no mouse for it
        menu.select_option(name)
    (trace, *_), *_ = views.draw("confusion", bank["cos+lf-mr", 3], 4)
    said = views.cell(trace, names[3], names[71])
    expect(section.locator("[data-part=hovered]")).to_contain_text(said)
    screenshot(page, "page-confusion")
    for title in ("accuracy", "angles between embeddings", "features", "loss terms"):
        said = words.inner_text()
        section.get_by_role("combobox", name="view").select_option(label=title)
        expect(words).not_to_have_text(said)
        screenshot(page, f"page-{title.split()[0]}")


def test_the_page_offers_the_cells_that_both_of_two_class_orders_have(page, recorded, tmp_path):
    one = Bank(recorded)["cos+lf+mr", 0]
    report.write([one, in_another_order(one)], tmp_path / "page.html")
    section = open_page(page, (tmp_path / "page.html").as_uri(), "cos+lf+mr/phase3/confusion")
    row, column = (section.get_by_role("combobox", name=name) for name in ("row", "column"))
    row.select_option(one["classes"][40]), column.select_option(one["classes"][71])
    expect(section.locator("[data-part=hovered]")).to_contain_text(" read as ")
    link = section.get_by_label("this view")
    link.fill("cos+lf+mr~lucir,order_seed=7"), link.press("Enter")
    expect(link).to_have_value("cos+lf+mr~lucir,order_seed=7/seed0/phase3/confusion")
    expect(section.locator("[data-part=hovered]")).to_be_empty()
    expect(row.locator("option")).to_have_count(1 + 60)
    box = section.locator(".heatmaplayer image").nth(1).bounding_box()

    def point_at(down):
        for share in (down, down + 0.004):  # in one cell
            page.mouse.move(box["x"] + box["width"] * 0.02, box["y"] + box["height"] * share)

    point_at(0.1)
    expect(row).not_to_have_value("")
    chosen = row.input_value()
    point_at(0.52)  # a class that A has not learned
    names = "|".join(map(re.escape, one["classes"][80:]))
    expect(section.locator(".hoverlayer").nth(1)).to_contain_text(re.compile(f"({names}) read as"))
    expect(row).to_have_value(chosen)


def test_the_page_works_inside_another_page(page, address):
    page.goto(address)
    html = page.content()
    page.goto("about:blank")
    page.evaluate(
        """html => document.body.append(
            Object.assign(document.createElement("iframe"), {srcdoc: html, width: 900}))""",
        html,
    )
    section = page.frame_locator("iframe").locator("section.explorer")
    section.locator(".js-plotly-plot .main-svg").first.wait_for(timeout=MINUTE)
    section.get_by_label("margin ranking").first.uncheck()
    expect(section.get_by_label("this view")).to_have_value(re.compile(r"^cos\+lf-mr/"))


def test_the_page_compares_two_settings(page, address, recorded):
    bank, section = Bank(recorded), open_page(page, address, "-cos~icarl/seed2/phase3/norms")
    expect(section.locator(".js-plotly-plot:visible")).to_have_count(2)
    a, b = (views.figures(bank[name, 2], 3) for name in ("-cos-lf-mr", "icarl"))
    for row, name in zip(section.locator("[data-part=table] tr").all()[1:], a, strict=True):
        cells = row.locator("td").all_inner_texts()
        assert cells[0] == name
        assert [float(cell.replace("−", "-")) for cell in cells[1:]] == pytest.approx(
            [a[name], b[name], b[name] - a[name]], abs=0.051
        )
    tops = section.locator(".js-plotly-plot:visible").evaluate_all(
        "plots => plots.map(plot => plot._fullLayout.yaxis.range[1])"
    )
    assert tops[0] == tops[1], "two scales cannot be compared"
    screenshot(page, "page-compare")
    section.get_by_label("compare with a second setting").uncheck()
    expect(section.locator(".js-plotly-plot:visible")).to_have_count(1)


def test_the_page_s_figures_fit_their_boxes_whatever_is_ticked_and_however_wide_it_is(
    page, address
):
    """As [width of the box, width of the figure, height of the figure] for each that is shown."""
    section = open_page(page, address)
    plots, box = section.locator(".js-plotly-plot:visible"), section.get_by_label("compare with")

    def fits(count, narrow=False):
        sizes = plots.evaluate_all(
            """plots => plots.map(plot => [plot.clientWidth,
                 plot.querySelector('.main-svg').clientWidth, plot.clientHeight])"""
        )
        return len(sizes) == count and all(
            inside == width > 200 and height > 300 and (width < 400) == narrow
            for width, inside, height in sizes
        )

    until(lambda: fits(1), "one at first")
    for _ in range(2):
        box.check()
        until(lambda: fits(2), "two side by side")
        box.uncheck()
        until(lambda: fits(1), "one again")
    page.set_viewport_size({"width": 390, "height": 800})
    until(lambda: fits(1, narrow=True), "on a telephone")
    page.set_viewport_size({"width": 1280, "height": 800})
    until(lambda: fits(1), "wide again")


def test_a_typed_string_and_a_link_give_the_view(page, address):
    section = open_page(page, address)
    link = section.get_by_label("this view")
    expect(link).to_have_value("cos+lf+mr/seed0/phase5/accuracy")
    link.fill("cos/seed4/phase2/features")
    link.press("Enter")
    expect(link).to_have_value("cos-lf-mr/seed4/phase2/features")
    expect(section.get_by_label("less-forget constraint").first).not_to_be_checked()
    page.evaluate("location.hash = '#icarl/norms'")
    expect(link).to_have_value("icarl/seed4/phase2/norms")
    expect(section.get_by_label("cosine normalization").first).to_be_disabled()


def test_an_address_that_means_nothing_shows_the_first_view(page, address):
    section = open_page(page, address, "%")  # no text, for a lone % is half a letter
    expect(section.get_by_label("this view")).to_have_value("cos+lf+mr/seed0/phase5/accuracy")


def test_an_address_may_be_escaped_and_may_name_what_every_object_has(page, address):
    section = open_page(page, address, "cos%2Blf%2Fseed4%2Fnorms")
    link = section.get_by_label("this view")
    expect(link).to_have_value("cos+lf-mr/seed4/phase5/norms")
    page.goto("about:blank")
    section = open_page(page, address, "constructor")
    expect(section.locator("[data-part=wordsA]")).to_have_text("constructor is not recorded.")


def test_on_the_page_too_a_second_setting_can_be_chosen(page, recorded, tmp_path):
    some = [run for run in recorded if runs.label(run) in ("cosine", "lucir")]
    report.write(some, tmp_path / "page.html")
    section = open_page(page, (tmp_path / "page.html").as_uri())
    section.get_by_label("compare with a second setting").check()
    expect(section.locator("[data-part=wordsA]")).to_have_text("-cos-lf-mr is not recorded.")
    section.get_by_label("cosine normalization").last.check()
    expect(section.get_by_label("this view")).to_have_value(
        "cos+lf+mr~cos-lf-mr/seed0/phase5/accuracy"
    )


def test_an_address_that_names_no_setting_is_answered(page, address):
    section = open_page(page, address, "icral/norms")
    words, link = section.locator("[data-part=wordsA]"), section.get_by_label("this view")
    expect(words).to_have_text("icral is not recorded.")
    expect(link).to_have_value("cos+lf+mr/seed0/phase5/accuracy")
    for typed, answer in (
        ("cos~lucir", "lucir is not recorded."),
        ("cos,lf", "cos lf is not recorded."),
        ("абв", "абв is not recorded."),
        ("cos~lf~mr", "cos~lf~mr names more than two settings; write A~B."),
        ("cos~", "cos~ lacks a setting beside the ~."),
        ("-cos+cos", "-cos+cos names a component twice."),
        ("norms/angles", "norms/angles names several views."),
    ):
        link.fill(typed)
        link.press("Enter")
        expect(words).to_have_text(answer)
        expect(link).to_have_value("cos+lf+mr/seed0/phase5/accuracy")


def test_the_page_says_that_a_seed_or_phase_is_not_recorded(page, address):
    section = open_page(page, address, "cos/seed7/phase9")
    words, link = section.locator("[data-part=wordsA]"), section.get_by_label("this view")
    expect(words).to_contain_text("(Seed 7, phase 9: not recorded.)")
    expect(link).to_have_value("cos-lf-mr/seed4/phase5/accuracy")
    link.fill(' #"cos+lf" ')
    link.press("Enter")
    expect(words).not_to_contain_text("not recorded")
    expect(link).to_have_value("cos+lf-mr/seed4/phase5/accuracy")


def test_a_browser_that_is_too_old_for_the_switches_says_so(page, address):
    page.add_init_script("delete window.DecompressionStream")
    page.goto(address)
    expect(page.locator("section.explorer")).to_contain_text("do not work in this browser")


def test_settings_without_a_seed_in_common_are_not_compared(page, recorded, tmp_path):
    chosen = {("lucir", 0), ("replay", 1)}
    two = [run for run in recorded if (runs.label(run), run["seed"]) in chosen]
    report.write(two, tmp_path / "page.html")
    section = open_page(page, (tmp_path / "page.html").as_uri(), "cos+lf+mr~-cos/norms")
    words = section.locator("[data-part=wordsA]")
    expect(words).to_have_text("cos+lf+mr and -cos-lf-mr have no seed in common.")
    expect(section.locator(".js-plotly-plot:visible")).to_have_count(1)
    expect(section.get_by_label("compare with a second setting")).not_to_be_checked()


def test_every_control_of_the_page_is_reached_by_keyboard_in_order(page, address):
    section = open_page(page, address)
    keys = {
        **dict.fromkeys([*SWITCHES, "checkbox compare with a second setting"], "Space"),
        "combobox view": "ArrowDown",
        "slider phase 5": "ArrowLeft",
        "combobox seed": "ArrowDown",
    }
    assert go_through(page, section, keys) == [
        *SWITCHES, "combobox or", "checkbox compare with a second setting",
        *SWITCHES, "combobox or",
        "combobox view", "slider phase 5", "combobox seed", "textbox this view",
    ]  # fmt: skip
    setting = "-cos-lf-mr~cos+lf+mr"
    expect(section.get_by_label("this view")).to_have_value(f"{setting}/seed1/phase4/norms")


def test_a_page_of_few_runs_says_what_is_not_recorded(page, recorded, tmp_path):
    report.write([run for run in recorded if runs.label(run) == "lucir"], tmp_path / "page.html")
    section = open_page(page, (tmp_path / "page.html").as_uri())
    words = section.locator("[data-part=wordsA]")
    box = section.get_by_label("margin ranking").first
    box.uncheck()
    expect(words).to_have_text("cos+lf-mr is not recorded.")
    box.check()
    expect(words).to_contain_text("After phase 5")


def test_a_page_shows_a_setting_of_fewer_phases_up_to_its_last(page, recorded, tmp_path):
    whole = next(run for run in recorded if runs.label(run) == "lucir")
    report.write([whole, in_three_phases(whole)], tmp_path / "page.html")
    state = "lucir,increment=25/seed0/phase{}/accuracy"
    section = open_page(page, (tmp_path / "page.html").as_uri(), state.format(5))
    link = section.get_by_label("this view")
    expect(link).to_have_value(state.format(2))
    expect(section.get_by_role("slider")).to_have_attribute("max", "2")
    link.fill("cos+lf+mr/seed0/phase5/norms")
    link.press("Enter")
    expect(link).to_have_value("cos+lf+mr/seed0/phase5/norms")


def test_without_javascript_there_are_pictures(browser, address):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    expect(page.locator("section.explorer")).to_be_hidden()
    pictures = page.locator("figure img")
    assert pictures.count() == 1 + 2 * 5
    for picture in pictures.all():
        assert picture.evaluate("image => image.naturalWidth") > 300
        assert len(picture.get_attribute("alt")) > 40
    context.close()


# ---- In JupyterLab ----


def test_the_playground_in_jupyterlab(page, lab, recorded):
    bank = Bank(recorded)
    notebook = open_notebook(page, lab, "07_playground")
    run_all(page)
    panel = notebook.locator(".jp-OutputArea-child", has=page.get_by_label("this view"))
    words = panel.locator(".widget-html", has_text=re.compile(r"^(A: )?(After|In) phase"))
    words.scroll_into_view_if_needed()
    link = panel.get_by_label("this view")
    expect(link).to_have_value("cos+lf-mr~cos+lf+mr/seed3/phase4/confusion")
    expect(panel.locator(".js-plotly-plot .heatmaplayer image")).to_have_count(2)
    screenshot(page, "lab-compare")

    order = [
        *SWITCHES, "checkbox more settings", "combobox A is",
        "checkbox compare with a second setting",
        *SWITCHES, "checkbox more settings", "combobox B is",
        "combobox view", "slider phase", "textbox phase", "combobox seed", "combobox row",
        "combobox column", "textbox this view",
        *TRAINING,
    ]  # fmt: skip
    keys = {
        "checkbox more settings": "Space",
        "combobox view": "ArrowDown",
        "slider phase": "ArrowLeft",
        "combobox seed": "ArrowUp",
    }
    walk(page, notebook, order, keys)

    link.fill("-cos/seed1/phase3/norms")
    link.press("Enter")
    expect(words).to_have_text(views.draw("norms", bank["-cos-lf-mr", 1], 3).words)
    until(lambda: len(heights(page)) == 160 + 50, "two of each class, and those of the live panel")
    before = heights(page)
    took = []
    box = panel.get_by_label("cosine normalization").first
    for setting in ("cos-lf-mr", "-cos-lf-mr") * 5:
        began = time.perf_counter()
        box.press("Space")
        expect(words).to_have_text(views.draw("norms", bank[setting, 1], 3).words)
        took.append(time.perf_counter() - began)
    print("a toggle is seen after", sorted(round(1000 * one) for one in took), "ms")
    until(lambda: heights(page)[:80] == before[:80], "the figure is not as before")
    box.press("Space")
    until(lambda: heights(page)[:80] != before[:80], "the figure does not follow")

    # The switches below follow, and train while the ones above still answer.
    live = panel.get_by_label("cosine normalization").last
    expect(live).to_be_checked()
    panel.get_by_role("button", name="Train").click()
    status = panel.locator(".widget-html", has_text=re.compile("phase 1 of 5"))
    expect(status).to_be_visible(timeout=20_000)
    panel.get_by_role("slider", name="phase").focus()
    page.keyboard.press("ArrowRight")
    expect(link).to_have_value("cos-lf-mr/seed1/phase4/norms")

    # A cell runs while it trains, and the kernel is interrupted: nothing breaks, Stop stops.
    page.evaluate("window.jupyterapp.commands.execute('kernelmenu:interrupt')")
    page.evaluate(
        """() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel
            .requestExecute({code: 'answer = 6 * 7; assert answer == 42'}).done
            .then(reply => window.answered = reply.content.status)"""
    )
    page.wait_for_function("() => window.answered === 'ok'", timeout=20_000)
    stop = panel.get_by_role("button", name="Stop")
    began = time.perf_counter()
    stop.click()
    expect(panel.locator(".widget-html", has_text="stopped after")).to_be_visible(timeout=5_000)
    print(f"Stop took {1000 * (time.perf_counter() - began):.0f} ms")
    expect(stop).to_be_disabled()
    expect(panel.get_by_role("button", name="Train")).to_be_enabled()

    # Restarted while it trains: the notebook runs again.
    panel.get_by_role("button", name="Train").click()
    expect(stop).to_be_enabled()
    page.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
    page.wait_for_function(
        """() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status
            === 'idle'""", timeout=MINUTE
    )  # fmt: skip
    run(page, "import", "settings =", "panel =", "panel.explorer.shown =")
    expect(link).to_have_value("cos+lf-mr~cos+lf+mr/seed3/phase4/confusion", timeout=2 * MINUTE)
