"""What a look at a study needs of its space, without checking the rest of it.

To check a whole space, the settings of every method are loaded, and torch with them: seconds, in
which `tcpa status` and `tcpa list` have long answered.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

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
    """Of a search."""
    axes: Mapping[str, Any] = {}
    """As they stand in YAML."""
    sampler: _Sampler = _Sampler()
    scheduler: SchedulerConfig = SchedulerConfig(name="none")
    ablation: _Design | None = None
    most_trials: int | None = None
    """Trials of a design, or of all points of a search; None: without end, or not recorded."""

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
            equal = len(self.axes["methods"]["choice"]) * len(self.seeds)
            limit = limit // equal * equal
        known = [count for count in (limit, self.most_trials) if count is not None]
        return min(known, default=None)

    def results(self, state: StudyState) -> Results:
        """Where the points stand, as of `Results.of` with the whole space."""
        seeds = self.seeds
        if self.ablation is not None:
            seeds = () if self.ablation.race else self.ablation.seeds
        return Results(state, self.objective[0], seeds)
