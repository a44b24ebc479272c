"""What a look at a study needs of its space, without checking the rest of it.

To check a whole space, the settings of every method are loaded, and torch with them: seconds, in
which `tcpa status` and `tcpa list` have long answered.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from spaces.sections import Budget, Objective, SchedulerConfig
from spaces.selection import Results
from tcpa_core.record.scores import Score, score_of
from tcpa_core.record.state import StudyState


class _Design(BaseModel):
    model_config = ConfigDict(frozen=True)

    seeds: tuple[int, ...]
    race: bool = False


class _Sampler(BaseModel):
    model_config = ConfigDict(frozen=True)

    per: str | None = None


class Outline(BaseModel):
    """What is varied and optimised, over which seeds and for how long; of `Space.as_dict`."""

    model_config = ConfigDict(frozen=True)

    base: Mapping[str, Any] = {}
    """Settings of all trials, by dotted path."""
    objective: tuple[Objective, ...] = Field(min_length=1)
    budget: Budget
    seeds: tuple[int, ...] = ()
    """Of a search; in a race those that a point gets at most."""
    races_seeds: bool = False
    axes: Mapping[str, Any] = {}
    """As they stand in YAML."""
    sampler: _Sampler = _Sampler()
    scheduler: SchedulerConfig = SchedulerConfig(name="none")
    ablation: _Design | None = None
    most_trials: int | None = None
    """Trials of a design, or of all points of a search; None: without end, or not recorded."""

    @model_validator(mode="before")
    @classmethod
    def _raced(cls, values: Any) -> Any:
        seeds = values.get("seeds")
        if not isinstance(seeds, Mapping):
            return values
        return {**values, "seeds": seeds["race"], "races_seeds": True}

    @property
    def metric(self) -> str:
        """The leading objective's."""
        return self.objective[0].metric

    @property
    def score(self) -> Score:
        """By what trials of its task are compared, whatever it optimises."""
        return score_of(self.base)

    @property
    def total(self) -> int | None:
        """Trials that the study will have at most; None: not known, or as many as time allows."""
        limit = self.budget.trials
        if limit is not None and self.sampler.per:
            seeds = 1 if self.races_seeds else len(self.seeds)
            equal = len(self.axes["methods"]["choice"]) * seeds
            limit = limit // equal * equal
        known = [count for count in (limit, self.most_trials) if count is not None]
        return min(known, default=None)

    def results(self, state: StudyState) -> Results:
        """Where the points stand, as of `Results.of` with the whole space."""
        seeds = () if self.races_seeds else self.seeds
        if self.ablation is not None:
            seeds = () if self.ablation.race else self.ablation.seeds
        return Results(state, self.objective[0], seeds)
