"""Tree-structured Parzen estimator: learns all axes, each by itself."""

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
        from optuna.samplers import TPESampler

        return TPESampler(seed=seed, constant_liar=True)
