"""Population based training: a bad member ends, and a trial that begins from a good one follows.

The settings of a trial never change. So where PBT copies the weights of a better member and goes on
with other settings, a member ends here and a new trial begins from the state that the better one
had at that epoch. The trials that had one place, one after the other, are a line.

A member's value at an interval counts there, and it is judged one epoch later, against the values
that all others had at the interval so far. Nobody waits; but members that train side by side reach
an interval together, and the first of them to report would be compared with nobody. Who is replaced
by what follows from these values, the member's name and the seed of the proposals, so that a driver
that takes a study up decides alike.

Source:
    Jaderberg et al., Population Based Training of Neural Networks, arXiv:1711.09846 (2017);
    quantiles and the asynchronous order as of Ray's PopulationBasedTraining.
"""

import math
import random
from collections import defaultdict
from collections.abc import Sequence

from search.tune.schedulers import base
from search.tune.schedulers.base import Successor
from spaces.perturbation import perturbed
from spaces.sections import Herd, SchedulerConfig
from spaces.space import Space
from tcpa_core.config import TrialConfig
from tcpa_core.record.events import Parent, Planned

ATTEMPTS = 100
"""Perturbations that may give what was begun before; then the member goes on itself."""


class Scheduler(base.Scheduler):
    """Every `interval` epochs the worst `quantile` of the members makes place for new trials."""

    reads = frozenset(Herd._fields)
    has_one_objective = True

    def __init__(self, space: Space) -> None:
        super().__init__(space)
        self._herd = space.scheduler.herd or Herd()
        self._trials: dict[str, Planned] = {}
        self._values: dict[int, dict[str, float]] = defaultdict(dict)
        """By epoch and trial, in the order of the reports."""
        self._ends: dict[str, int] = {}
        """Trials that are replaced, and at which epoch they end."""
        self._judged: set[tuple[str, int]] = set()
        """Trials that were let go on, and from which interval."""
        self._begun: dict[tuple[str, int], set[str]] = defaultdict(set)
        """By trial and epoch: the settings with which others have gone on from that state."""
        self._next: dict[str, Successor] = {}
        """What follows on a trial that was not let go on."""

    def decisions(self, trial: str, epochs: int) -> Sequence[int]:
        """See `base.Scheduler.decisions`."""
        interval = self._herd.interval
        looks = range(interval, epochs - 1, interval)
        return sorted({*looks, *(epoch + 1 for epoch in looks)})

    def join(self, planned: Planned) -> None:
        """See `base.Scheduler.join`."""
        self._trials[planned.trial] = planned
        if parent := planned.parent:
            self._ends[parent.replaces] = parent.epoch + 1
            self._begun[parent.trial, parent.epoch].add(_key(planned.config))

    def goes_on(self, trial: str, epoch: int, values: Sequence[float]) -> bool:
        """See `base.Scheduler.goes_on`."""
        self._next.pop(trial, None)  # it went on
        if epoch not in self.decisions(trial, self._trials[trial].config.train.epochs):
            return True
        if self._ends.get(trial) == epoch:
            return False
        if not self._is_judged_well(trial, epoch - 1):
            return False
        if epoch % self._herd.interval == 0:
            self._values[epoch].setdefault(trial, values[0])
        return True

    def _is_judged_well(self, trial: str, epoch: int) -> bool:
        """Judge a trial by its value at an interval, once; where it has none there it goes on."""
        if trial not in self._values.get(epoch, ()) or (trial, epoch) in self._judged:
            return True
        worst, best = self._quantiles(epoch)
        new = self._successor(trial, epoch, best) if trial in worst else None
        if new is None:
            self._judged.add((trial, epoch))
        else:
            self._next[trial] = new
        return new is None

    def successor(self, trial: str) -> Successor | None:
        """See `base.Scheduler.successor`."""
        return self._next.pop(trial, None)

    def _quantiles(self, epoch: int) -> tuple[list[str], list[str]]:
        """The worst and the best trials at an epoch; of equal ones the first is the worse."""
        values = self._values[epoch]
        ranked = sorted(values, key=values.__getitem__)
        size = min(math.ceil(len(ranked) * self._herd.quantile), len(ranked) // 2)
        return ranked[:size], ranked[len(ranked) - size :]

    def _successor(self, trial: str, epoch: int, best: Sequence[str]) -> Successor | None:
        """What is trained in place of a trial; None: nothing near a good one that is not trained
        already."""
        draws = random.Random(f"{self._space.sampler.seed}/{trial}/{epoch}")
        source = self._trials[draws.choice(best)]
        # With the same settings it would repeat what the other one trains next.
        begun = {_key(source.config), *self._begun[source.trial, epoch]}
        for _ in range(ATTEMPTS):
            config = perturbed(self._space, source.config, self._herd.resample, draws)
            if config is not None and _key(config) not in begun:
                return Successor(config, Parent(source.trial, epoch, replaces=trial))
        return None

    @staticmethod
    def text(settings: SchedulerConfig, epochs: int) -> str:
        """See `base.Scheduler.text`."""
        herd = settings.herd or Herd()
        every = "epoch" if herd.interval == 1 else f"{herd.interval} epochs"
        return (
            f"{settings.name}, {herd.population} members: every {every} the worst "
            f"{herd.quantile:.0%} end, and trials from states of the best follow"
        )


def _key(config: TrialConfig) -> str:
    return repr(config.effective())
