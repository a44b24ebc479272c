"""How MLflow's pages show a study: which columns, in which order, and which charts.

MLflow keeps such a view in a tag of the experiment, as its button "Share" makes it, and opens it
by an address; what the pages read of it is held by test_private_names_of_mlflow.py.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from search.tracking.mlflow_internals import SHARED_VIEW
from spaces.space import Space
from tcpa_core.record import mirror_schema as mirror
from tcpa_core.record.scores import score_of

KEY = "tcpa"
"""Name of the view in an address."""
_ONLY_TRIALS = f"tags.`{mirror.TRIAL}` LIKE '%'"
"""Without the study's own run the pages list trials flat, and sort them."""
MOST_PARAMS = 12
"""Columns of settings; a design over more of them would push the values out of sight."""


def searched(space: Space | None) -> list[str]:
    """Dotted paths of the settings that vary, in the order of the space."""
    if space is None:
        return []
    return sorted(space.ablation.paths()) if space.ablation else list(space.axes)


def view_tag(space: Space | None) -> dict[str, str]:
    """The tag of an experiment that holds the view of its study.

    Args:
        space: None: it cannot be read; then the view has the columns of every study.
    """
    return {SHARED_VIEW + KEY: json.dumps(_view(space), separators=(",", ":"))}


_TRAINING = "workflowType=machine_learning"
"""Makes the pages show what belongs to training, and not to language models."""


def start_page(server: str) -> str:
    """The list of all studies on the pages of a server."""
    return f"{server}/#/experiments?{_TRAINING}"


def view_address(server: str, experiment: str, tags: Mapping[str, str]) -> str:
    """Where the pages of a server show the runs of an experiment, in its view where it has one.

    Args:
        tags: Of the experiment.
    """
    view = f"viewStateShareKey={KEY}&" if SHARED_VIEW + KEY in tags else ""
    return f"{server}/#/experiments/{experiment}/runs?{view}{_TRAINING}"


def _view(space: Space | None) -> Mapping[str, Any]:
    goals: list[tuple[str, bool]] = [
        (one.metric, one.maximize) for one in (space.objective if space else ())
    ]
    score = score_of(space.base if space else {})
    (metric, maximize), *others = goals or [(score.val, True)]
    params = searched(space)[:MOST_PARAMS]
    metrics = dict.fromkeys(
        [metric, *(name for name, _ in others), "best_epoch", "num_epochs", "num_trainable"]
    )
    columns = [
        _column("tags", mirror.STATUS),
        *(_column("metrics", name) for name in metrics),
        *(_column("params", path) for path in params),
        _column("attributes", "Duration"),
        _column("tags", mirror.REASON),
    ]
    return {
        "searchFilter": _ONLY_TRIALS,
        "orderByKey": _column("metrics", metric),
        "orderByAsc": not maximize,
        "selectedColumns": columns,
        "columnOrder": columns,
        "runsHiddenMode": "FIRST_20_RUNS",
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0,
                                  "selectedXAxisMetricKey": ""},
        # else the charts that MLflow makes of every other metric come first
        "isAccordionReordered": True,
        "compareRunSections": [_SECTION],
        "compareRunCharts": _charts(metric, params),
    }  # fmt: skip


_SECTION = {"uuid": "tcpa", "name": "Study", "display": True, "isReordered": True}


def _charts(metric: str, params: Sequence[str]) -> list[Mapping[str, Any]]:
    """Learning curves, the values, the settings beside them, and the value against the size."""
    curve = mirror.EPOCH_METRICS.get(metric)
    size = "num_trainable"
    axes = [{"key": key, "type": "METRIC"} for key in (size, metric)]
    charts: list[Mapping[str, Any]] = [
        {"type": "PARALLEL", "selectedParams": list(params), "selectedMetrics": [metric],
         "showAllRuns": False, "displayName": f"settings and {metric}"},
        {"type": "BAR", "metricKey": metric, "runsCountToCompare": 20},
        {"type": "SCATTER", "xaxis": axes[0], "yaxis": axes[1], "runsCountToCompare": 100},
    ]  # fmt: skip
    if curve:
        charts.insert(0, {"type": "LINE", "metricKey": curve, "selectedMetricKeys": [curve],
                          "xAxisKey": "step", "lineSmoothness": 0,
                          "scaleType": "linear", "runsCountToCompare": 20})  # fmt: skip
    return [
        {"uuid": f"tcpa-{n}", "metricSectionId": _SECTION["uuid"], "deleted": False,
         "isGenerated": False, **chart}
        for n, chart in enumerate(charts)
    ]  # fmt: skip


def _column(kind: str, name: str) -> str:
    return f"{kind}.`{name}`"
