"""The space of a study: YAML in, checked and frozen objects out.

`load_space` reads a file or a preset and refuses it, with path, value and line, if any point of it
could not be trained. The grammar is in `spaces.draft`, axes in `spaces.grammar_axes`, ablation
designs in `spaces.designs`.
"""

import os
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Self

from spaces.axes import Axis, ChoiceAxis, Suggester, label
from spaces.constraints import parse_relation
from spaces.designs import Ablation, Cell, DesignPoint
from spaces.draft import BY_LOSS, Draft, read_draft
from spaces.points import Walk
from spaces.reader import Document, read_file, read_text
from spaces.sections import Budget, Objective, SamplerConfig, SchedulerConfig
from spaces.setting_values import Entry, default, methods
from tcpa_core import plugins
from tcpa_core.config import METHODS, Flat, Settings, TrialConfig
from tcpa_core.errors import ConfigError, nearest
from tcpa_core.protocols.base import load_protocol, protocol_names

MAX_DESIGN_TRIALS = 10_000

_PRESETS = files("spaces.presets")


class Space(Settings):
    """What a study varies, and how; build it with `load_space` or `from_dict`."""

    name: str
    """Default name of the study."""
    base: Flat
    """Fixed settings by dotted path; the rest are defaults."""
    axes: dict[str, Axis]
    constraints: tuple[str, ...]
    ablation: Ablation | None
    objective: tuple[Objective, ...]
    sampler: SamplerConfig
    scheduler: SchedulerConfig
    budget: Budget
    seeds: tuple[int, ...]
    """Replicates of every point."""
    first_points: tuple[Flat, ...]
    """Partial points to try first; `complete` fills them up."""
    source: str
    """File or preset, for messages and records."""

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], source: str = "study.yaml") -> Self:
        """Build a space from what `as_dict` gave, or from YAML already read.

        Raises:
            ConfigError: As `load_space`.
        """
        return cls._build(Document(dict(data), {}, source, Path.cwd()), {})

    @classmethod
    def from_stored(cls, data: Mapping[str, Any], source: str) -> Self:
        """Build the space of a study on disk.

        What its protocol or objective has come to fix since the study was made stays what it was:
        the default. A fraction whose runs were not recorded keeps the columns of that version.

        Raises:
            ConfigError: As `load_space`.
        """
        base, axes = dict(data.get("base") or {}), data.get("axes") or {}
        name, objective = base.get("protocol"), data.get("objective") or {}
        leading = objective[0] if isinstance(objective, list) else objective
        if isinstance(leading, dict) and leading.get("metric") == "val_loss":
            if "train.selection" not in axes:
                base.setdefault("train.selection", default("train.selection"))
        if name in protocol_names():
            protocol, chosen = load_protocol(name), plugins.names(METHODS)
            left = {path for facts in protocol.of_methods.values() for path in facts}
            for path in protocol.facts.keys() - base.keys() - axes.keys() - left:
                if path.partition(".")[0] not in chosen:
                    base[path] = default(path)
        space = cls.from_dict({**data, "base": base}, source)
        ablation = space.ablation
        if ablation is None or ablation.runs is None or "runs" in data["ablation"]:
            return space
        older = ablation.model_copy(update={"is_older": True})
        return space.model_copy(update={"ablation": older})

    @classmethod
    def _build(
        cls,
        document: Document,
        overrides: Mapping[str, Any],
        winner: Mapping[str, Entry] | None = None,
    ) -> Self:
        draft = read_draft(document, overrides, winner)
        space = cls._of(draft, draft.axes, (), document.label)
        axes = space._active_axes(draft)
        points: list[Flat] = []
        for written, place in draft.first_points:
            point = _kept(written, place, axes, draft)
            if point is not None and point not in points:
                points.append(point)
        space = cls._of(draft, axes, tuple(points), document.label)
        space._check()
        return space

    @classmethod
    def _of(
        cls, draft: Draft, axes: dict[str, Axis], points: tuple[Flat, ...], source: str
    ) -> Self:
        bound = [r for r in draft.relations if any(path in axes for path in r.paths())]
        return cls(
            name=draft.name,
            base=draft.base,
            axes=axes,
            constraints=tuple(relation.text for relation in bound),
            ablation=draft.ablation,
            objective=draft.objective,
            sampler=draft.sampler,
            scheduler=draft.scheduler,
            budget=draft.budget,
            seeds=draft.seeds,
            first_points=points,
            source=source,
        )

    def suggest(self, trial: Suggester) -> Flat:
        """Ask a sampler for a point; inactive axes are left out.

        Args:
            trial: An Optuna trial or anything with its three `suggest_` methods.

        Returns:
            Value of each active axis by dotted path.
        """
        return self._walk.walk(lambda path, axis: axis.suggest(trial, path))

    def params(self, point: Flat) -> Flat:
        """What a trial's `suggest_` calls have to return, by name, to make `suggest` give `point`.

        Names are dotted paths but for fractions ("PATH/OF"), whose value is the share.

        Args:
            point: A full point, from `suggest`, `complete`, `corners` or `grid`.
        """
        out: Flat = {}

        def note(path: str, axis: Axis) -> Any:
            name, value = axis.param(path, point[path])
            out[name] = value
            return point[path]

        self._walk.walk(note)
        return out

    def point_of(self, config: TrialConfig) -> Flat:
        """The point whose trial has these settings."""
        flat = config.flat()
        return self._walk.walk(lambda path, _: flat[path])

    def complete(self, partial: Flat) -> Flat:
        """Fill a point up: axes it leaves open take their setting's default.

        Raises:
            ConfigError: A value outside its axis, an axis that is not active at this point, or a
                default outside its axis.
        """

        for path in partial:
            if path not in self.axes:
                raise ConfigError(
                    f"first point {partial}: {path} is no axis ({self._place})"
                    f"{nearest(path, self.axes)}; settings that do not vary belong in base."
                )
        so_far: Flat = {}

        def pick(path: str, axis: Axis) -> Any:
            given = path in partial
            value = partial[path] if given else self.config(so_far, seed=0).flat()[path]
            if not axis.contains(value):
                why = "is" if given else "is left open, and its default is"
                raise ConfigError(
                    f"first point {partial}: {path} {why} {value!r}, outside its axis "
                    f"{_without_when(axis)} ({self._place}); give it a value there."
                )
            so_far[path] = value
            return value

        point = self._walk.walk(pick)
        for path in partial:
            if path not in point:
                raise ConfigError(
                    f"first point {partial}: axis {path} is not active there ({self._place}); "
                    "remove it, or set what its condition asks for."
                )
        return point

    def config(self, point: Flat, seed: int) -> TrialConfig:
        """Settings of the trial at a point: base and point, without sections of other methods.

        Raises:
            ConfigError: Settings that contradict each other.
        """
        chain = point.get("methods", self.base.get("methods", default("methods")))
        outside = methods() - set(chain)
        base = {p: v for p, v in self.base.items() if p.partition(".")[0] not in outside}
        return TrialConfig.from_flat({**base, **point, "seed": seed}, place=self._place)

    def corners(self) -> Iterator[Flat]:
        """Points at the ends of the ranges and at every choice; at most 5,000 (see `Walk`).

        Of an ablation: its points.
        """
        return (
            self._walk.corners()
            if self.ablation is None
            else (point for point, _ in self._merged(self.ablation))
        )

    def grid(self) -> Iterator[Flat]:
        """Every point once; only where `size` is a number."""
        return self._walk.grid()

    def shifting_axes(self) -> list[str]:
        """Axes that some points lack, or whose bounds depend on the point.

        Samplers that draw several axes together leave these out.
        """
        return self._walk.shifting()

    def idle_axes(self) -> dict[str, Flat | None]:
        """Axes that change nothing at some points, and at which for example; None: at all."""
        at: dict[str, list[tuple[Flat, bool]]] = {path: [] for path in self.axes}
        for corner in self.corners():
            idle = self.config(corner, self.seeds[0]).idle_paths()
            for path in corner:
                at[path].append((corner, path in idle))
        out: dict[str, Flat | None] = {}
        for path, met in at.items():
            idle_at = [corner for corner, is_idle in met if is_idle]
            if idle_at:
                out[path] = None if len(idle_at) == len(met) else idle_at[0]
        return out

    def equal_levels(self) -> dict[str, list[str]]:
        """Factors of an ablation, and levels of them that are one trial in some place."""
        out: dict[str, list[str]] = {}
        for _, cells in self._merged(self.ablation) if self.ablation else ():
            for cell in cells:
                same = {
                    c.level: None
                    for c in cells
                    if (c.factor, c.dataset) == (cell.factor, cell.dataset)
                }
                if len(same) > 1 and cell.factor != "combination":
                    out.setdefault(cell.factor, list(same))
        return out

    def size(self) -> int | None:
        """Number of distinct points; None if endless or above what can be counted."""
        return self._walk.size() if self.ablation is None else len(self._merged(self.ablation))

    def design(self) -> tuple[DesignPoint, ...]:
        """The trials of an ablation, replicate by replicate; equal points are one trial.

        Raises:
            ConfigError: The space is a search, or a point contradicts itself.
        """
        if self.ablation is None:
            raise ConfigError(f"{self._place} is a search; only an ablation has a design.")
        return tuple(
            DesignPoint(point=point, seed=seed, cells=tuple(cells))
            for seed in self.seeds
            for point, cells in self._merged(self.ablation)
        )

    def per_method(self) -> dict[str, Self]:
        """A space for each method chain, by its label; `sampler.per` searches them side by side.

        Raises:
            ConfigError: `methods` does not vary, early stopping would compare methods by how fast
                they learn, the budget has less than one point for each, or nothing varies but
                `methods`.
        """
        axis = self.axes.get("methods")
        if not isinstance(axis, ChoiceAxis):
            raise ConfigError(
                f"sampler.per 'methods' compares methods, but {self._place} has no axis of them; "
                "add axes: {methods: {choice: [[vpt], [tcpa]]}}."
            )
        if self.scheduler.name != "none":
            raise ConfigError(
                f"sampler.per 'methods' needs scheduler.name none, got {self.scheduler.name!r} "
                f"({self._place}): stopping early would compare how fast methods learn."
            )
        least = len(axis.options) * len(self.seeds)
        if self.budget.trials is not None and self.budget.trials < least:
            raise ConfigError(
                f"budget.trials must be at least {least} (methods x seeds), got "
                f"{self.budget.trials} ({self._place}); every method gets the same number."
            )
        data = self.as_dict()
        data["sampler"].pop("per", None)
        document = Document(data, {}, self.source, Path.cwd())
        return {label(chain): self._build(document, {"methods": chain}) for chain in axis.options}

    def trials_per_method(self) -> int | None:
        """With `sampler.per`: trials that each method gets; None: the budget is time."""
        axis = self.axes["methods"]
        assert isinstance(axis, ChoiceAxis)
        points = (self.budget.trials or 0) // (len(axis.options) * len(self.seeds))
        return points * len(self.seeds) or None

    def as_dict(self) -> dict[str, Any]:
        """The space as plain JSON values that `from_dict` reads back."""
        out: dict[str, Any] = {
            "name": self.name,
            "base": dict(self.base),
            "objective": [objective.model_dump() for objective in self.objective],
            "budget": self.budget.model_dump(exclude_none=True),
        }
        if self.ablation is not None:
            return out | {"ablation": {**self.ablation.as_dict(), "seeds": list(self.seeds)}}
        return out | {
            "axes": {path: axis.as_dict() for path, axis in self.axes.items()},
            "constraints": list(self.constraints),
            "sampler": self.sampler.model_dump(exclude_none=True),
            "scheduler": self.scheduler.model_dump(),
            "seeds": list(self.seeds),
            "first_points": [dict(point) for point in self.first_points],
        }

    def _merged(self, ablation: Ablation) -> list[tuple[Flat, list[Cell]]]:
        """Points of the design with all their cells, points of equal settings merged."""
        merged: dict[str, tuple[Flat, list[Cell]]] = {}
        for point, cells in ablation.points():
            key = repr(self.config(point, seed=0).effective())
            merged.setdefault(key, (point, []))[1].extend(cells)
        return list(merged.values())

    @cached_property
    def most_epochs(self) -> int:
        """Epochs of the longest trial that the space can hold."""
        corners = (self.config(corner, self.seeds[0]) for corner in self.corners())
        return max(config.train.epochs for config in corners)

    @cached_property
    def _walk(self) -> Walk:
        relations = tuple(parse_relation(text, self._place) for text in self.constraints)
        return Walk(self.base, self.axes, relations, self._place)

    @property
    def _place(self) -> str:
        return f"space {self.name!r}, {self.source}"

    def _active_axes(self, draft: Draft) -> dict[str, Axis]:
        """The axes that are active somewhere; only an override may leave out others."""
        reached = {path for corner in self._walk.corners() for path in corner}
        for path in self.axes.keys() - reached if not draft.fixed else ():
            when = {p: list(v) for p, v in self.axes[path].when.items()}
            raise ConfigError(
                f"axis {path} is never active: nothing fulfils when {when} "
                f"({draft.places[path]}); correct the condition or remove the axis."
            )
        return {path: axis for path, axis in self.axes.items() if path in reached}

    def _check(self) -> None:
        """Check every part against the others: corners, design, first points, sampler, budget."""
        if self.ablation is not None:
            self._check_design(self.ablation)
            return
        for corner in self.corners():
            try:
                self.config(corner, seed=self.seeds[0])
            except ConfigError as err:
                raise ConfigError(_with_remedy(str(err), self.axes, self._place)) from err
        for point in self.first_points:
            self.config(self.complete(point), seed=self.seeds[0])
        self._check_sampler()
        if self.sampler.per:
            self.per_method()

    def _check_design(self, ablation: Ablation) -> None:
        trials = ablation.num_points() * len(self.seeds)
        if trials > MAX_DESIGN_TRIALS:
            raise ConfigError(
                f"ablation has {trials} trials, more than {MAX_DESIGN_TRIALS} ({self._place}); "
                "leave out levels or factors, or search instead."
            )
        self.design()

    def _check_sampler(self) -> None:
        if not self.axes:
            raise ConfigError(
                f"a search needs axes ({self._place}); list what varies under 'axes', or write an "
                "'ablation'."
            )
        if self.sampler.name == "grid" and self.size() is None:
            endless = ", ".join(self._walk.endless) or "the product of all axes"
            raise ConfigError(
                f"sampler.name 'grid' needs axes with countable values, but {endless} has too many "
                f"({self._place}); give a step, list choices, or use 'tpe'."
            )
        if self.sampler.name == "cmaes" and len(self.objective) > 1:
            raise ConfigError(
                f"sampler.name 'cmaes' has one objective, got {len(self.objective)} "
                f"({self._place}); use 'tpe' or 'nsga2'."
            )
        limits = self.budget.model_dump(exclude_none=True, exclude={"hang_seconds", "pack_size"})
        if not limits and self.sampler.name != "grid":
            raise ConfigError(
                f"budget must limit trials, hours or gpu_hours ({self._place}); for example "
                "budget: {trials: 64}."
            )


