"""What the command line sets in a space (`--set PATH=VALUE`): settings, and keys of the study."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from spaces.reader import Document, Keys, read_text
from spaces.sections import Budget, Cluster, Objective, SamplerConfig, SchedulerConfig
from spaces.setting_values import Entry, check_path, paths
from tcpa_core.errors import ConfigError
from tcpa_core.hints import nearest_setting

_STUDY_KEYS = (
    "seeds",
    "seeds.race",
    "ablation.seeds",
    *(f"budget.{key}" for key in Budget.model_fields),
    *(f"cluster.{key}" for key in Cluster.model_fields),
    *(f"objective.{key}" for key in Objective.model_fields),
    *(f"sampler.{key}" for key in SamplerConfig.model_fields),
    *(f"scheduler.{key}" for key in SchedulerConfig.model_fields),
)
"""What `--set` takes beside settings of a trial."""


def parse_override(text: str) -> tuple[str, Any]:
    """Split "PATH=VALUE"; the value is read as YAML.

    Raises:
        ConfigError: No "=", no path, or a value that is not a YAML scalar or list.
    """
    path, equals, value = text.partition("=")
    path = path.strip()
    if not equals or not path:
        raise ConfigError(f"--set must read PATH=VALUE, got {text!r}; for example optim.lr=0.01.")
    parsed = read_text(value, f"--set {path}", Path.cwd()).data
    if isinstance(parsed, dict):
        raise ConfigError(
            f"--set {path} must be a single value or a list, got {value!r}; quote text with ': '."
        )
    return path, parsed


def apply_overrides(
    document: Document, overrides: Mapping[str, Any]
) -> tuple[Document, dict[str, Entry]]:
    """Put study-wide overrides into the document.

    Returns:
        The document, and the overrides that are settings of a trial.

    Raises:
        ConfigError: There is no such key or setting, or its section is not a mapping.
    """
    data, places = dict(document.data), dict(document.places)
    fixed: dict[str, Entry] = {}
    for path, value in overrides.items():
        place = f"--set {path}"
        if path in _STUDY_KEYS:
            section, _, key = path.partition(".")
            if section == "ablation" and section not in data:
                raise ConfigError(f"{place}: {document.label} is a search; set seeds instead.")
            # A section that the file lacks stands where its first key was given.
            places.setdefault((section,), place)
            keys: Keys = (section, key) if key else (section,)
            data[section] = _with(document, data.get(section), section, key, value)
            # The goal in the file is that of another metric; left out, it follows from the new one.
            if path == "objective.metric" and "objective.goal" not in overrides:
                data[section].pop("goal", None)
            places[keys] = place
            continue
        # `seed` goes on to `check_path`, which knows where seeds belong.
        if path not in paths() and path != "seed":
            near = nearest_setting(path, [*paths(), *_STUDY_KEYS])
            raise ConfigError(f"no setting {path!r} ({place}){near}.")
        check_path(path, place)
        fixed[path] = Entry(value, place, Path.cwd())
    return replace(document, data=data, places=places), fixed


def _with(document: Document, section: object, name: str, key: str, value: object) -> object:
    if not key:
        return value
    if name == "seeds":  # in place of a count or a list
        return {key: value}
    if section is not None and not isinstance(section, Mapping):
        raise ConfigError(
            f"--set {name}.{key} needs {name} to be a mapping, got {section!r} "
            f"({document.place(name)})."
        )
    return {**(section or {}), key: value}
