"""Which source a space asks for."""

from collections.abc import Sequence
from pathlib import Path

from search.proposals.dashboard_copy import OptunaLog
from search.proposals.design import Design
from search.proposals.equal_budgets import EqualBudgets
from search.proposals.race import Race
from search.proposals.sampled import Sampled
from search.proposals.source import Source
from spaces.space import Space
from tcpa_core.record.events import Learned


def make_source(
    space: Space, name: str, log: Path | None, learned: Sequence[Learned] = ()
) -> Source:
    """What proposes the trials of a space.

    Args:
        space: An ablation or a search.
        name: Of the study.
        log: File of the copy for optuna-dashboard; an ablation has none. None: none is written.
        learned: Results from before the study.
    """
    if space.ablation:
        return Race(space) if space.ablation.races else Design(space)
    if space.sampler.per:
        return EqualBudgets(space, log, name, learned)
    return Sampled(space, name, OptunaLog(log, space, [name]) if log else None, learned)


def most_trials(space: Space) -> int | None:
    """Trials after which a study ends; None: where its source or its time ends.

    A point that has several seeds is run with all of them or none, but in a race of seeds.
    """
    if space.ablation:
        return None
    trials, seeds = space.budget.trials, space.least_seeds
    return trials if trials is None or trials < seeds else trials // seeds * seeds