def load_space(
    source: str,
    overrides: Mapping[str, Any] | None = None,
    winner: tuple[Mapping[str, Any], str] | None = None,
) -> Space:
    """Read and check a space.

    Args:
        source: A YAML file, or the name of a preset.
        overrides: Values of `--set`: settings of a trial by dotted path, which are fixed (an axis
            of that path is dropped), and study-wide keys such as `budget.trials`. Relative file
            names among them are relative to the current folder.
        winner: Settings that replace those of the file's base, and where they come from.

    Raises:
        ConfigError: The file cannot be read, or any point of the space could not be trained.
    """
    if source in preset_names():
        with as_file(_PRESETS / f"{source}.yaml") as path:
            document = read_file(path, f"preset {source!r}", Path.cwd())
    else:
        path = Path(os.path.expanduser(source))
        if not os.path.isfile(path):
            raise ConfigError(
                f"no file and no preset {source!r}{nearest(source, preset_names())}. Presets: "
                f"{', '.join(preset_names())}."
            )
        document = read_file(path, source, path.absolute().parent)
    settings, place = winner or ({}, "")
    entries = {path: Entry(value, place, Path.cwd()) for path, value in settings.items()}
    space = Space._build(document, overrides or {}, entries)
    if space.objective[0].metric == "val_loss" and space.base.get("train.selection") == "best_val":
        raise ConfigError(
            "objective val_loss would be the loss of the epoch with the highest val accuracy, as "
            f"train.selection is 'best_val' ({space._place}); set train.selection to {BY_LOSS!r}, "
            "which is the default then, or to 'last_epoch'."
        )
    return space


