"""What a look at a study needs of its space, without checking the rest of it.

To check a whole space, the settings of every method are loaded, and torch with them: seconds, in
which `tcpa status` and `tcpa list` have long answered.
"""

from pydantic import BaseModel, ConfigDict, Field

from spaces.sections import Budget, Objective
from spaces.selection import Results
from tcpa_core.record.state import StudyState


class _Design(BaseModel):
    model_config = ConfigDict(frozen=True)

    seeds: tuple[int, ...]
    race: bool = False


class Outline(BaseModel):
    """What is optimised, over which seeds and for how long; read from `Space.as_dict`."""

    model_config = ConfigDict(frozen=True)

    objective: tuple[Objective, ...] = Field(min_length=1)
    budget: Budget
    seeds: tuple[int, ...] = ()
    """Of a search."""
    ablation: _Design | None = None

    def results(self, state: StudyState) -> Results:
        """Where the points stand, as of `Results.of` with the whole space."""
        seeds = self.seeds
        if self.ablation is not None:
            seeds = () if self.ablation.race else self.ablation.seeds
        return Results(state, self.objective[0], seeds)
