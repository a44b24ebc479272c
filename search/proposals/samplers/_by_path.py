"""A sampler that is code from elsewhere: a class by its import path, or a folder that holds one.

`package.module:Class` names any `optuna.samplers.BaseSampler` that can be imported. A folder has an
`__init__.py`, as the packages of OptunaHub do; nothing is fetched. Only the driver imports it, once
a study starts, and only on the word of the user: of a command that was given the space, or of the
variable `WORD`. A record of a study, perhaps of somebody else, is not enough.
"""

import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from optuna.samplers import BaseSampler

from spaces.sections import WORD, SamplerConfig
from tcpa_core.errors import ConfigError


def make(config: SamplerConfig) -> BaseSampler:
    """Import the class and construct it with the options; where it takes a seed, with that, too.

    Raises:
        ConfigError: The user has not said that it may run, it cannot be imported, it is no sampler,
            or the options do not fit.
    """
    if os.environ.get(WORD) != config.name:
        raise ConfigError(
            f"sampler.name {config.name!r} is code, which a study's record alone does not run; "
            "repeat the command that was given its space file, as 'tcpa search SPACE --study "
            f"STUDY', or set {WORD}={config.name}."
        )
    found = _class_of(config.name)
    options = dict(config.options or {})
    takes = inspect.signature(found).parameters
    if "seed" in takes:
        options.setdefault("seed", config.seed)
    try:
        return found(**options)
    except Exception as err:  # whatever a class of somebody else raises
        raise ConfigError(
            f"sampler.options {config.options or {}!r} do not fit {config.name!r} "
            f"({type(err).__name__}: {err}); it takes {', '.join(takes) or 'none'}."
        ) from err


@contextmanager
def blamed(name: str) -> Iterator[None]:
    """Say of an error of a sampler which one it was.

    Raises:
        ConfigError: In place of any exception.
    """
    try:
        yield
    except Exception as err:
        raise ConfigError(
            f"sampler.name {name!r} raised {type(err).__name__}: {err}; what the study has "
            "recorded is kept."
        ) from err


def _class_of(name: str) -> type[BaseSampler]:
    place, colon, wanted = name.partition(":")
    if not SamplerConfig.is_folder(place) and not colon:
        place, _, wanted = name.rpartition(".")
    try:
        module = _folder(Path(place)) if SamplerConfig.is_folder(place) else _module(place)
    except Exception as err:
        raise ConfigError(
            f"sampler.name {name!r} cannot be imported ({type(err).__name__}: {err}); install what "
            "it needs, or correct the name."
        ) from err
    if wanted:
        found = getattr(module, wanted, None)
        if not (isinstance(found, type) and issubclass(found, BaseSampler)):
            raise ConfigError(
                f"sampler.name {name!r} names {'nothing' if found is None else repr(found)}, not a "
                f"class derived from optuna.samplers.BaseSampler; {_offered(module)}."
            )
        return found
    classes = _samplers(module)
    if len(classes) != 1:
        raise ConfigError(
            f"sampler.name {name!r} does not say which class; {_offered(module)}; write "
            f"{place}:CLASS."
        )
    return next(iter(classes.values()))


def _samplers(module: ModuleType) -> dict[str, type[BaseSampler]]:
    """The samplers that a module exports: those of `__all__`, else those that it defines."""
    named = getattr(module, "__all__", None)
    found = {
        name: one
        for name, one in vars(module).items()
        if isinstance(one, type) and issubclass(one, BaseSampler)
    }
    if named is not None:
        return {name: one for name, one in found.items() if name in named}
    return {n: one for n, one in found.items() if one.__module__.startswith(module.__name__)}


def _offered(module: ModuleType) -> str:
    return f"it has {', '.join(sorted(_samplers(module))) or 'no sampler'}"


def _module(place: str) -> ModuleType:
    return importlib.import_module(place)


def _folder(path: Path) -> ModuleType:
    """Import a package by its folder, under a name that no other has."""
    start = path / "__init__.py"
    if not start.is_file():
        raise FileNotFoundError(f"there is no {start}")
    name = f"tcpa_sampler_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, start)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
