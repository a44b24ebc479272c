"""Covariance matrix adaptation: for continuous axes and one objective."""

from typing import TYPE_CHECKING

from search.proposals.samplers import base

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


class Sampler(base.Sampler):
    """See the module."""

    package = "cmaes"
    is_joint = True
    draws_choices_apart = True
    has_one_objective = True
    leaves_marks = True

    @staticmethod
    def make(seed: int) -> "BaseSampler":
        """See `base.Sampler.make`."""
        from optuna.samplers import CmaEsSampler

        return CmaEsSampler(seed=seed, warn_independent_sampling=False)
