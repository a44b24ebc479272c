"""Settings of one trial: frozen, strict, addressed by dotted paths, hashed into an identity.

A value has one spelling everywhere (`tcpa.top_k_image`): YAML, `--set`, MLflow parameters, Parquet
columns and messages. Settings of a method live in that method's file (`Config`); they appear in a
trial only when the method is in `methods`. This module never imports torch; the method files do, so
a trial's method section is only checked where `TrialConfig.from_flat` is called.
"""

import hashlib
import json
import os
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import ValidationError
from pydantic.config import JsonDict
from pydantic.fields import FieldInfo

from tcpa_core import plugins
from tcpa_core.errors import ConfigError, nearest
from tcpa_core.hints import nearest_setting
from tcpa_core.protocols.base import fixed_settings
from tcpa_core.settings import (
    IS_FILE,
    MAY_CHANGE,
    TASKS,
    CommonSettings,
    OptimConfig,
    Settings,
)
from tcpa_core.validation import first_problem

METHODS = "tcpa_core.methods"

CORE_VERSION = 5
"""Raised whenever a change of code changes the numbers of a trial; part of every digest."""

ADDED: Mapping[str, object] = {
    "backbone.norm_stats": None,
    "backbone.tag": None,
    "data.antialias": True,
    "data.auto_augment": None,
    "data.color_jitter": None,
    "data.crop_ratio": [3 / 4, 4 / 3],
    "data.erase_mode": "const",
    "data.erase_prob": 0.0,
    "data.group": None,
    "data.ignore": None,
    "data.image_column": None,
    "data.label_column": None,
    "data.max_class_share": None,
    "data.num_classes": None,
    "data.reduce_zero_label": None,
    "data.resized_crop": None,
    "data.scale_range": None,
    "data.size_per_class": None,
    "data.split": "official",
    "data.splits_dir": None,
    "data.train_interpolation": None,
    "data.train_list": None,
    "optim.head_lr": 1.0,
    "optim.min_lr": 0.0,
    "optim.poly_power": 0.9,
    "task.name": "classify",
    "train.cutmix_alpha": 0.0,
    "train.drop_last": False,
    "train.mixup_switch_prob": 0.5,
}
"""Settings younger than CORE_VERSION, with what trials did before: such trials keep their digests,
so that a study that was begun without these settings goes on."""

Flat = dict[str, Any]
"""Settings by dotted path."""

T = TypeVar("T", bound=Settings)


