"""Load a space: a file, a preset, or the record of a study; all of it is checked.

It is refused, with path, value and line, if any point of it could not be trained. Its sections are
read in `spaces.draft`, and checked against each other in `spaces.checks`.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spaces.axes import ChoiceAxis, label
from spaces.checks import check_space
from spaces.constraints import parse_relation
from spaces.draft import BY_LOSS, Draft, read_draft
from spaces.factor_designs import FractionalFactorial
from spaces.overrides import apply_overrides
from spaces.reader import Document
from spaces.record import as_it_was, lacks_runs, recorded_in
from spaces.setting_values import Entry
from spaces.shipped import PRESETS
from spaces.space import Space
from tcpa_core.config import Flat
from tcpa_core.errors import ConfigError, nearest


def load_space(
    source: str,
    overrides: Mapping[str, Any] | None = None,
    winner: tuple[Mapping[str, Any], str] | None = None,
) -> Space:
    """Read and check a space.

    Args:
        source: A YAML file, or the name of a preset; a study.yaml stands for the space of its
            study.
        overrides: Values of `--set`: settings of a trial by dotted path, which are fixed (an axis
            of that path is dropped), and study-wide keys such as `budget.trials`. Relative file
            names among them are relative to the current folder.
        winner: Settings that replace those of the file's base, and where they come from.

    Raises:
        ConfigError: The file cannot be read, or any point of the space could not be trained.
    """
    recorded = _recorded(source)
    if recorded is not None:
        path = Path(os.path.expanduser(source))
        document = Document(as_it_was(recorded), {}, source, path.absolute().parent)
        return _with_its_runs(_build(document, overrides or {}, _entries(winner)), recorded)
    document = PRESETS.read(source)
    space = _build(document, overrides or {}, _entries(winner))
    # Asked of new studies only: one on disk may have begun so, and goes on.
    if space.objective[0].metric == "val_loss" and space.base.get("train.selection") == "best_val":
        raise ConfigError(
            "objective val_loss would be the loss of the epoch with the highest val accuracy, as "
            f"train.selection is 'best_val' ({space.place}); set train.selection to {BY_LOSS!r}, "
            "which is the default then, or to 'last_epoch'."
        )
    return space


def is_record(source: str) -> bool:
    """Whether a source is the study.yaml of a study, which somebody else may have written."""
    return _recorded(source) is not None


def _recorded(source: str) -> Mapping[str, Any] | None:
    """The space of a study, where a source is the record of one."""
    path = Path(os.path.expanduser(source))
    return None if source in PRESETS.names() or not os.path.isfile(path) else recorded_in(path)


def space_in_layers(
    document: Document, fixed: Mapping[str, Entry], start: Mapping[str, Entry]
) -> Space:
    """The space of a document with settings that stand elsewhere.

    Args:
        fixed: Settings that replace those of the document and its axes, as `--set` does.
        start: Settings that count before those of the document's base.

    Raises:
        ConfigError: As `load_space`.
    """
    return _checked(document, fixed, start)


def space_of(data: Mapping[str, Any], source: str = "study.yaml") -> Space:
    """The space that `Space.as_dict` gave, or that was read from YAML already.

    Raises:
        ConfigError: As `load_space`.
    """
    return _build(Document(dict(data), {}, source, Path.cwd()), {}, {})


def stored_space(data: Mapping[str, Any], source: str) -> Space:
    """The space of a study on disk.

    What its protocol or objective has come to fix since the study was made stays what it was: the
    default. A fraction whose runs were not recorded keeps the columns of that version.

    Raises:
        ConfigError: As `load_space`.
    """
    return _with_its_runs(space_of(as_it_was(data), source), data)


def _with_its_runs(space: Space, data: Mapping[str, Any]) -> Space:
    """A space from a record, with the columns that its fraction had."""
    if isinstance(space.ablation, FractionalFactorial) and lacks_runs(data):
        return space.replaced(ablation=space.ablation.as_older())
    return space


def per_method(space: Space) -> dict[str, Space]:
    """A space for each method chain, by its label; `sampler.per` searches them side by side.

    Raises:
        ConfigError: `methods` does not vary, early stopping would compare methods by how fast
            they learn, the budget has less than one point for each, or nothing varies but
            `methods`.
    """
    axis, place = space.axes.get("methods"), space.place
    if not isinstance(axis, ChoiceAxis):
        raise ConfigError(
            f"sampler.per 'methods' compares methods, but {place} has no axis of them; "
            "add axes: {methods: {choice: [[vpt], [tcpa]]}}."
        )
    if space.scheduler.name != "none":
        raise ConfigError(
            f"sampler.per 'methods' needs scheduler.name none, got {space.scheduler.name!r} "
            f"({place}): stopping early would compare how fast methods learn."
        )
    least = len(axis.options) * space.least_seeds
    if space.budget.trials is not None and space.budget.trials < least:
        raise ConfigError(
            f"budget.trials must be at least {least} (methods x seeds), got "
            f"{space.budget.trials} ({place}); every method gets the same number."
        )
    # By the way of its record, as an override of `methods` also drops what other methods have.
    data = space.as_dict()
    data["sampler"].pop("per", None)
    document = Document(data, {}, space.source, Path.cwd())
    return {label(chain): _build(document, {"methods": chain}, {}) for chain in axis.options}


def trials_per_method(space: Space) -> int | None:
    """Trials that each method gets with `sampler.per`; None: the budget is time."""
    points = (space.budget.trials or 0) // (len(space.axes["methods"].ends()) * space.least_seeds)
    return points * space.least_seeds or None


def _entries(winner: tuple[Mapping[str, Any], str] | None) -> dict[str, Entry]:
    settings, place = winner or ({}, "")
    return {path: Entry(value, place, Path.cwd()) for path, value in settings.items()}


def _build(document: Document, overrides: Mapping[str, Any], winner: Mapping[str, Entry]) -> Space:
    _check_root(document)
    return _checked(*apply_overrides(document, overrides), winner)


def _checked(document: Document, fixed: Mapping[str, Entry], winner: Mapping[str, Entry]) -> Space:
    draft = read_draft(document, fixed, winner)
    space = _with_active_axes(draft, fixed)
    points: list[Flat] = []
    for written, place in draft.first_points:
        point = _kept(written, place, space, fixed)
        if point is not None and point not in points:
            points.append(point)
    # Done last, as points are checked against the axes that are left.
    if points:
        space = space.replaced(first_points=tuple(points))
    check_space(space)
    if space.sampler.per:
        per_method(space)
    return space


def _check_root(document: Document) -> None:
    if not isinstance(document.data, dict):
        kind = "empty" if document.data is None else f"a {type(document.data).__name__}"
        raise ConfigError(
            f"{document.label} must be a mapping with keys name, base, axes or ablation, ...; "
            f"it is {kind}."
        )


def _with_active_axes(draft: Draft, fixed: Mapping[str, Entry]) -> Space:
    """The space without axes that are never active; only an override may have made them so."""
    space = draft.space
    reached = {path for corner in space.points.corners for path in corner}
    for path in space.axes.keys() - reached if not fixed else ():
        when = {p: list(v) for p, v in space.axes[path].when.items()}
        raise ConfigError(
            f"axis {path} is never active: nothing fulfils when {when} "
            f"({draft.places[path]}); correct the condition or remove the axis."
        )
    axes = {path: axis for path, axis in space.axes.items() if path in reached}
    if len(axes) == len(space.axes):
        return space
    bound = tuple(
        text
        for text in space.constraints
        if any(path in axes for path in parse_relation(text, space.place).paths())
    )
    return space.replaced(axes=axes, constraints=bound)


def _kept(point: Flat, place: str, space: Space, fixed: Mapping[str, Entry]) -> Flat | None:
    """A first point without what overrides have fixed; None if they contradict it."""
    chain = space.base.get("methods") if "methods" in fixed else None
    # The point is of a method that is not searched any more.
    if chain is not None and point.get("methods", chain) != chain:
        return None
    for path in point:
        if path not in space.axes and not fixed:
            raise ConfigError(
                f"first point {point} sets {path}, which is not an axis ({place})"
                f"{nearest(path, space.axes)}; settings that do not vary belong in base."
            )
    return {path: value for path, value in point.items() if path in space.axes}
