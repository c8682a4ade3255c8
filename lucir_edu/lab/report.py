"""A page that compares runs: tables and figures in one file that needs no network."""

from pathlib import Path

from jinja2 import Environment

from lucir_edu.config import UsageError
from lucir_edu.lab import plots
from lucir_edu.runs import MEASURES, Run, compare, label

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; display: block; overflow-x: auto; margin: 1rem 0 }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid #8886 }
th:first-child, td:first-child { text-align: left }
td { white-space: nowrap; font-size: .95rem }
figure { margin: 1.5rem 0 } img { max-width: 100%; background: white }
figcaption { font-size: .9rem; opacity: .8 }
@media (prefers-color-scheme: dark) { body { background: #1b1b1b; color: #e6e6e6 } }
</style></head><body>
<h1>{{ title }}</h1>
{% for preset, part in parts.items() %}
<h2>{{ preset }}</h2>
<p>Mean ± standard deviation over seeds, in percent.</p>
<table><thead><tr><th>setting</th><th>seeds</th>
{% for measure in measures %}<th>{{ measure }}</th>{% endfor %}</tr></thead><tbody>
{% for row in part.rows %}<tr><td>{{ row.label }}</td><td>{{ row.seeds | length }}</td>
{% for measure in measures %}<td>{% if row[measure] is not none %}
{{ "%.2f" | format(row[measure][0]) }} ± {{ "%.2f" | format(row[measure][1]) }}
{% else %}–{% endif %}</td>{% endfor %}</tr>
{% endfor %}</tbody></table>
{{ part.accuracy | safe }}
{% for name, run, figures in part.runs %}
<h3>{{ name }}, seed {{ run.seed }}</h3>
{% for figure in figures %}{{ figure | safe }}{% endfor %}
<details><summary>environment and settings</summary><table><tbody>
{% for key, value in run.environment.items() %}<tr><td>{{ key }}</td><td>{{ value }}</td></tr>
{% endfor %}
{% for key, value in run.config.items() %}<tr><td>{{ key }}</td><td>{{ value }}</td></tr>
{% endfor %}</tbody></table></details>
{% endfor %}{% endfor %}
</body></html>
"""


def write(runs: list[Run], path: Path, title: str = "Class-incremental learning: results") -> None:
    """Write the page.

    Figures are drawn for the first seed of each setting.

    Raises:
        UsageError: the file cannot be written.
    """
    parts: dict[str, dict] = {}
    for row in compare(runs):
        part = parts.setdefault(row["preset"], {"rows": [], "runs": [], "firsts": {}})
        part["rows"].append(row)
    for run in runs:
        part = parts[run["preset"]]
        name = label(run)
        if name not in part["firsts"]:
            part["firsts"][name] = run
            figures = [plots.html(plots.head(run)), plots.html(plots.confusion(run))]
            part["runs"].append((name, run, figures))
    for part in parts.values():
        part["accuracy"] = plots.html(plots.accuracy(part["firsts"]))
    page = Environment(autoescape=True).from_string(PAGE)
    text = page.render(title=title, parts=parts, measures=list(MEASURES))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {path} ({error.strerror})") from None
