"""A page that compares runs: tables, figures and switches in one file that needs no network."""

import base64
import gzip
import importlib.resources
import json
from pathlib import Path
from typing import Any

import plotly.io
from jinja2 import Environment
from plotly.offline import get_plotlyjs
from plotly.utils import PlotlyJSONEncoder

from lucir_edu.config import Config
from lucir_edu.datasets import load
from lucir_edu.lab import plots, views
from lucir_edu.lab.explorer import SHORTS, Bank
from lucir_edu.runs import MEASURES, Run, compare, firsts

FILES = importlib.resources.files("lucir_edu.lab")


def write(runs: list[Run], path: Path, title: str = "Class-incremental learning: results") -> None:
    """Write the page.

    The switches offer all runs; the figures that need no JavaScript are of the lowest seed of each
    setting.
    """
    parts: dict[str, dict[str, Any]] = {}
    for row in compare(runs):
        parts.setdefault(row["preset"], {"rows": []})["rows"].append(row)
    for preset, part in parts.items():
        of_preset = [run for run in runs if run["preset"] == preset]
        shown = firsts(of_preset)
        part["runs"] = [
            (name, run, [plots.html(plots.head(run)), plots.html(plots.confusion(run))])
            for name, run in shown.items()
        ]
        part["accuracy"] = plots.html(plots.accuracy(shown))
        bank = Bank(of_preset)
        part["bank"] = packed(bank)
        part["views"] = {name: views.VIEWS[name].title for name in bank.views}
        part["others"] = bank.others
    page = Environment(autoescape=True).from_string((FILES / "report.html").read_text("utf-8"))
    text = page.render(
        title=title,
        parts=parts,
        measures=list(MEASURES),
        components=[words for _, words in views.COMPONENTS.values()],
        plotly=get_plotlyjs(),
        script=(FILES / "explorer.js").read_text("utf-8"),
    )
    path.write_text(text, encoding="utf-8")


def packed(bank: Bank) -> str:
    """All that the page's explorer shows of some runs: JSON, gzip, base64."""
    content: dict[str, Any] = {
        "shorts": SHORTS,
        "views": {name: views.VIEWS[name].pairs for name in bank.views},
        "first": str(bank.first),
        "seeds": {name: bank.seeds(name) for name in bank.settings},
        "template": plotly.io.templates["plotly_white"].to_plotly_json(),
        "pictures": {},
        "runs": {},
    }
    for name, seeds in content["seeds"].items():
        for seed in seeds:
            run = bank[name, seed]
            phases = range(len(run["phases"]))
            content["runs"][f"{name}/{seed}"] = {
                "figures": [views.figures(run, phase) for phase in phases],
                "drawings": {
                    view: [_both(view, run, phase) for phase in phases] for view in bank.views
                },
            }
    if run["config"]["dataset"] == "glyphs":  # drawn here; others would have to be fetched
        content["pictures"] = plots.thumbnails(load(Config.from_dict(run["config"])))
    text = json.dumps(content, cls=PlotlyJSONEncoder, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def _both(view: str, run: Run, phase: int) -> tuple:
    """A drawing with its layout for the whole width and for half of it."""
    wide, narrow = (views.draw(view, run, phase, room) for room in (True, False))
    return wide.traces, wide.layout, narrow.layout, wide.words
