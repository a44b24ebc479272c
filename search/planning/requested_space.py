"""The space that a command asks for: cheap checks, before anything heavy is loaded."""

import os
from collections.abc import Mapping
from typing import Any

from spaces.load import is_record, load_space
from spaces.read_suite import is_suite
from spaces.sections import WORD
from spaces.space import Space
from tcpa_core.errors import ConfigError

KINDS = {"search": "ablate", "ablation": "search"}
"""Kind of a space file, and the verb that runs the other kind."""


def requested_space(
    source: str,
    settings: Mapping[str, Any] | None = None,
    *,
    trials: int | None = None,
    kind: str | None = None,
    winner: tuple[Mapping[str, Any], str] | None = None,
) -> Space:
    """Read a space as a command wants it.

    Args:
        source: YAML file or preset.
        settings: Values by dotted path that replace those of the space.
        trials: Replaces budget.trials.
        kind: "search" or "ablation" where the caller runs only one of them.
        winner: Settings that replace those of the space's base, and where they come from.

    Raises:
        ConfigError: It cannot be read, is a suite or of the other kind, or has points that cannot
            be trained.
    """
    if is_suite(source):
        raise ConfigError(
            f"{source} is a suite, a table of methods and data sets; 'tcpa plan {source}' "
            f"says what it would run, and 'tcpa bench {source}' runs it."
        )
    changes = dict(settings or {})
    if trials is not None:
        changes["budget.trials"] = trials
    space = load_space(source, changes, winner)
    if space.sampler.is_code and ("sampler.name" in changes or not is_record(source)):
        os.environ[WORD] = space.sampler.name  # the user's word, by whose command it is read
    found = "ablation" if space.ablation else "search"
    if kind is not None and kind != found:
        raise ConfigError(
            f"{source} is {'an ablation' if space.ablation else 'a search'}; "
            f"run it with 'tcpa {KINDS[kind]} {source}'."
        )
    if space.ablation and trials is not None:
        raise ConfigError(
            f"--trials limits a search, got {trials} for an ablation; it runs every point of its "
            "design with every seed, so leave --trials out."
        )
    return space
