"""Every point of the axes, which then need an end."""

from typing import TYPE_CHECKING

from search.proposals.samplers import base

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


class Sampler(base.Sampler):
    """Enumerates; what Optuna is given is never asked for a point."""

    enumerates = True

    @staticmethod
    def make(seed: int) -> "BaseSampler":
        """See `base.Sampler.make`."""
        from optuna.samplers import RandomSampler

        return RandomSampler(seed=seed)
