"""What ipywidgets leaves out for those who use a keyboard or a screen reader."""

import anywidget
import ipywidgets as widgets
import plotly.graph_objects as go


def without_bar(figure: go.FigureWidget) -> go.FigureWidget:
    """Without plotly's buttons, which are eleven stops for Tab and hide the titles."""
    figure._config = {**figure._config, "displayModeBar": False}
    return figure


def told() -> widgets.HTML:
    """Words whose changes a screen reader tells, in a panel with a :class:`Keyboard`."""
    words = widgets.HTML()
    words.add_class("told")
    return words


class Keyboard(anywidget.AnyWidget):
    """Put into a panel, it names the panel's sliders, lets a screen reader tell of words that
    change (see :func:`told`), keeps the panel's keys from the notebook, and moves the focus to a
    button that is left when the one that has it is disabled.

    Otherwise JupyterLab would take the arrow keys of a menu to go to another cell, letters to
    insert or delete one, and Enter on a button to edit the code.
    """

    _esm = """
    function render({ el }) {
      const panel = el.closest(".widget-vbox");
      if (!panel) return void setTimeout(render, 50, { el });
      const mend = () => {
        for (const slider of panel.querySelectorAll(".widget-slider")) {
          const name = slider.querySelector("label")?.textContent;
          const parts = slider.querySelectorAll("[role=slider], [contenteditable]");
          for (const part of name ? parts : []) {
            part.setAttribute("aria-label", name);
            if (part.role !== "slider") part.role = "textbox";
          }
        }
        for (const words of panel.querySelectorAll(".told .widget-html-content"))
          words.ariaLive = "polite";
        for (const control of panel.querySelectorAll("select, button"))
          control.dataset.lmSuppressShortcuts = "true";
      };
      new MutationObserver(mend).observe(panel, { childList: true, subtree: true });
      mend();
      let held = null;  // the button that has the focus, if keys are used and not the mouse
      panel.addEventListener("keydown", ({ target }) => { held = target.closest("button"); });
      panel.addEventListener("pointerdown", () => { held = null; });
      const follow = () => {
        const next = held?.disabled && panel.querySelector("button:enabled");
        if (!next) return;
        held = [document.body, held].includes(document.activeElement) ? next : null;
        held?.focus({ preventScroll: true });
      };
      new MutationObserver(follow).observe(panel, { subtree: true, attributeFilter: ["disabled"] });
    }
    export default { render };
    """
    # ipywidgets marks the focus with a pale blue border, a contrast of 2.2 : 1 on white
    _css = """
    .widget-vbox :is(select, input, button, [role=slider], [contenteditable]):focus-visible {
      outline: 2px solid var(--jp-brand-color1, #1976d2) !important;
    }
    .widget-vbox .widget-checkbox { padding-left: 3px }
    """

    def __init__(self) -> None:
        super().__init__(layout={"display": "none"})
