"""What a sampler is: a file beside this one whose `Sampler` makes one of Optuna's.

The name in `sampler.name` is that of the file. Only what is asked for is loaded: a plan checks a
name, and Optuna takes half a second to load, so files import it where they make the sampler.
"""

import hashlib
import importlib.util
import warnings
from typing import TYPE_CHECKING, ClassVar

from spaces.sections import SAMPLERS
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
    draws_choices_apart: ClassVar[bool] = False
    """It draws choices at random, too."""
    has_one_objective: ClassVar[bool] = False
    enumerates: ClassVar[bool] = False
    """It is never asked: the points of the axes are run in order, until there are no more."""

    @staticmethod
    def make(seed: int) -> "BaseSampler":
        """Optuna's sampler with this seed."""
        raise NotImplementedError


def sampler_class(name: str) -> type[Sampler]:
    """The sampler of that name.

    Raises:
        PluginError: There is none.
    """
    found: type[Sampler] = plugins.load(SAMPLERS, name).Sampler
    return found


def check_sampler(name: str) -> type[Sampler]:
    """The sampler of that name, unless it cannot run here.

    Raises:
        ConfigError: It needs a package that is not installed.
    """
    sampler = sampler_class(name)
    package = sampler.package
    if package and importlib.util.find_spec(package) is None:
        raise ConfigError(
            f"sampler.name {name!r} needs the package {package!r}, which is not installed; run "
            f"pip install 'tcpa-search[{package}]', or use 'tpe'."
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
        ConfigError: The sampler needs a package that is not installed.
    """
    key = f"{space.sampler.seed}/{number}".encode()
    seed = int.from_bytes(hashlib.blake2b(key, digest_size=4).digest(), "little")
    sampler = sampler or check_sampler(space.sampler.name)
    with warnings.catch_warnings(action="ignore"):  # QMC calls itself experimental
        return sampler.make(seed)
