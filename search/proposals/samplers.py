"""The samplers that a space can name, and what they need."""

import hashlib
import importlib.util
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

from spaces.space import Space
from tcpa_core.errors import ConfigError

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

LEARNS_FROM_FEW = ("random", "tpe")
"""Samplers for which trials that are neither good nor new may be left out."""

LEAVES_MARKS = ("cmaes", "nsga2", "qmc")
"""Samplers that write on every trial, or the study, what they need for later ones. The others read
what they wrote on a trial while it runs."""


def check_sampler(name: str) -> None:
    """Refuse a sampler that cannot run here.

    Raises:
        ConfigError: It needs a package that is not installed.
    """
    if name == "cmaes" and importlib.util.find_spec("cmaes") is None:
        raise ConfigError(
            "sampler.name 'cmaes' needs the package 'cmaes', which is not installed; run "
            "pip install 'tcpa-search[cmaes]', or use 'tpe'."
        )


def make_sampler(space: Space, number: int, name: str | None = None) -> "BaseSampler":
    """The Optuna sampler that a space names.

    Args:
        space: Names and seeds it.
        number: Points proposed before: each number has a random stream of its own, so that no
            driver draws again what an earlier one drew.
        name: Another one than the space names.

    Raises:
        ConfigError: The sampler needs a package that is not installed.
    """
    # Loaded here: a plan checks a sampler's name, and Optuna takes half a second to load.
    from optuna import samplers

    key = f"{space.sampler.seed}/{number}".encode()
    seed = int.from_bytes(hashlib.blake2b(key, digest_size=4).digest(), "little")
    makers: dict[str, Callable[[], BaseSampler]] = {
        "tpe": lambda: samplers.TPESampler(seed=seed, constant_liar=True),
        "random": lambda: samplers.RandomSampler(seed=seed),
        "qmc": lambda: samplers.QMCSampler(seed=seed, warn_independent_sampling=False),
        "gp": lambda: samplers.GPSampler(seed=seed, warn_independent_sampling=False),
        "cmaes": lambda: samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False),
        "nsga2": lambda: samplers.NSGAIISampler(seed=seed),
        "grid": lambda: samplers.RandomSampler(seed=seed),  # never asked: points are enumerated
    }
    name = name or space.sampler.name
    check_sampler(name)
    with warnings.catch_warnings(action="ignore"):  # QMC calls itself experimental
        return makers[name]()
