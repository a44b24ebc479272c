"""Check single values and sections against their settings, and say where they stand."""

import os
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from spaces.reader import Document, Keys
from tcpa_core import plugins
from tcpa_core.config import METHODS, file_settings, known_paths
from tcpa_core.errors import ConfigError, nearest
from tcpa_core.hints import nearest_setting
from tcpa_core.settings import DATASETS, Settings
from tcpa_core.validation import first_problem

T = TypeVar("T", bound=Settings)


class Entry(NamedTuple):
    """A value of a file, and where it stands."""

    value: Any
    place: str
    folder: Path
    keys: Keys = ()


@cache
def paths() -> Mapping[str, FieldInfo | None]:
    """Every dotted path a trial can have, but for `seed`, which is a replicate."""
    return {path: field for path, field in known_paths().items() if path != "seed"}


@cache
def methods() -> frozenset[str]:
    """Names of all tuning methods."""
    return frozenset(plugins.names(METHODS))


@cache
def _sections() -> frozenset[str]:
    return frozenset(path.partition(".")[0] for path in paths() if "." in path)


def method_of(path: str) -> str | None:
    """The method whose setting this is; None for settings that every trial has."""
    section = path.partition(".")[0]
    return section if section in methods() else None


def default(path: str) -> Any:
    """The value a trial takes where nothing else is said."""
    field = paths()[path]
    value = None if field is None else field.get_default(call_default_factory=True)
    return list(value) if isinstance(value, tuple) else value


def closed_set(name: str, options: Iterable[str]) -> str:
    """ "; closest name: 'x'. Available: ..." for messages about names."""
    options = sorted(options)
    return f"{nearest(name, options)}. Available: {', '.join(options)}."


def check_path(path: str, place: str) -> None:
    """Refuse a path that no trial has.

    Raises:
        ConfigError: Unknown path, or `seed`.
    """
    if path == "seed":
        raise ConfigError(
            f"seed is a replicate, not a setting to choose ({place}); list seeds under 'seeds'."
        )
    if path not in paths():
        raise ConfigError(f"no setting {path!r} ({place}){nearest_setting(path, paths())}.")


def check_value(path: str, value: Any, place: str) -> Any:
    """Check one value against its own setting; relations between settings are not looked at.

    Returns:
        The value as the trial will hold it (an int becomes a float where the setting is one).

    Raises:
        ConfigError: Unknown path, wrong type, out of range, or a method or data set not known.
    """
    check_path(path, place)
    # The likely slip gets its own remedy.
    if path == "methods" and isinstance(value, str):
        raise ConfigError(
            f"methods must be a list of method names, got {value!r} ({place}); write [{value}]."
        )
    try:
        checked = _adapter(path).validate_python(value)
    except ValidationError as err:
        raise ConfigError(_explain(err, path, place)) from err
    for name in checked if path == "methods" else ():
        if name not in methods():
            raise ConfigError(f"methods: no method {name!r} ({place}){closed_set(name, methods())}")
    if path == "data.name" and checked not in plugins.names(DATASETS):
        known = closed_set(checked, plugins.names(DATASETS))
        raise ConfigError(f"data.name: no data set {checked!r} ({place}){known}")
    return list(checked) if isinstance(checked, tuple) else checked


@cache
def _adapter(path: str) -> TypeAdapter[Any]:
    field = paths()[path]
    assert field is not None
    # One field alone: its section would also check how fields fit together.
    annotated: Any = field.annotation
    if field.metadata:
        annotated = Annotated[(annotated, *field.metadata)]
    return TypeAdapter(annotated, config=ConfigDict(strict=True, allow_inf_nan=False))


def read_setting(path: str, entry: Entry) -> Any:
    """Check a value as `check_value` does, and make a relative file name absolute."""
    value = check_value(path, entry.value, entry.place)
    if path not in file_settings() or value is None or value == "random":
        return value
    return os.path.abspath(entry.folder / os.path.expanduser(value))


def check_section(model: type[T], document: Document, *keys: str | int) -> T:
    """Build one study-wide section (`budget`, `sampler`, ...); absent: all defaults.

    Raises:
        ConfigError: Not a mapping, unknown key, wrong type or out of range.
    """
    values = lookup(document.data, keys)
    values = {} if values is None else values
    name = str(keys[0])
    if not isinstance(values, Mapping):
        fields = ", ".join(model.model_fields)
        raise ConfigError(
            f"{name} must be a mapping of {fields}, got {values!r} ({document.place(*keys)})."
        )
    for key in values:
        if key not in model.model_fields:
            known = closed_set(key, model.model_fields)
            raise ConfigError(f"{name} has no key {key!r} ({document.place(*keys, key)}){known}")
    try:
        return model.model_validate(dict(values))
    except ValidationError as err:
        where = first_problem(err).where
        path = ".".join([name, *(str(part) for part in where)])
        raise ConfigError(_explain(err, path, document.place(*keys, *where))) from err


def flatten(document: Document, *keys: str | int) -> dict[str, Entry]:
    """Read a mapping of settings, spelled by dotted path, nested, or both.

    Args:
        document: The file.
        keys: Where the mapping stands. Absent: empty.

    Raises:
        ConfigError: Not a mapping, an unknown path, or one path in both spellings.
    """
    raw = lookup(document.data, keys)
    if raw is None:
        return {}
    if not isinstance(raw, Mapping):
        raise ConfigError(
            f"{keys[-1]} must be a mapping of settings, got {raw!r} ({document.place(*keys)})."
        )
    out: dict[str, Entry] = {}
    for key, value in raw.items():
        # `optim: {lr: 0.1}` is nested; a mapping under anything else is left for its own check.
        nested = isinstance(value, Mapping) and key in _sections()
        items = {f"{key}.{sub}": (key, sub) for sub in value} if nested else {key: (key,)}
        for path, tail in items.items():
            place = document.place(*keys, *tail)
            check_path(path, place)
            if path in out:
                raise ConfigError(f"{path} is given twice ({place}; first: {out[path].place}).")
            value_here = value[tail[-1]] if nested else value
            out[path] = Entry(value_here, place, document.folder, (*keys, *tail))
    return out


def lookup(data: Any, keys: Keys) -> Any:
    """The value under these keys; None where a mapping lacks the key."""
    for key in keys:
        data = data[key] if isinstance(key, int) else data.get(key)
        if data is None:
            return None
    return data


def _explain(err: ValidationError, path: str, place: str) -> str:
    """One sentence for the first problem: path, what is possible, value got, place."""
    problem = first_problem(err)
    if problem.sentence is not None:
        text = problem.sentence.removeprefix(f"{path} ")
        colon = "" if text.startswith("must be ") else ":"
        return f"{path}{colon} {text} ({place})."
    got = problem.value
    near = nearest(got, problem.options) if isinstance(got, str) else ""
    return f"{path} {problem.rule}, got {got!r} ({place}){near}."
