"""Train a cell of a published table again, as its protocol says, and judge the published number.

The reproduction is a search of one point on several seeds, so that it is planned, resumed, reported
and reused as any other; its study.yaml says what was published (see `Study.reproduces` of the
reports), and its verdict is that of the report.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from reports.labels import plural
from reports.statistics.published_cells import PublishedCell, published_cells
from reports.statistics.published_comparison import DATASETS
from reports.verdicts.words import quantity
from search.exit_codes import STOPPED
from search.options import ANEW, Before, Common, Repeat, Where
from search.study.folder import StudyDir
from search.study.working_copy import existing, opened
from search.terminal import StudyConsole
from search.verbs.start import name_of, start
from search.verbs.verdict import verdict_text
from spaces.load import space_in_layers
from spaces.overrides import apply_overrides
from spaces.read_suite import columns_of
from spaces.reader import Document
from spaces.setting_values import Entry
from spaces.space import Space
from spaces.suite import slug
from tcpa_core.config import TrialConfig
from tcpa_core.errors import ConfigError, StudyError, nearest
from tcpa_core.protocols.base import fixed_settings, load_protocol

COLUMNS = {"vpt-vtab": "vtab1k", "vpt-fgvc": "fgvc", "tcpa-hta": "hta"}
"""Shipped suites whose columns are the data sets of a protocol; --data is the data set itself where
a protocol has none."""
_SAID_BY_CELL = ("protocol", "methods", "seeds")


def chosen_cell(protocol: str, method: str | None, dataset: str | None) -> PublishedCell:
    """The cell that a command names.

    Raises:
        ConfigError: No cell is published of that, or several are.
        PluginError: There is no such protocol.
    """
    load_protocol(protocol)
    cells = published_cells()
    of_protocol = [one for one in cells if one.protocol == protocol]
    if not of_protocol:
        protocols = ", ".join(dict.fromkeys(one.protocol for one in cells))
        raise ConfigError(
            f"no number for a single data set is on record for protocol {protocol!r}; those with "
            f"one: {protocols}. Means over data sets are beside the table of a bench."
        )
    left = of_protocol
    for option, name, place in (("--dataset", dataset, "dataset"), ("--method", method, "method")):
        known = dict.fromkeys(getattr(one, place) for one in left)
        if name is not None and name not in known:
            near = nearest(name, known)
            raise ConfigError(
                f"{option}: nothing is published of {name!r} by {protocol}"
                f"{f' on {dataset}' if place == 'method' and dataset else ''}{near}. Published: "
                f"{', '.join(known)}."
            )
        left = [one for one in left if name in (None, getattr(one, place))]
    if len(left) > 1:
        raise ConfigError(f"{protocol} has {plural(len(left), 'published cell')}; {_asks(left)}.")
    return left[0]


def _asks(cells: Sequence[PublishedCell]) -> str:
    datasets = dict.fromkeys(one.dataset for one in cells)
    methods = dict.fromkeys(one.method for one in cells)
    parts = []
    if len(datasets) > 1:
        parts.append(f"name one with --dataset: {', '.join(datasets)}")
    if len(methods) > 1:
        parts.append(f"name one with --method: {', '.join(methods)}")
    return "; ".join(parts)


def space_of_cell(
    cell: PublishedCell,
    seeds: Sequence[int],
    data: Path | None,
    settings: Mapping[str, Any],
    found: Mapping[str, Entry],
) -> Space:
    """The search of one point that trains a cell.

    Args:
        data: Folder of the data sets, or the data set (see `COLUMNS`); None: the current one.
        settings: Of `--set`.
        found: Settings that a search has found, which count before defaults.

    Raises:
        ConfigError: A setting says what the cell says, or cannot be trained.
    """
    for path in settings:
        if path in _SAID_BY_CELL or path.partition(".")[0] in ("budget", "sampler", "scheduler"):
            raise ConfigError(
                f"--set {path}: a reproduction has one point, of its protocol, on --seeds seeds; "
                "leave it out, or search with 'tcpa search'."
            )
    folder = (data or Path.cwd()).expanduser().absolute()
    document = Document(
        {
            "name": _name(cell, len(seeds)),
            "base": {
                "protocol": cell.protocol,
                "backbone.name": cell.model,
                **cell.own_settings,
            },
            "axes": {"methods": {"choice": [cell.methods]}},
            "sampler": {"name": "grid"},
            "scheduler": {"name": "none"},
            "budget": {"trials": len(seeds)},
            "seeds": list(seeds),
        },
        {},
        f"protocol {cell.protocol}",
        folder,
    )
    document, fixed = apply_overrides(document, settings)
    return space_in_layers(document, fixed, {**_data_of(cell, folder), **found})


def _data_of(cell: PublishedCell, folder: Path) -> dict[str, Entry]:
    """Settings of the cell's data set, whose files lie in a folder."""
    if cell.protocol not in COLUMNS:
        return {"data.root": Entry(".", "--data", folder)}
    columns = columns_of(COLUMNS[cell.protocol]).items()
    column = next(one for name, one in columns if DATASETS.get(name, name) == cell.dataset)
    return {path: one._replace(folder=folder) for path, one in column.items()}


