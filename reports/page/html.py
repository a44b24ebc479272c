"""One self-contained page: the answer first, then the evidence, then every trial.

What a part of the page shows is gathered by a module of its name; how it is shown stands in
templates/PART.html.j2, .css and .js. `report` is what all parts share.
"""

from collections.abc import Sequence
from datetime import datetime

from reports.draw import Drawn
from reports.frames import Frames
from reports.page.evidence import ablation_rows, evidence
from reports.page.front import front
from reports.page.regions import FIGURES as REGION_FIGURES
from reports.page.regions import regions
from reports.page.rendering import render
from reports.page.samples import FIGURES, compared, samples
from reports.page.swatch import PATHS
from reports.page.trials import trial_data
from reports.parquet import write_text
from reports.plots.base import styles_of
from reports.statistics.published_comparison import Published
from reports.summary import ReportSummary

STYLES = ("report", "front", "evidence", "samples", "trials", "live")
"""Those of every page; one of a segmentation has "regions", too."""
SCRIPTS = ("report", "filter", "print", "front", "scatter", "parallel", "samples", "trials", "live")
"""Each uses what those before it define."""


def write_html(
    summary: ReportSummary,
    found: Frames,
    drawn: Sequence[Drawn],
    published: Sequence[Published] = (),
    live_s: float | None = None,
    confirmation: Frames | None = None,
) -> None:
    """Write report.html; styles, script, figures and data are inside it, so it needs no network.

    Args:
        confirmation: Of the study that confirms this one.
        live_s: Seconds until it is written again, since the study runs; None: it stays.
    """
    paths = {name: [*style, PATHS[style[1]]] for name, style in styles_of(found).items()}
    of_images = samples(found, [one for one in drawn if one.name in FIGURES])
    data = {**trial_data(found, summary), "styles": paths, "samples": compared(of_images)}
    of_pixels = regions(found, [one for one in drawn if one.name in REGION_FIGURES])
    elsewhere = (*FIGURES, *REGION_FIGURES)
    page = render(
        "report",
        styles=(*STYLES, "regions") if of_pixels else STYLES,
        scripts=SCRIPTS,
        data=data,
        live_s=live_s,
        summary=summary,
        study=found.study,
        objective=found.study.objectives[0],
        ablation=ablation_rows(found.ablation),
        front=front(found, summary, datetime.now().astimezone(), confirmation),
        evidence=evidence(found, [one for one in drawn if one.name not in elsewhere], published),
        samples=of_images,
        regions=of_pixels,
        trials={"constants": data["constants"]},
        versions=found.study.document.get("versions", {}),
        git=found.study.document.get("git", ""),
    )
    write_text(summary.html, page)
