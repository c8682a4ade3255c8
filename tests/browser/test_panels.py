"""Panels in a real JupyterLab: run all, toggle, slide, train, stop, and see the figure change."""

import os
import re
import time
from pathlib import Path

from playwright.sync_api import TimeoutError, expect

MINUTE = 60_000
ICONS = "\uf04b "  # of the font that buttons have theirs from
SWITCHES = [f"checkbox {name}" for name in
            ("cosine normalization", "less-forget constraint", "margin ranking")]  # fmt: skip
TRAINING = [*SWITCHES, "slider exemplars per class", "textbox exemplars per class", "button Train"]


def open_notebook(page, lab, name):
    address, token = lab
    page.goto(f"{address}/lab/workspaces/{name}/tree/{name}.ipynb?reset&token={token}")
    notebook = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")
    idle = """() => window.jupyterapp && window.jupyterapp.shell.currentWidget?.sessionContext
        ?.session?.kernel?.status === 'idle'"""
    try:
        page.wait_for_function(idle, timeout=MINUTE)
    except TimeoutError:  # now and then JupyterLab misses that its kernel is ready
        page.reload()
        page.wait_for_function(idle, timeout=2 * MINUTE)
    notebook.wait_for()
    return notebook


def run_all(page):
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    expect(page.get_by_role("button", name="Train")).to_be_visible(timeout=5 * MINUTE)
    expect(page.locator(".jp-InputArea-prompt", has_text="*")).to_have_count(0, timeout=MINUTE)


def run(page, *words):
    """Run, in order, the cells that begin with some words."""
    missing = page.evaluate(
        """words => {
            const app = window.jupyterapp, notebook = app.shell.currentWidget.content, runs = [];
            notebook.widgets.forEach((cell, index) => {
                const source = cell.model.sharedModel.getSource();
                if (cell.model.type !== 'code' || !source.startsWith(words[0])) return;
                words.shift();
                notebook.activeCellIndex = index;
                runs.push(app.commands.execute('notebook:run-cell'));
            });
            window.outcome = [];
            Promise.all(runs).then(all => window.outcome = all);
            return words;
        }""",
        words,
    )
    assert not missing, f"no cell begins with {missing[0]}"
    page.wait_for_function("() => window.outcome.length", timeout=3 * MINUTE)
    assert page.evaluate("window.outcome") == [True] * len(words), "a cell raises an error"


def ask(page, expression, statement=""):
    """What an expression is in the kernel, after a statement."""
    return page.evaluate(
        """async ([told, code]) => {
            const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
            const future = kernel.requestExecute({code, user_expressions: {told}});
            return (await future.done).content.user_expressions.told.data['text/plain'];
        }""",
        [expression, statement],
    )


def embedding_lengths(page):
    """Heights of the bars in the panel's right-hand plot, in pixels."""
    return page.evaluate(
        """() => [...document.querySelectorAll('.js-plotly-plot .trace.bars .point path')]
            .map(bar => Math.round(bar.getBBox().height))"""
    )


def curve_points(page):
    """How many vertices the drawn curves have, all in all."""
    drawn = page.evaluate(
        """() => [...document.querySelectorAll('.js-plotly-plot .scatterlayer path.js-line')]
            .map(path => path.getAttribute('d'))"""
    )
    return sum(len(re.findall("[ML,]", d or "")) for d in drawn)


