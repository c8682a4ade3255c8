"""Panels in a real JupyterLab: run all, toggle, slide, train, stop, and see the figure change."""

import os
import re
from pathlib import Path

from playwright.sync_api import expect

MINUTE = 60_000


def open_and_run(page, lab, name):
    address, token = lab
    page.goto(f"{address}/lab/workspaces/{name}/tree/{name}.ipynb?reset&token={token}")
    notebook = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")
    notebook.wait_for(timeout=MINUTE)
    page.wait_for_function(
        """() => window.jupyterapp && window.jupyterapp.shell.currentWidget?.sessionContext
            ?.session?.kernel?.status === 'idle'""",
        timeout=2 * MINUTE,
    )
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    expect(page.get_by_role("button", name="Train")).to_be_visible(timeout=5 * MINUTE)
    expect(page.locator(".jp-InputArea-prompt", has_text="*")).to_have_count(0, timeout=MINUTE)
    return notebook


def embedding_lengths(page):
    """Heights of the bars in the panel's right-hand plot, in pixels."""
    return page.evaluate(
        """() => [...document.querySelectorAll('.js-plotly-plot .trace.bars .point path')]
            .map(bar => Math.round(bar.getBBox().height))"""
    )


def curve_points(page):
    """How many vertices the drawn curves have, all in all."""
    paths = page.locator(".js-plotly-plot .scatterlayer path.js-line")
    return sum(len(re.findall("[ML,]", d or "")) for d in
               (path.get_attribute("d") for path in paths.all()))  # fmt: skip


def picture(page, name):
    """Keep what a reader would see, for people to look at; $SCREENSHOTS names the folder."""
    folder = os.environ.get("SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"{name}.png")
        panel = page.locator(".jp-OutputArea-child", has=page.locator(".js-plotly-plot"))
        panel.screenshot(path=Path(folder) / f"{name}-panel.png")


def test_panel_toggles_trains_streams_and_stops(page, lab):
    name = "00_start_here"
    notebook = open_and_run(page, lab, name)
    assert (
        notebook.locator(".jp-RenderedText[data-mime-type*='stderr']", has_text="Error").count()
        == 0
    )
    train, stop = (page.get_by_role("button", name=label) for label in ("Train", "Stop"))
    train.scroll_into_view_if_needed()
    status = page.locator(".jupyter-widgets.widget-html", has_text=re.compile("trained|phase|stop"))
    expect(status.first).to_contain_text("not trained yet: replay")
    linear = embedding_lengths(page)
    assert len(linear) == 50
    picture(page, f"{name}-1-before")

    # A toggle shows the other head's embeddings at once; no training is needed.
    cosine = page.get_by_label("cosine normalization")
    cosine.focus()
    page.keyboard.press("Space")
    expect(status.first).to_contain_text("not trained yet: cosine")
    page.wait_for_function(
        """before => JSON.stringify([...document.querySelectorAll(
            '.js-plotly-plot .trace.bars .point path')].map(b => Math.round(b.getBBox().height)))
            !== JSON.stringify(before)""",
        arg=linear,
        timeout=5_000,
    )

    page.get_by_label("less-forget constraint").check()
    page.get_by_label("margin ranking").check()
    expect(status.first).to_contain_text("not trained yet: lucir")
    before = curve_points(page)
    train.click()
    expect(status.first).to_contain_text("phase 1 of 5", timeout=20_000)
    expect(stop).to_be_enabled()
    expect(train).to_be_disabled()
    page.wait_for_timeout(2_500)
    early = curve_points(page)
    assert early > before, "the curves do not stream"
    page.wait_for_timeout(2_500)
    assert curve_points(page) > early, "the curves stand still"
    expect(status.first).to_contain_text("phase 2 of 5", timeout=MINUTE)
    assert len(embedding_lengths(page)) == 60, "the new classes' embeddings are not drawn"
    picture(page, f"{name}-2-training")

    stop.click()
    expect(status.first).to_contain_text("stopped after 1 new phase", timeout=5_000)
    expect(train).to_be_enabled()
    expect(stop).to_be_disabled()
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
    assert curve_points(page) == still


def test_the_margin_s_sliders_move_the_figure_and_the_loss(page, lab):
    name = "04_margin_ranking"
    notebook = open_and_run(page, lab, name)
    figure = notebook.locator(".jupyter-widgets.widget-image")
    words = notebook.locator(".jupyter-widgets.widget-html", has_text="Loss:")
    figure.scroll_into_view_if_needed()
    before, said = figure.get_attribute("src"), words.inner_text()
    assert "2 hard negatives each, margin 0.5" in said
    margin, negatives = (
        notebook.locator(".widget-slider", has_text=label).locator(".noUi-handle")
        for label in ("margin m", "negatives K")
    )
    margin.focus()
    page.keyboard.press("ArrowRight")
    expect(words).to_contain_text("margin 0.55")
    negatives.focus()
    page.keyboard.press("ArrowRight")
    expect(words).to_contain_text("3 hard negatives each, margin 0.55")
    assert figure.get_attribute("src") != before
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}-sliders.png")