class TrialConfig(CommonSettings):
    """All settings of one trial.

    Build it with `from_flat`; read it with `flat`; derive from it with `replace_paths`.
    """

    method_settings: dict[str, Any] = {}
    """Checked `Config` object of each method in `methods`, by method name."""
    task_settings: Any = Settings()
    """Checked `Config` object of the task."""

    @classmethod
    def from_flat(cls, flat: Mapping[str, object], *, place: str = "trial") -> Self:
        """Check settings given by dotted path; absent ones take their defaults.

        Args:
            flat: {"tcpa.top_k_image": 5, "methods": ["tcpa"], ...}.
            place: Where the settings come from, for the message.

        Raises:
            ConfigError: Unknown path, wrong type, out of range, or settings that contradict.
        """
        nested = _nest(_as_recorded(flat), place)
        raw_methods = nested.get("methods", ("linear",))
        if isinstance(raw_methods, str):
            raise ConfigError(
                f"methods must be a list of method names, got {raw_methods!r} ({place}); "
                f"write [{raw_methods}]."
            )
        # Before anything is checked: what the protocol gives takes the place of defaults, and is
        # checked together with what the trial says.
        _follow_protocol(nested, raw_methods)
        core = {k: v for k, v in nested.items() if k in CommonSettings.model_fields}
        sections = {k: v for k, v in nested.items() if k not in CommonSettings.model_fields}
        base = _validate(CommonSettings, core, "", place)
        if len(set(base.methods)) != len(base.methods):
            raise ConfigError(
                f"methods names one method twice, got {list(base.methods)} ({place})."
            )
        settings = {
            name: _validate(method_config(name), sections.pop(name, {}), name, place)
            for name in base.methods
        }
        task = base.task.name
        of_task = _validate(task_config(task), sections.pop(task, {}), task, place)
        for name in sections:
            _refuse_section(name, base, place)
        # Both halves are checked already.
        return cls.model_construct(
            **{k: getattr(base, k) for k in CommonSettings.model_fields},
            method_settings=settings,
            task_settings=of_task,
        )

    def flat(self) -> Flat:
        """All settings, defaults included, by dotted path, in a stable order."""
        out: Flat = {}
        for name in CommonSettings.model_fields:
            value = getattr(self, name)
            if isinstance(value, Settings):
                out |= _section(name, value)
            else:
                out[name] = _plain(value)
        for name, settings in self._own_sections().items():
            out |= _section(name, settings)
        return out

    def replace_paths(self, changes: Mapping[str, object]) -> "TrialConfig":
        """The same trial with some paths changed. Sections of dropped methods are dropped too, and
        those of a dropped task.

        Raises:
            ConfigError: As `from_flat`.
        """
        merged = {**self.flat(), **changes}
        dropped = {*plugins.names(METHODS), *plugins.names(TASKS)}
        dropped -= {*merged["methods"], merged["task.name"]}
        kept = {
            path: value
            for path, value in merged.items()
            if path in changes or path.split(".")[0] not in dropped
        }
        return TrialConfig.from_flat(kept)

    def idle_paths(self) -> list[str]:
        """Paths of settings that change nothing, given the others."""
        own = [
            f"{section}.{key}"
            for section, settings in self._parts().items()
            for key in settings.idle(self.methods)
        ]
        return list(dict.fromkeys([*own, *self._idle_elsewhere()]))

    def _idle_elsewhere(self) -> list[str]:
        """Paths that sections other than their own make idle."""
        return [path for part in self._parts().values() for path in part.idle_elsewhere()]

    def effective(self) -> Flat:
        """`flat`, but what changes nothing has its default, so that equal trials are equal."""
        out = self.flat()
        for section, settings in self._parts().items():
            out |= _section(section, _settled(settings, self.methods))
        for path in self._idle_elsewhere():
            section, _, key = path.partition(".")
            out[path] = _plain(type(getattr(self, section)).model_fields[key].default)
        # AdamW that falls back to SGD is SGD: trials that say so in two ways have one identity.
        out["optim.name"] = self.optim.rule
        out["optim.adamw_wd0"] = OptimConfig.model_fields["adamw_wd0"].default
        return out

    def _parts(self) -> dict[str, Settings]:
        """Sections of the trial by name, those of its methods included."""
        core = {name: getattr(self, name) for name in CommonSettings.model_fields}
        sections = {name: part for name, part in core.items() if isinstance(part, Settings)}
        return sections | self._own_sections()

    def _own_sections(self) -> dict[str, Settings]:
        """Sections that a trial has by what it names: of its task and its methods."""
        return {self.task.name: self.task_settings, **self.method_settings}

    def digest(self, data_fingerprint: str, weights_fingerprint: str) -> str:
        """Identity of the trial: 16 hex digits over everything that changes its result.

        Names of files do not enter; what they lead to does.

        Args:
            data_fingerprint: Of the data set's content.
            weights_fingerprint: Of the backbone's weights (`model.load_backbone`).

        Raises:
            ConfigError: A file cannot be read.
        """
        return _hash(self._identity(data_fingerprint, weights_fingerprint))

    def point(self, data_fingerprint: str, weights_fingerprint: str) -> str:
        """The digest without the seed: equal for replicates."""
        identity = self._identity(data_fingerprint, weights_fingerprint)
        del identity["seed"]
        return _hash(identity)

    def _identity(self, data_fingerprint: str, weights_fingerprint: str) -> Flat:
        # A setting that did not exist when a study began enters only where it is used, so that the
        # digests of older trials stay what they were.
        identity = {k: v for k, v in self.effective().items() if k not in ADDED or v != ADDED[k]}
        del identity["protocol"]
        # A tag is the same in its own setting and in the name.
        identity["backbone.name"] = self.backbone.full_name
        identity.pop("backbone.tag", None)
        size = self.backbone.img_size
        if self.data.resize == "short_side" and size and size * 256 // 224 != round(size * 8 / 7):
            # The side was rounded to nearest once; where that differs, it is another trial.
            identity["data.resize_to"] = self.data.short_side(size)
        identity.pop("data.splits_dir", None)  # the data's fingerprint tells which splits they are
        for path in file_settings() & identity.keys() - {"data.root", "backbone.weights"}:
            identity[path] = _content(path, identity[path])
        identity["data.root"] = data_fingerprint
        identity["backbone.weights"] = weights_fingerprint
        identity["core_version"] = CORE_VERSION
        return identity


def begun_from(identity: str, parent: str, epoch: int) -> str:
    """Identity of a trial that begins from the state of another one.

    Args:
        identity: Its digest or point, as if it began from its seed.
        parent: The same of the other trial, which says what that one began from.
        epoch: After which the state was.

    Returns:
        16 hex digits.
    """
    return _hash({"settings": identity, "parent": parent, "epoch": epoch})


def _section(name: str, settings: Settings) -> Flat:
    return {f"{name}.{key}": _plain(value) for key, value in settings.model_dump().items()}


def _plain(value: object) -> object:
    """A value as JSON gives it back, so that a trial has the settings that its record has."""
    return [_plain(part) for part in value] if isinstance(value, tuple) else value


def _settled(settings: Settings, methods: Sequence[str]) -> Settings:
    """Settings with all that changes nothing at its default."""
    fields = type(settings).model_fields
    while True:  # a default may make further settings idle
        idle = {key: fields[key].default for key in settings.idle(methods)}
        if all(getattr(settings, key) == default for key, default in idle.items()):
            return settings
        settings = settings.model_copy(update=idle)