def _name(cell: PublishedCell, seeds: int) -> str:
    return "-".join((slug(cell.protocol), slug(cell.dataset), slug(cell.method), f"{seeds}_seeds"))


def reproduce(
    cell: PublishedCell,
    common: Common,
    where: Where,
    repeat: Repeat,
    tracking_uri: str | None,
    *,
    data: Path | None,
    settings: Mapping[str, Any],
    seeds: int,
    runs: int,
    margin: float,
    search: str | None,
    dry_run: bool,
    before: Before = ANEW,
) -> int:
    """Run a reproduction, or go on with it, and say what it shows.

    Args:
        common: Of which `space` and `trials` say nothing here.
        data, settings: As of `space_of_cell`.
        seeds: Fresh ones.
        runs: Whose mean is published.
        margin: Least difference that matters, as a fraction.
        search: Study whose point is trained; None: defaults and `settings`.
        dry_run: Stop after the plan.

    Returns:
        The exit code, as of `run_and_watch`.

    Raises:
        StudyError: The study is there and was begun with another margin, or another space.
    """
    if before.learn_from:
        raise ConfigError("--learn-from: a reproduction has no sampler; leave it out.")
    found, first = _found(search, common) if search else ({}, 0)
    space = space_of_cell(cell, range(first, first + seeds), data, settings, found)
    asked = _asked(cell, space.trials[0], runs, margin)
    name = name_of(space, common)
    _check_asks_the_same(existing(common.root, name, common.storage), asked)
    console = StudyConsole()
    # Asked again, it says again what it shows.
    code = start(
        space,
        common,
        where,
        replace(repeat, resume=True, wait=repeat.wait_s),
        tracking_uri,
        dry_run=dry_run,
        then=_told(cell, asked),
        before=before,
        about={"reproduces": asked},
    )
    if not dry_run and code != STOPPED:
        study = opened(common.root, name, common.storage)
        console.print(verdict_text(study.path), markup=False, highlight=False, soft_wrap=True)
    return code


def _found(search: str, common: Common) -> tuple[dict[str, Entry], int]:
    """What a search has found on its axes, and a seed from which on it has used none."""
    from search.verbs.confirm import chosen_point  # loads the planning

    study = opened(common.root, search, common.storage)
    settings, _ = chosen_point(study, common.root)
    axes = [path for path in study.space().axes if path in settings and path != "methods"]
    used = max(one.planned.seed for one in study.state().trials.values())
    place = f"--from {search}"
    return {path: Entry(settings[path], place, Path.cwd()) for path in axes}, used + 1


def _asked(cell: PublishedCell, config: TrialConfig, runs: int, margin: float) -> dict[str, Any]:
    """What study.yaml says of it."""
    protocol = load_protocol(cell.protocol)
    fixed = {*fixed_settings(cell.protocol, cell.methods), *cell.own_settings}
    fixed |= {*config.idle_paths()}
    open_ = {
        path: value
        for path, value in config.flat().items()
        if path.partition(".")[0] in ("optim", *cell.methods) and path not in fixed
    }
    always = list(protocol.not_reproduced)
    return {
        "cell": cell.as_dict(), "runs": runs, "margin": margin, "chosen": open_, "always": always
    }  # fmt: skip


def _told(cell: PublishedCell, asked: Mapping[str, Any]) -> str:
    values = ", ".join(quantity(name).said(value) for name, value in cell.values.items())
    caveat = f"; {cell.caveat}" if cell.caveat else ""
    margin = quantity(next(iter(cell.values))).size(asked["margin"])
    return (
        f"then its test scores beside {cell.method} on {cell.dataset}: {values} ({cell.source}"
        f"{caveat}), taken as the mean of {plural(asked['runs'], 'run')}; margin {margin}."
    )


def _check_asks_the_same(study: StudyDir | None, asked: Mapping[str, Any]) -> None:
    """Refuse to judge by another margin, once a study has begun: it is chosen before the result.

    Raises:
        StudyError: It would be.
    """
    if study is None:
        return
    begun = study.document().get("reproduces")
    if begun is None:
        raise StudyError(f"study {study.name!r} is no reproduction; give another --study.")
    was, now = ((one["margin"], one["runs"]) for one in (begun, asked))
    if was != now:
        words = [f"--margin {100 * margin:g} --runs {runs}" for margin, runs in (was, now)]
        raise StudyError(
            f"study {study.name!r} was begun with {words[0]}, not {words[1]}; judge it by what "
            "was said before its result, or give another --study: what is trained is taken over."
        )
