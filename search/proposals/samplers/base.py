"""What a sampler is: a file beside this one whose `Sampler` makes one of Optuna's.

The name in `sampler.name` is that of the file. Only what is asked for is loaded: a plan checks a
name, and Optuna takes half a second to load, so files import it where they make the sampler.
"""

import hashlib
import importlib.util
import warnings
from typing import TYPE_CHECKING, ClassVar

from spaces.axes import label
from spaces.sections import SAMPLERS, SamplerConfig
from spaces.space import Space
from tcpa_core import plugins
from tcpa_core.errors import ConfigError

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


class Sampler:
    """Who draws points; a subclass says how it differs from one that draws each axis by itself."""

    package: ClassVar[str | None] = None
    """Package that it needs beside Optuna, and the extra of ours that installs it."""
    learns_from_few: ClassVar[bool] = False
    """Trials that are neither good nor new may be left out of what it learns from."""
    leaves_marks: ClassVar[bool] = False
    """It writes on every trial, or the study, what it needs for later ones. The others read what
    they wrote on a trial while it runs."""
    is_joint: ClassVar[bool] = False
    """It draws axes together, and at random those that are not the same in every trial."""
    is_per_chain: ClassVar[bool] = False
    """Where methods vary, it draws the axes of each chain together, by trials of that chain."""
    draws_choices_apart: ClassVar[bool] = False
    """It draws choices at random, too."""
    has_one_objective: ClassVar[bool] = False
    enumerates: ClassVar[bool] = False
    """It is never asked: the points of the axes are run in order, until there are no more."""

    @staticmethod
    def make(seed: int) -> "BaseSampler":
        """Optuna's sampler with this seed."""
        raise NotImplementedError


class Code(Sampler):
    """Code from elsewhere, of which nothing is known: it may keep in itself what it has learnt.

    So it is made once, told everything, and asked again for all points of earlier drivers.
    """

    leaves_marks = True


def sampler_class(config: SamplerConfig) -> type[Sampler]:
    """What a space's sampler is like; code from elsewhere is not imported.

    Raises:
        PluginError: There is none of that name.
    """
    if config.is_code:
        return Code
    found: type[Sampler] = plugins.load(SAMPLERS, config.name).Sampler
    return found


def check_sampler(config: SamplerConfig) -> type[Sampler]:
    """What a space's sampler is like, unless it cannot run here; code from elsewhere is imported.

    Raises:
        ConfigError: It needs a package that is not installed, or its code cannot be used.
    """
    sampler = sampler_class(config)
    if config.is_code:
        from search.proposals.samplers import _by_path

        _by_path.make(config)
    package = sampler.package
    if package and importlib.util.find_spec(package) is None:
        raise ConfigError(
            f"sampler.name {config.name!r} needs the package {package!r}, which is not installed; "
            f"run pip install 'tcpa-search[{package}]', or use 'tpe'."
        )
    return sampler


def make_sampler(space: Space, number: int, sampler: type[Sampler] | None = None) -> "BaseSampler":
    """The Optuna sampler that a space names.

    Args:
        space: Names and seeds it.
        number: Points proposed before: each number has a random stream of its own, so that no
            driver draws again what an earlier one drew.
        sampler: The one that the space names, or another; None: looked up, which takes longer.

    Raises:
        ConfigError: The sampler needs a package that is not installed, or its code cannot be used.
    """
    if sampler in (None, Code) and space.sampler.is_code:
        from search.proposals.samplers import _by_path

        return _by_path.make(space.sampler)
    seed = seed_of(space, number)
    sampler = sampler or check_sampler(space.sampler)
    with warnings.catch_warnings(action="ignore"):  # QMC calls itself experimental
        made = sampler.make(seed)
    chains = space.axes.get("methods")
    if chains is None or not sampler.is_per_chain:
        return made
    from search.proposals.samplers._per_chain import PerChain

    return PerChain(made, [label(chain) for chain in chains.ends()], seed)


def seed_of(space: Space, number: int) -> int:
    """Of the sampler that draws a point."""
    key = f"{space.sampler.seed}/{number}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=4).digest(), "little")
