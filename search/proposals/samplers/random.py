"""Points drawn at random."""

from typing import TYPE_CHECKING

from search.proposals.samplers import base

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


class Sampler(base.Sampler):
    """See the module."""

    learns_from_few = True

    @staticmethod
    def make(seed: int) -> "BaseSampler":
        """See `base.Sampler.make`."""
        from optuna.samplers import RandomSampler

        return RandomSampler(seed=seed)