def preset_purpose(name: str) -> str:
    """What a shipped space is for: the first sentence of its comment, on one line."""
    comment = [line for line in (_PRESETS / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
               if line.startswith("#")]  # fmt: skip
    text = " ".join(line.removeprefix("#").strip() for line in comment)
    return re.split(r"[.;:] ", text.removeprefix("Purpose: "))[0]


def preset_names() -> tuple[str, ...]:
    """Names of the shipped spaces, sorted."""
    found = (item.name for item in _PRESETS.iterdir())
    return tuple(sorted(n.removesuffix(".yaml") for n in found if n.endswith(".yaml")))


def parse_override(text: str) -> tuple[str, Any]:
    """Split "PATH=VALUE"; the value is read as YAML.

    Raises:
        ConfigError: No "=", no path, or a value that is no YAML scalar or list.
    """
    path, equals, value = text.partition("=")
    path = path.strip()
    if not equals or not path:
        raise ConfigError(f"--set must read PATH=VALUE, got {text!r}; for example optim.lr=0.01.")
    parsed = read_text(value, f"--set {path}", Path.cwd()).data
    if isinstance(parsed, dict):
        raise ConfigError(
            f"--set {path} must be a single value or a list, got {value!r}; quote text with ': '."
        )
    return path, parsed


def _kept(point: Flat, place: str, axes: Mapping[str, Axis], draft: Draft) -> Flat | None:
    """A first point without what overrides have fixed; None if they contradict it."""
    chain = draft.base.get("methods") if "methods" in draft.fixed else None
    if chain is not None and point.get("methods", chain) != chain:
        return None
    for path in point:
        if path not in axes and not draft.fixed:
            raise ConfigError(
                f"first point {point} sets {path}, which is no axis ({place})"
                f"{nearest(path, axes)}; settings that do not vary belong in base."
            )
    return {path: value for path, value in point.items() if path in axes}


def _without_when(axis: Axis) -> Flat:
    return {key: value for key, value in axis.as_dict().items() if key != "when"}


def _with_remedy(message: str, axes: Mapping[str, Axis], place: str) -> str:
    """Say which axis to change, where a message says that one setting must not exceed another."""
    match = re.match(r"(\S+) must be <= (\S+)(.*), got (\S+) > ([^\s;.]+)", message)
    if match is None:
        return message
    small, large, more, got, limit = match.groups()
    if isinstance(axes.get(small), ChoiceAxis):
        remedy = f"leave out choices of axis {small} above {limit}"
    elif small in axes:
        remedy = f"lower the upper bound of axis {small} to {limit}"
    else:
        return f"{match[0]} ({place}); raise the lower bound of axis {large} to {got}."
    fraction = f"{{fraction_of: {large}, range: [0.1, 1.0]}}"
    return f"{match[0]} ({place}); {remedy}, or search the fraction instead: {fraction}."