@cache
def method_config(name: str) -> type[Settings]:
    """The `Config` class of a method file."""
    config: type[Settings] = plugins.load(METHODS, name).Config
    return config


@cache
def task_config(name: str) -> type[Settings]:
    """The `Config` class of a task's file."""
    config: type[Settings] = plugins.load(TASKS, name).Config
    return config


def sections() -> dict[str, type[Settings]]:
    """Classes of the settings that every trial has, by section; "": those outside a section."""
    fields = {name: field.annotation for name, field in CommonSettings.model_fields.items()}
    return {"": CommonSettings} | {
        name: kind
        for name, kind in fields.items()
        if isinstance(kind, type) and issubclass(kind, Settings)
    }


def known_paths() -> dict[str, FieldInfo | None]:
    """Every dotted path that a trial can have, over all methods and tasks; `methods` and `seed`
    included."""
    every = sections() | {method: method_config(method) for method in plugins.names(METHODS)}
    every |= {task: task_config(task) for task in plugins.names(TASKS)}
    return {
        f"{section}.{key}" if section else key: field
        for section, model in every.items()
        for key, field in model.model_fields.items()
        if section or key not in every
    }


@cache
def file_settings() -> frozenset[str]:
    """Dotted paths of the settings that name a file or folder."""
    return _marked(IS_FILE)


@cache
def changeable() -> frozenset[str]:
    """Dotted paths of the settings that may change from one epoch of a training to the next."""
    return _marked(MAY_CHANGE)


def _marked(mark: JsonDict) -> frozenset[str]:
    marks = {
        path: getattr(field, "json_schema_extra", None) for path, field in known_paths().items()
    }
    return frozenset(path for path, found in marks.items() if found == mark)


def _content(path: str, name: str | None) -> str | None:
    """Hash of a file's content; None: there is no file."""
    if name is None:
        return None
    try:
        with Path(os.path.expanduser(name)).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError) as err:
        why = getattr(err, "strerror", err)
        raise ConfigError(
            f"{path}: {name!r} cannot be read ({why}); give an existing file."
        ) from err


def _nest(flat: Mapping[str, object], place: str) -> dict[str, Any]:
    """Sections with their values out of dotted paths; what stands in them is checked later."""
    nested: dict[str, Any] = {}
    for path, value in flat.items():
        section, dot, key = str(path).partition(".")
        if not dot:
            nested[section] = value
        elif isinstance(nested.setdefault(section, {}), dict) and "." not in key:
            nested[section][key] = value
        else:
            near = nearest_setting(path, known_paths())
            raise ConfigError(f"no setting {path!r} ({place}){near}.")
    return nested


@cache
def _core_paths() -> frozenset[str]:
    """Dotted paths of the settings that every trial has."""
    return frozenset(
        f"{name}.{key}" for name, model in sections().items() if name for key in model.model_fields
    )


def _as_recorded(flat: Mapping[str, object]) -> Mapping[str, object]:
    """The settings, with those of `ADDED` where a record from before them has all the others: they
    did not exist then, so the protocol does not fill them in."""
    absent = _core_paths() - flat.keys()
    return {**ADDED, **flat} if absent and absent <= ADDED.keys() else flat


def _follow_protocol(nested: dict[str, Any], methods: Collection[str]) -> None:
    """Fill in what the protocol says and the trial does not."""
    name = nested.get("protocol")
    # A name that is no text is refused with all other wrong types, when the sections are checked.
    if not isinstance(name, str):
        return
    for path, value in fixed_settings(name, methods).items():
        section, _, key = path.partition(".")
        if isinstance(nested.setdefault(section, {}), dict):
            nested[section].setdefault(key, value)


def _refuse_section(name: str, base: CommonSettings, place: str) -> None:
    if name in plugins.names(METHODS):
        raise ConfigError(
            f"{name}.* is set but methods is {list(base.methods)} ({place}); "
            f"add {name!r} to methods or remove its settings."
        )
    if name in plugins.names(TASKS):
        raise ConfigError(
            f"{name}.* is set but task.name is {base.task.name!r} ({place}); "
            f"set task.name: {name} or remove its settings."
        )
    known = sorted({path.split(".")[0] for path in known_paths()})
    raise ConfigError(
        f"no settings section {name!r} ({place}){nearest(name, known)}. "
        f"Available: {', '.join(known)}."
    )


def _validate(model: type[T], values: object, section: str, place: str) -> T:
    try:
        return model.model_validate(values)
    except ValidationError as err:
        problem = first_problem(err)
        path = ".".join([*([section] if section else []), *(str(p) for p in problem.where)])
        if problem.is_unknown_key:
            near = nearest_setting(path, known_paths())
            raise ConfigError(f"no setting {path!r} ({place}){near}.") from err
        if problem.sentence is not None:
            raise ConfigError(f"{problem.sentence} ({place})") from err
        raise ConfigError(f"{path}: {problem.rule}, got {problem.value!r} ({place}).") from err


def _hash(identity: Flat) -> str:
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
