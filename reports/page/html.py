"""One self-contained page: the answer first, then the evidence, then every trial.

What a part of the page shows is gathered by a module of its name; how it is shown stands in
templates/PART.html.j2, PART.css and PART.js.
"""

import json
from collections.abc import Sequence
from importlib.resources import files

import jinja2
from markupsafe import Markup

from reports.draw import Drawn
from reports.frames import Frames
from reports.labels import methods_label
from reports.page.evidence import ablation_rows, evidence
from reports.page.front import front
from reports.page.trials import trial_data
from reports.parquet import write_text
from reports.statistics.published_comparison import Published
from reports.summary import ReportSummary

PARTS = ("report", "front", "evidence", "samples", "trials")
"""Parts of the page that have styles and a script; what they share stands in the first."""


def write_html(
    summary: ReportSummary,
    found: Frames,
    drawn: Sequence[Drawn],
    published: Sequence[Published] = (),
) -> None:
    """Write report.html; styles, script, figures and data are inside it, so it needs no network."""
    environment = jinja2.Environment(
        # the installed package may be a zip file
        loader=jinja2.FunctionLoader(_template),
        # Names and messages of a study are shown as text; StrictUndefined fails on a misspelt name.
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["methods"] = methods_label
    data = trial_data(found, summary)
    page = environment.get_template("report.html.j2").render(
        summary=summary,
        study=found.study,
        objective=found.study.objectives[0],
        ablation=ablation_rows(found.ablation),
        front=front(found, drawn),
        evidence=evidence(found, drawn, published),
        versions=found.study.document.get("versions", {}),
        git=found.study.document.get("git", ""),
        style=Markup("".join(_template(f"{part}.css") for part in PARTS)),
        script=Markup("".join(_template(f"{part}.js") for part in PARTS)),
        # "<" cannot end the script element early, nor can a comment begin
        data=Markup(
            json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
        ),
    )
    write_text(summary.html, page)


def _template(name: str) -> str:
    return (files("reports.page.templates") / name).read_text(encoding="utf-8")
