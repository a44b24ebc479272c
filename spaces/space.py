"""The space of a study: what varies and how, checked and frozen, and the points it holds.

`spaces.load` makes one of YAML. Kinds of axes are in `spaces.axes`, ablation designs in
`spaces.designs`, how points are built in `spaces.domains` and `spaces.points`.
"""

from functools import cached_property
from typing import Any, Self

from spaces.axes import Axis, Suggester, without_condition
from spaces.constraints import parse_relation
from spaces.designs import Ablation, Cell, DesignPoint
from spaces.domains import Domains
from spaces.points import Points
from spaces.sections import Budget, Cluster, Objective, SamplerConfig, SchedulerConfig
from spaces.setting_values import default, methods
from tcpa_core.config import Flat, TrialConfig
from tcpa_core.errors import ConfigError, nearest
from tcpa_core.settings import Settings


class Space(Settings):
    """What a study varies, and how."""

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
    cluster: Cluster
    seeds: tuple[int, ...]
    """Replicates of every point; in a race those that a point gets at most."""
    races_seeds: bool = False
    """A search in which a point gets further seeds only while it may be the best."""
    first_points: tuple[Flat, ...]
    """Partial points to try first; `complete` fills them up."""
    source: str
    """File or preset, for messages and records."""

    @property
    def place(self) -> str:
        """The space, for messages."""
        return f"space {self.name!r}, {self.source}"

    def replaced(self, **parts: Any) -> Self:
        """The space with other parts; its points are worked out again."""
        # `model_copy` would hand on what is cached here.
        mine = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self)(**mine | parts)

    @cached_property
    def domains(self) -> Domains:
        """The axes in the order in which a point is built."""
        relations = tuple(parse_relation(text, self.place) for text in self.constraints)
        return Domains(self.base, self.axes, relations, self.place)

    @cached_property
    def points(self) -> Points:
        """The points of a search."""
        return Points(self.domains)

    def suggest(self, trial: Suggester) -> Flat:
        """Ask a sampler for a point; inactive axes are left out.

        Args:
            trial: An Optuna trial or anything with its three `suggest_` methods.

        Returns:
            Value of each active axis by dotted path.
        """
        return self.domains.walk(lambda path, axis: axis.suggest(trial, path))

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

        self.domains.walk(note)
        return out

    def point_of(self, config: TrialConfig) -> Flat:
        """The point whose trial has these settings."""
        flat = config.flat()
        return self.domains.walk(lambda path, _: flat[path])

    def complete(self, partial: Flat) -> Flat:
        """Fill a point up: axes it leaves open take their setting's default.

        Raises:
            ConfigError: A value outside its axis, an axis that is not active at this point, or a
                default outside its axis.
        """
        for path in partial:
            if path not in self.axes:
                raise ConfigError(
                    f"first point {partial}: {path} is not an axis ({self.place})"
                    f"{nearest(path, self.axes)}; settings that do not vary belong in base."
                )
        so_far: Flat = {}

        def pick(path: str, axis: Axis) -> Any:
            given = path in partial
            # A default may follow from what is chosen so far: the protocol of some methods.
            value = partial[path] if given else self.config(so_far, seed=0).flat()[path]
            if not axis.contains(value):
                why = "is" if given else "is left open, and its default is"
                raise ConfigError(
                    f"first point {partial}: {path} {why} {value!r}, outside its axis "
                    f"{without_condition(axis)} ({self.place}); give it a value there."
                )
            so_far[path] = value
            return value

        point = self.domains.walk(pick)
        for path in partial:
            if path not in point:
                raise ConfigError(
                    f"first point {partial}: axis {path} is not active there ({self.place}); "
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
        # The base may hold settings of every method that some trial has.
        base = {p: v for p, v in self.base.items() if p.partition(".")[0] not in outside}
        return TrialConfig.from_flat({**base, **point, "seed": seed}, place=self.place)

    def corners(self) -> tuple[Flat, ...]:
        """Points at the ends of the ranges and at every choice (see `Points`); of an ablation all.

        These are the points at which a space is checked.
        """
        if self.ablation is None:
            return self.points.corners
        return tuple(point for point, _ in self._merged)

    @cached_property
    def trials(self) -> tuple[TrialConfig, ...]:
        """Trials that show everything a space varies: all of a design, the corners of a search.

        Those of a search have the first seed, in the order of `corners`.

        Raises:
            ConfigError: Settings of one of them contradict each other.
        """
        if self.ablation is None:
            return tuple(self.config(corner, self.seeds[0]) for corner in self.points.corners)
        return tuple(self.config(planned.point, planned.seed) for planned in self.design())

    @cached_property
    def most_epochs(self) -> int:
        """Epochs of the longest trial that the space can hold."""
        return max(config.train.epochs for config in self.trials)

    def size(self) -> int | None:
        """Number of distinct points; None if infinite or above what can be counted."""
        return self.points.size() if self.ablation is None else len(self._merged)

    def design(self) -> tuple[DesignPoint, ...]:
        """The trials of an ablation, replicate by replicate; equal points are one trial.

        Raises:
            ConfigError: The space is a search, or a point contradicts itself.
        """
        if self.ablation is None:
            raise ConfigError(f"{self.place} is a search; only an ablation has a design.")
        return tuple(
            DesignPoint(point=point, seed=seed, cells=tuple(cells))
            for seed in self.seeds
            for point, cells in self._merged
        )

    @property
    def least_seeds(self) -> int:
        """Seeds that every point of a search gets."""
        return 1 if self.races_seeds else len(self.seeds)

    def as_dict(self) -> dict[str, Any]:
        """The space as plain JSON values that `spaces.load.space_of` reads back."""
        out: dict[str, Any] = {
            "name": self.name,
            "base": dict(self.base),
            "objective": [objective.model_dump() for objective in self.objective],
            "budget": self.budget.model_dump(exclude_none=True),
        }
        # Left out where nothing is asked for, as in spaces of before there was such a section.
        if self.cluster != Cluster():
            out["cluster"] = self.cluster.model_dump(exclude_none=True)
        if self.ablation is not None:
            return out | {"ablation": {**self.ablation.as_dict(), "seeds": list(self.seeds)}}
        return out | {
            "axes": {path: axis.as_dict() for path, axis in self.axes.items()},
            "constraints": list(self.constraints),
            "sampler": self.sampler.model_dump(exclude_none=True),
            "scheduler": self.scheduler.model_dump(exclude_none=True),
            "seeds": {"race": list(self.seeds)} if self.races_seeds else list(self.seeds),
            "first_points": [dict(point) for point in self.first_points],
        }

    @cached_property
    def _merged(self) -> list[tuple[Flat, list[Cell]]]:
        """Points of the design with all their cells; points of equal settings are one."""
        merged: dict[str, tuple[Flat, list[Cell]]] = {}
        for point, cells in self.ablation.points() if self.ablation else ():
            # Settings that change nothing do not tell points apart.
            key = repr(self.config(point, seed=0).effective())
            merged.setdefault(key, (point, []))[1].extend(cells)
        return list(merged.values())
