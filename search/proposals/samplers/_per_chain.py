"""A sampler that draws axes together, for each chain of methods by itself.

Axes of a method exist only where it is chosen. To a sampler that models axes jointly a space is
what all trials have in common, so that it would draw those axes at random. Within one chain they
are all there: the chain is drawn by TPE, which knows all trials, and the rest by the joint sampler,
which is shown the trials of that chain.
"""

from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

CHAIN = "methods"
"""The parameter that says which chain a trial is of."""


class PerChain(BaseSampler):
    """Draws one trial.

    Args:
        sampler: Draws a trial of the chosen chain.
        chains: What `CHAIN` may be.
        seed: Of the draw of the chain.
    """

    def __init__(self, sampler: BaseSampler, chains: Sequence[str], seed: int) -> None:
        self._sampler = sampler
        self._distribution = CategoricalDistribution(chains)
        self._chains = TPESampler(seed=seed, constant_liar=True)
        self._chain: Any = None
        self._alike: Study | None = None
        """The trials of that chain, and last the new one."""

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Choose the chain; its axes."""
        self._chain = self._chains.sample_independent(study, trial, CHAIN, self._distribution)
        self._alike = _of_chain(study, self._chain)
        own = self._sampler.infer_relative_search_space(self._alike, self._alike.trials[-1])
        return {CHAIN: self._distribution, **own}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The chain that was chosen, and values of its axes."""
        assert self._alike is not None
        own = {name: found for name, found in search_space.items() if name != CHAIN}
        drawn = self._sampler.sample_relative(self._alike, self._alike.trials[-1], own)
        return {CHAIN: self._chain, **drawn}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A value of an axis that some trials of the chain lack, or of which too few are known."""
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)


def _of_chain(study: Study, chain: Any) -> Study:
    """The trials of a chain as a study of their own, with one that begins."""
    alike = optuna.create_study(directions=study.directions)
    states = (TrialState.COMPLETE, TrialState.RUNNING)
    for trial in study.get_trials(deepcopy=False, states=states):
        if trial.params.get(CHAIN) == chain:
            params = {name: value for name, value in trial.params.items() if name != CHAIN}
            alike.add_trial(
                optuna.trial.create_trial(
                    state=trial.state,
                    values=trial.values,
                    params=params,
                    distributions={name: trial.distributions[name] for name in params},
                )
            )
    alike.add_trial(optuna.trial.create_trial(state=TrialState.RUNNING))
    return alike
