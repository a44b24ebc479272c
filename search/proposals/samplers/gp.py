"""Gaussian process over all axes together; where methods vary, one for each chain of them."""

from typing import TYPE_CHECKING

from search.proposals.samplers import base

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


class Sampler(base.Sampler):
    """See the module."""

    is_joint = True
    is_per_chain = True

    @staticmethod
    def make(seed: int) -> "BaseSampler":
        """See `base.Sampler.make`."""
        from optuna.samplers import GPSampler

        return GPSampler(seed=seed, warn_independent_sampling=False)
