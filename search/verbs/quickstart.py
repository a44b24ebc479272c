"""The main job on embedded defaults: search, component ablation, reports. No network, no GPU."""

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any

from rich.console import Console
from rich.markdown import Markdown

from reports.build import build_report
from reports.summary import ReportSummary
from search.driver.ray_session import connect
from search.exit_codes import DONE, FAILURES, STOPPED
from search.options import Repeat
from search.planning.plan import Decoding, plan_space
from search.planning.plan_view import show_plan
from search.planning.requested_space import requested_space
from search.study.folder import StudyDir
from search.verbs.run import run_watched
from search.verbs.stages import Stages
from search.verbs.taking_up import taken_up

SEARCH, ABLATION = "quickstart", "quickstart_components"
"""Names of the two studies."""
SHORTER = {"train.epochs": 3, "tcpa.prompt_dropout": 0.0}
"""What the quickstart changes in the ablation preset, to be over in a minute."""


def run_quickstart(root: Path, tracking_uri: str | None, console: Console) -> int:
    """Run what is left of the two studies and print where to look.

    Returns:
        The exit code: 0 both are complete, 1 a trial failed, 3 a signal stopped it.
    """
    # All it needs is shipped: a hub that does not answer would be waited for.
    os.environ["HF_HUB_OFFLINE"] = "1"
    with connect(None, os.cpu_count() or 1):  # one start of Ray for both studies
        return _run_both(root, tracking_uri, console)


def _run_both(root: Path, tracking_uri: str | None, console: Console) -> int:
    reports = []
    for name, preset, settings in (
        (SEARCH, "quickstart", {}),
        (ABLATION, "tcpa_components", SHORTER),
    ):
        make = partial(_made, name, preset, settings, root, tracking_uri, console)
        # Called again, it goes on where it was interrupted, whatever a newer version's preset says.
        with taken_up(root, name, None, make, console, Repeat(resume=True)) as (study, _):
            outcome = run_watched(study, root, console, tracking_uri=tracking_uri)
            if not outcome.finished:
                console.print(
                    f"{outcome.reason}; 'tcpa quickstart' goes on from here.", markup=False
                )
                return STOPPED
            failed = outcome.counts.get("failed", 0)
            if failed:
                console.print(f"{failed} trials of {name} failed; see its report.", markup=False)
            with Stages("report") as stages:
                reports.append(build_report(study.path, progress=stages))
    _summarise(root, reports[0], reports[1], console)
    return FAILURES if any(report.num_failed for report in reports) else DONE


def _made(
    name: str,
    preset: str,
    settings: Mapping[str, Any],
    root: Path,
    tracking_uri: str | None,
    console: Console,
) -> tuple[StudyDir, None]:
    space = requested_space(preset, settings)
    with Stages("checking weights and data") as stages:
        decoding = Decoding(keep=True, progress=stages)
        plan = plan_space(space, name, root, tracking_uri=tracking_uri, decoding=decoding)
    show_plan(plan, console)
    return plan.create(), None


def _summarise(
    root: Path, search: ReportSummary, ablation: ReportSummary, console: Console
) -> None:
    console.rule("search")
    for line in search.lines():
        console.print(line, markup=False, soft_wrap=True)
    console.rule("components")
    console.print(Markdown(ablation.ablation_markdown))
    console.print(f"Reports: {search.html}", markup=False, soft_wrap=True)
    console.print(f"         {ablation.html}", markup=False, soft_wrap=True)
    console.print(
        f"MLflow:  tcpa dashboard --root {quote(str(root))}", markup=False, soft_wrap=True
    )