def until(condition, otherwise, seconds=5):
    """Wait for what is drawn; the words about it may be there before."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, otherwise
        time.sleep(0.05)


def go_through(page, place, keys):
    """Press Tab until the focus has been in a place and left it, and on the way some more keys.

    Args:
        keys: by the stops where they are pressed; each has to change the control's value.

    Returns:
        The stops, as a screen reader says them: role and name.
    """
    stop, stops, left, bottom = place.locator(":focus"), [], -1, -1
    for _ in range(60):
        page.keyboard.press("Tab")
        if not stop.count():
            if stops:
                break
            continue
        role, name = re.match(r'- (\w+)(?: "(.*?)")?', stop.aria_snapshot()).groups("")
        stops.append(f"{role} {name.lstrip(ICONS)}")
        x, top, end = stop.evaluate(
            """(control, place) => {
                const box = control.getBoundingClientRect(), zero = place.getBoundingClientRect();
                return [box.left - zero.left, box.top - zero.top, box.bottom - zero.top];
            }""",
            place.element_handle(),
        )
        assert x > left or top >= bottom, f"{stops[-1]} stands before {stops[-2]}"
        left, bottom = x, end
        if key := keys.get(stops[-1]):
            before = value(stop)
            page.keyboard.press(key)
            until(lambda before=before: value(stop) != before, f"{key} does not move {stops[-1]}")
            if stops[-1] == "checkbox more settings":
                side = "AB"[stops.count(stops[-1]) - 1]
                expect(place.get_by_label(f"{side} is")).to_be_visible()
    return stops


def walk(page, notebook, order, keys):
    """From its cell through a panel by Tab: its controls, in order, answer to keys."""
    slider = next(stop for stop in order if stop.startswith("slider"))
    inside = page.get_by_role("slider", name=slider.removeprefix("slider "))
    notebook.locator(".jp-CodeCell", has=inside).focus()
    assert go_through(page, notebook.locator(".jp-OutputArea-child", has=inside), keys) == order


def value(control):
    return control.evaluate(
        "one => one.type === 'checkbox' ? one.checked : one.value ?? one.ariaValueText"
    )


def picture(page, name):
    """Keep what a reader would see, for people to look at; $SCREENSHOTS names the folder."""
    folder = os.environ.get("SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"{name}.png")
        panel = page.locator(".jp-OutputArea-child", has=page.locator(".js-plotly-plot"))
        panel.screenshot(path=Path(folder) / f"{name}-panel.png")


def test_panel_toggles_trains_streams_and_stops(page, lab):
    name = "03_less_forget_constraint"
    notebook = open_notebook(page, lab, name)
    run(page, "import", "settings =", "panel =")
    assert (
        notebook.locator(".jp-RenderedText[data-mime-type*='stderr']", has_text="Error").count()
        == 0
    )
    train, stop = (page.get_by_role("button", name=label) for label in ("Train", "Stop"))
    train.scroll_into_view_if_needed()
    status = page.locator(".jupyter-widgets.widget-html", has_text=re.compile("trained|phase|stop"))
    expect(status.first).to_contain_text("not trained yet: cosine")
    expect(status.first.locator(".widget-html-content")).to_have_attribute("aria-live", "polite")
    until(lambda: len(embedding_lengths(page)) == 50, "the base classes' are not drawn")
    lengths = embedding_lengths(page)
    picture(page, f"{name}-1-before")

    # A toggle shows the other head's embeddings at once; no training is needed.
    cosine = page.get_by_label("cosine normalization")
    cosine.focus()
    page.keyboard.press("Space")
    expect(status.first).to_contain_text("not trained yet: replay")
    until(lambda: embedding_lengths(page) != lengths, "the embeddings do not follow")
    page.keyboard.press("Space")
    until(lambda: embedding_lengths(page) == lengths, "the embeddings do not come back")

    page.get_by_label("less-forget constraint").check()
    page.get_by_label("margin ranking").check()
    expect(status.first).to_contain_text("not trained yet: lucir")
    before = curve_points(page)
    train.press("Enter")
    expect(status.first).to_contain_text("phase 1 of 5", timeout=20_000)
    expect(stop).to_be_enabled()
    expect(train).to_be_disabled()
    expect(stop).to_be_focused()
    until(lambda: curve_points(page) > before, "the curves do not stream")
    early = curve_points(page)
    until(lambda: curve_points(page) > early, "the curves stand still")
    expect(status.first).to_contain_text("phase 2 of 5", timeout=MINUTE)
    until(lambda: len(embedding_lengths(page)) == 60, "the new classes' are not drawn")
    picture(page, f"{name}-2-training")

    page.keyboard.press("Enter")
    expect(status.first).to_contain_text("stopped after 1 new phase", timeout=5_000)
    expect(stop).to_be_disabled()
    expect(train).to_be_focused()
    until(lambda: len(embedding_lengths(page)) == 60, "the unfinished phase's are still drawn")
    page.wait_for_timeout(1_000)
    still = curve_points(page)
    page.wait_for_timeout(1_000)
    assert curve_points(page) == still, "it goes on after Stop"
    assert len(embedding_lengths(page)) == 60
    expect(page.locator("td", has_text="lucir, 3 exemplars")).to_be_visible()
    picture(page, f"{name}-3-stopped")

    # Back to a setting that was never trained, and to the one that was: its curves return.
    cosine.click()
    expect(status.first).to_contain_text("not trained yet")
    cosine.click()
    expect(status.first).to_contain_text("trained before: lucir")
    until(lambda: curve_points(page) == still, "the curves do not return")

    keys = {**dict.fromkeys(SWITCHES, "Space"), "slider exemplars per class": "ArrowRight"}
    walk(page, notebook, TRAINING, keys)

    train.press("Enter")
    expect(stop).to_be_focused()
    stop.evaluate("button => button.click()")  # no key, as when the training ends by itself
    expect(train).to_be_focused()

    # The cell again while it trains: the button that would stop the training is gone
    train.press("Enter")
    expect(stop).to_be_focused()
    assert ask(page, "panel._live.running", "before = panel") == "True"
    run(page, "panel =")
    until(lambda: ask(page, "before._live.running") == "False", "it goes on without a button")


def test_the_margin_s_sliders_move_the_figure_and_the_loss(page, lab):
    name = "04_margin_ranking"
    notebook = open_notebook(page, lab, name)
    run(
        page,
        *("import", "settings =", "ends = ", "def margin_ranking", "margin_ranking = checks"),
        *("exemplars =", "MarginPanel("),
    )
    figure = notebook.locator(".jupyter-widgets.widget-image")
    words = notebook.locator(".jupyter-widgets.widget-html", has_text="Loss:")
    figure.scroll_into_view_if_needed()
    expect(words).to_contain_text("2 hard negatives each, margin 0.5")
    expect(figure).to_have_attribute("src", re.compile("."))
    before = figure.get_attribute("src")
    margin, negatives = (
        notebook.get_by_role("slider", name=label) for label in ("margin m", "negatives K")
    )
    margin.focus()
    page.keyboard.press("ArrowRight")
    expect(words).to_contain_text("margin 0.55")
    negatives.focus()
    page.keyboard.press("ArrowRight")
    expect(words).to_contain_text("3 hard negatives each, margin 0.55")
    expect(figure).not_to_have_attribute("src", before)
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}-sliders.png")

    order = ["slider margin m", "textbox margin m", "slider negatives K", "textbox negatives K"]
    walk(page, notebook, order, {order[0]: "ArrowRight", order[2]: "ArrowLeft"})


def test_the_sphere_goes_through_the_phases_and_turns_by_keys(page, lab):
    name = "02_cosine_normalization"
    notebook = open_notebook(page, lab, name)
    run(page, "import", "settings =", "METHODS =", "network =", "letters =", "SpherePanel(")
    panel = notebook.locator(
        ".jp-OutputArea-child", has=page.get_by_role("slider", name="turn (°)")
    )
    phase, turn, height = (
        panel.get_by_role("slider", name=label) for label in ("phase", "turn (°)", "height (°)")
    )
    words = panel.locator(".jupyter-widgets.widget-html")
    expect(words).to_contain_text("linear head: ")
    expect(words).to_contain_text("new classes Д Ж Ш")
    plot = panel.locator(".js-plotly-plot")

    def drawn():
        return plot.evaluate(
            """plot => [plot._fullData.filter(trace => trace.visible).length,
                plot._fullLayout.scene.camera.eye, plot._fullLayout.scene2.camera.eye]"""
        )

    until(lambda: drawn()[0] == 2 + 2 * 4, "not one phase at a time")
    before = drawn()[1]
    turn.scroll_into_view_if_needed()
    phase.focus()
    page.keyboard.press("ArrowLeft")
    expect(words).to_contain_text("Old classes A E H N R W; new classes Б И Я")
    turn.focus()
    page.keyboard.press("ArrowRight")
    until(lambda: drawn()[1]["x"] < before["x"], "does not turn")
    height.focus()
    page.keyboard.press("ArrowRight")
    until(lambda: drawn()[1]["z"] > before["z"], "is not seen from above")
    shown = drawn()
    assert shown[0] == 2 + 2 * 4 and shown[1] == shown[2]
    if folder := os.environ.get("SCREENSHOTS"):
        panel.screenshot(path=Path(folder) / f"{name}-sphere.png")
    order = [f"{role} {label}" for label in ("phase", "turn (°)", "height (°)")
             for role in ("slider", "textbox")]  # fmt: skip
    notebook.locator(".jp-CodeCell", has=page.get_by_role("slider", name="turn (°)")).focus()
    keys = {stop: "ArrowLeft" for stop in order if "slider" in stop}
    assert go_through(page, panel, keys) == order
