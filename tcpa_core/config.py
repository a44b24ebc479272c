"""Settings of one trial: frozen, strict, addressed by dotted paths, hashed into an identity.

A value has one spelling everywhere (`tcpa.top_k_image`): YAML, `--set`, MLflow parameters, Parquet
columns and messages. Settings of a method live in that method's file (`Config`); they appear in a
trial only when the method is in `methods`. This module never imports torch; the method files do, so
a trial's method section is only checked where `TrialConfig.from_flat` is called.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

from tcpa_core import plugins
from tcpa_core.errors import ConfigError, nearest
from tcpa_core.hints import nearest_setting
from tcpa_core.protocols.base import fixed_settings

METHODS = "tcpa_core.methods"
DATASETS = "tcpa_core.data"

CORE_VERSION = 4
"""Raised whenever a change of code changes the numbers of a trial; part of every digest."""

ADDED: Mapping[str, Any] = {
    "backbone.norm_stats": None,
    "data.antialias": True,
    "data.group": None,
    "train.drop_last": False,
}
"""Settings younger than CORE_VERSION, with what trials did before: such trials keep their digests,
so that a study that was begun without these settings goes on."""

Flat = dict[str, Any]

IS_FILE: dict[str, Any] = {"is_file": True}
"""Marks a setting (`json_schema_extra`) that names a file or folder. In a space it is relative to
the space's own file; in a trial's identity its content stands for it."""


class Settings(BaseModel):
    """Base of all settings: frozen, strict, unknown keys forbidden."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def idle(self, methods: Sequence[str]) -> Collection[str]:
        """Fields that change nothing in a trial of these methods, given the other fields."""
        return ()


T = TypeVar("T", bound=Settings)

Triple = tuple[float, float, float]
"""One number per colour channel."""


def norm_stats_value(value: Any) -> Any:
    """Check a value of `backbone.norm_stats`: names as they are, numbers as tuples of floats.

    Raises:
        ValueError: It is neither.
    """
    if value is None or value in ("imagenet", "inception", "clip"):
        return value
    try:
        mean, std = (tuple(map(_number, numbers)) for numbers in value)
        fits = len(mean) == len(std) == 3
        fits = fits and all(0 <= m <= 1 for m in mean) and all(0 < s < math.inf for s in std)
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise ValueError(
            "backbone.norm_stats must be imagenet, inception, clip, or [[mean], [std]] with three "
            "numbers each for pixels in [0, 1]: means in [0, 1], stds above 0, got "
            f"{value!r}"
        )
    return mean, std


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return float(value)


class BackboneConfig(Settings):
    """Which frozen ViT, with which weights, at which image size."""

    name: str = "vit_nano"
    """A timm VisionTransformer by name, or "vit_nano" (shipped with this package)."""
    weights: str | None = Field(default=None, json_schema_extra=IS_FILE)
    """None: shipped or hub weights; a path to .safetensors/.pth/.npz; or "random" (labelled)."""
    img_size: int | None = Field(default=None, ge=1, le=10_000)
    """Input side in pixels, a multiple of the patch; None: the model's own. Position embeddings
    are resized, which the plan states."""
    norm_stats: Annotated[
        Literal["imagenet", "inception", "clip"] | tuple[Triple, Triple] | None,
        BeforeValidator(norm_stats_value),
    ] = None
    """Mean and std of the images that the weights were trained on: a name, or [[mean], [std]] for
    pixels in [0, 1]. None: what the weights say themselves; where they do not, the plan asks."""
    pool: Literal["avg"] | None = None
    """avg: features are the mean of the image tokens, and the model's final norm follows the mean,
    as MAE's are read. None: as the model reads them."""


class DataConfig(Settings):
    """Which labelled images, and how they become tensors."""

    name: str = "digits"
    """A file of tcpa_core/data."""
    root: str | None = Field(default=None, json_schema_extra=IS_FILE)
    """Folder of the data set; None where the data set needs none."""
    resize: Literal["squash", "short_side"] = "squash"
    """squash: to img_size x img_size, aspect ignored; short_side: to resize_to, then crop."""
    resize_to: int | None = Field(default=None, ge=1)
    """Short side in pixels before the crop; None: img_size * 256 / 224, rounded down as the
    authors' programs do: 256 for 224, 438 for 384, 512 for 448."""
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    """Filter of the resize."""
    antialias: bool = True
    """Average over all pixels that one pixel of a smaller picture covers; false: take the nearest
    ones only, as TensorFlow's resize does, which VPT's authors use on VTAB-1k."""
    random_crop: bool = False
    """Train on random img_size crops (short_side only); evaluation always crops the centre."""
    flip: bool = False
    """Mirror half of the training images."""
    norm_stats: Literal["checkpoint", "imagenet", "half"] = "checkpoint"
    """Mean and std: the checkpoint's own, ImageNet's, or 0.5."""
    val_fraction: float = Field(default=0.2, gt=0.0, lt=1.0)
    """Share of train split off as val, per class, where the data set has no val split."""
    split_seed: int = Field(default=0, ge=0)
    """Seed of that split; not the trial's seed, so that replicates share the split."""
    group: str | None = None
    r"""Regular expression that finds, in an image's path below data.root, the track, patient or
    scene it belongs to (its first group, or the whole match): such images stay together in that
    split. GTSRB: `\d+/\d+(?=_)`. Where the data set has its own val, groups that it tears are
    only counted."""
    train_on: Literal["train", "train_and_val"] = "train"
    """train_and_val: val is trained on as well, as some authors do in their final runs. It is
    still scored, but says nothing, and so must not select the epoch."""

    def short_side(self, img_size: int) -> int:
        """Short side before the crop, in pixels."""
        return img_size * 256 // 224 if self.resize_to is None else self.resize_to

    @field_validator("group")
    @classmethod
    def _group_is_an_expression(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except (re.error, RecursionError, OverflowError) as err:
            raise ValueError(
                f"data.group must be a regular expression, got {value!r} ({err}); write for "
                "example 'patient_[0-9]+'"
            ) from err
        return value

    def idle(self, methods: Sequence[str]) -> Collection[str]:
        """How val is split off, where the data set brings its own."""
        draws_val = getattr(plugins.load(DATASETS, self.name), "draws_val", None)
        is_drawn = draws_val is None or draws_val(self)
        return () if is_drawn else ("val_fraction", "split_seed", "group")

    @model_validator(mode="after")
    def _crops_need_room(self) -> Self:
        if self.resize == "squash" and (self.random_crop or self.resize_to is not None):
            raise ValueError(
                f"data.random_crop and data.resize_to need data.resize='short_side', got 'squash' "
                f"with random_crop={self.random_crop}, resize_to={self.resize_to}; set "
                f"data.resize=short_side or leave them out"
            )
        return self


class OptimConfig(Settings):
    """Optimiser and learning-rate schedule."""

    name: Literal["adamw", "sgd"] = "adamw"
    """Optimiser; sgd has momentum."""
    lr: float = Field(default=1e-3, gt=0.0)
    """Peak learning rate, reached at the end of the warm-up; not scaled by the batch size."""
    weight_decay: float = Field(default=0.01, ge=0.0)
    """Decoupled (AdamW) or added to the gradient (SGD)."""
    momentum: float = Field(default=0.9, ge=0.0, lt=1.0)
    """SGD only."""
    warmup_fraction: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Share of all steps with a linear warm-up; 0 switches it off."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate behind the warm-up: down to 0 along a half cosine, or unchanged."""
    clip_norm: float | None = Field(default=None, gt=0.0)
    """Largest gradient norm of one trial's trainable tensors; None: no clipping."""
    adamw_wd0: Literal["adamw", "sgd"] = "adamw"
    """What adamw without weight decay means: itself, or SGD (VPT's authors' code)."""

    def idle(self, methods: Sequence[str]) -> Collection[str]:
        """SGD's momentum, and what AdamW without weight decay means, where that is not used."""
        no_momentum = ("momentum",) if self.rule == "adamw" else ()
        has_meaning = self.name == "adamw" and self.weight_decay == 0
        return no_momentum if has_meaning else (*no_momentum, "adamw_wd0")

    @property
    def rule(self) -> Literal["adamw", "sgd"]:
        """The optimiser that is used."""
        falls_back = self.weight_decay == 0 and self.adamw_wd0 == "sgd"
        return "sgd" if falls_back else self.name


class TrainConfig(Settings):
    """Length, batches, regularisation and selection."""

    epochs: int = Field(default=20, ge=1)
    """Passes over the training split."""
    batch_size: int = Field(default=64, ge=1)
    """Training images per step."""
    drop_last: bool = False
    """Leave the last batch of an epoch out where it is smaller than the others; a split of less
    than one batch is trained on all the same."""
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of each target that is spread evenly over all classes."""
    mixup_alpha: float = Field(default=0.0, ge=0.0)
    """Beta(alpha, alpha) mixing of image pairs; 0 switches it off."""
    mixup_prob: float = Field(default=0.5, ge=0.0, le=1.0)
    """Probability that a batch is mixed."""
    selection: Literal["best_val", "best_val_loss", "last_epoch", "best_test_epoch"] = "best_val"
    """Which epoch a trial's values are of, and whose state is tested: that of the highest val
    accuracy, of the lowest val loss (default of a study whose objective is val_loss), or the last
    one. best_test_epoch is some authors' rule; labelled."""
    patience: int | None = Field(default=None, ge=1)
    """Stop after this many epochs without a better val accuracy, or val loss where best_val_loss
    selects; None: never."""
    head_init: Literal["torch_default", "vpt", "trunc02"] = "torch_default"
    """Start of the head: as torch's Linear (TCPA, CVPT), VPT's authors', or N(0, 0.02²) cut at 2
    (SA²VP)."""
    drop_path: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of samples that skip a branch of the backbone's last block in training; it rises from
    0 at the first block. Several papers use 0.1 or 0.2 on the frozen network."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Dropout in the backbone, behind the position embeddings and in the MLPs, in training. Some
    authors leave the frozen network so, with 0.1."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: fp32 on CPU, bf16 autocast on CUDA."""

    def idle(self, methods: Sequence[str]) -> Collection[str]:
        """The other part of a mixup that is off, and a patience that never ends."""
        fields = ["mixup_prob"] if self.mixup_alpha == 0 else []
        fields += ["mixup_alpha"] if self.mixup_prob == 0 else []
        return [*fields, "patience"] if (self.patience or 0) >= self.epochs else fields


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class _Sections(Settings):
    protocol: str | None = None
    """Published protocol that the trial claims to follow: it gives every setting that is not named,
    and what differs from it is recorded as a deviation. A label; the settings decide."""
    backbone: BackboneConfig = BackboneConfig()
    data: DataConfig = DataConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    methods: Annotated[tuple[str, ...], BeforeValidator(_as_tuple), Field(min_length=1)] = (
        "linear",
    )
    """Chain of tuning methods, applied together."""
    seed: int = Field(default=0, ge=0)
    """Initial values, batch order and augmentation; a space lists its replicates as `seeds`."""

    @model_validator(mode="after")
    def _val_must_be_unseen(self) -> Self:
        by_val = self.train.selection in ("best_val", "best_val_loss")
        selects = by_val or self.train.patience is not None
        if self.data.train_on == "train_and_val" and selects:
            raise ValueError(
                "data.train_on='train_and_val' leaves no val to select by, got train.selection="
                f"{self.train.selection!r} and train.patience={self.train.patience}; set "
                "train.selection=last_epoch and train.patience=null, or data.train_on=train"
            )
        return self


class TrialConfig(_Sections):
    """All settings of one trial.

    Build it with `from_flat`; read it with `flat`; derive from it with `replace_paths`.
    """

    method_settings: dict[str, Any] = {}
    """Checked `Config` object of each method in `methods`, by method name."""

    @classmethod
    def from_flat(cls, flat: Mapping[str, Any], *, place: str = "trial") -> Self:
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
        _follow_protocol(nested, raw_methods)
        core = {k: v for k, v in nested.items() if k in _Sections.model_fields}
        sections = {k: v for k, v in nested.items() if k not in _Sections.model_fields}
        base = _validate(_Sections, core, "", place)
        if len(set(base.methods)) != len(base.methods):
            raise ConfigError(
                f"methods names one method twice, got {list(base.methods)} ({place})."
            )
        settings = {
            name: _validate(method_config(name), sections.pop(name, {}), name, place)
            for name in base.methods
        }
        for name in sections:
            _refuse_section(name, base.methods, place)
        return cls.model_construct(
            **{k: getattr(base, k) for k in _Sections.model_fields}, method_settings=settings
        )

    def flat(self) -> Flat:
        """All settings, defaults included, by dotted path, in a stable order."""
        out: Flat = {}
        for name in _Sections.model_fields:
            value = getattr(self, name)
            if isinstance(value, Settings):
                out |= {f"{name}.{key}": v for key, v in value.model_dump().items()}
            else:
                out[name] = list(value) if isinstance(value, tuple) else value
        for name, settings in self.method_settings.items():
            out |= {f"{name}.{key}": v for key, v in settings.model_dump().items()}
        return out

    def replace_paths(self, changes: Mapping[str, Any]) -> "TrialConfig":
        """The same trial with some paths changed. Sections of dropped methods are dropped too."""
        merged = {**self.flat(), **changes}
        methods = merged["methods"]
        kept = {
            path: value
            for path, value in merged.items()
            if path in changes
            or path.split(".")[0] not in plugins.names(METHODS)
            or path.split(".")[0] in methods
        }
        return TrialConfig.from_flat(kept)

    def idle_paths(self) -> list[str]:
        """Paths of settings that change nothing, given the others."""
        return [
            f"{section}.{key}"
            for section, settings in self._parts().items()
            for key in settings.idle(self.methods)
        ]

    def effective(self) -> Flat:
        """`flat`, but what changes nothing has its default, so that equal trials are equal."""
        out = self.flat()
        for section, settings in self._parts().items():
            settled = _settled(settings, self.methods)
            out |= {f"{section}.{key}": value for key, value in settled.model_dump().items()}
        out["optim.name"] = self.optim.rule
        out["optim.adamw_wd0"] = OptimConfig.model_fields["adamw_wd0"].default
        return out

    def _parts(self) -> dict[str, Settings]:
        core = {name: getattr(self, name) for name in _Sections.model_fields}
        sections = {name: part for name, part in core.items() if isinstance(part, Settings)}
        return sections | self.method_settings

    def digest(self, data_fingerprint: str, weights_fingerprint: str) -> str:
        """Identity of the trial: 16 hex digits over everything that changes its result.

        Names of files do not enter; what they lead to does.

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
        identity = {k: v for k, v in self.effective().items() if k not in ADDED or v != ADDED[k]}
        del identity["protocol"]
        size = self.backbone.img_size
        if self.data.resize == "short_side" and size and size * 256 // 224 != round(size * 8 / 7):
            identity["data.resize_to"] = self.data.short_side(size)  # was rounded to nearest before
        for path in file_settings() & identity.keys() - {"data.root", "backbone.weights"}:
            identity[path] = _content(path, identity[path])
        identity["data.root"] = data_fingerprint
        identity["backbone.weights"] = weights_fingerprint
        identity["core_version"] = CORE_VERSION
        return identity


def _settled(settings: Settings, methods: Sequence[str]) -> Settings:
    """Settings with all that changes nothing at its default, also what does so only then."""
    fields = type(settings).model_fields
    while True:
        idle = {key: fields[key].default for key in settings.idle(methods)}
        if all(getattr(settings, key) == default for key, default in idle.items()):
            return settings
        settings = settings.model_copy(update=idle)


@cache
def method_config(name: str) -> type[Settings]:
    """The `Config` class of a method file."""
    config: type[Settings] = plugins.load(METHODS, name).Config
    return config


def sections() -> dict[str, type[Settings]]:
    """Classes of the settings that every trial has, by section; "": those outside a section."""
    fields = {name: field.annotation for name, field in _Sections.model_fields.items()}
    return {"": _Sections} | {
        name: kind
        for name, kind in fields.items()
        if isinstance(kind, type) and issubclass(kind, Settings)
    }


def known_paths() -> dict[str, FieldInfo | None]:
    """Every dotted path that a trial can have, over all methods; `methods` and `seed` included."""
    every = sections() | {method: method_config(method) for method in plugins.names(METHODS)}
    return {
        f"{section}.{key}" if section else key: field
        for section, model in every.items()
        for key, field in model.model_fields.items()
        if section or key not in every
    }


@cache
def file_settings() -> frozenset[str]:
    """Dotted paths of the settings that name a file or folder."""
    marks = {
        path: getattr(field, "json_schema_extra", None) for path, field in known_paths().items()
    }
    return frozenset(path for path, mark in marks.items() if mark == IS_FILE)


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


def _nest(flat: Mapping[str, Any], place: str) -> dict[str, Any]:
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
        f"{name}.{key}"
        for name, field in _Sections.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, Settings)
        for key in field.annotation.model_fields
    )


def _as_recorded(flat: Mapping[str, Any]) -> Mapping[str, Any]:
    """All settings of a trial, as a record from before `ADDED` has them: they did not exist then,
    so the protocol does not fill them in."""
    absent = _core_paths() - flat.keys()
    return {**ADDED, **flat} if absent and absent <= ADDED.keys() else flat


def _follow_protocol(nested: dict[str, Any], methods: Any) -> None:
    """Fill in what the protocol says and the trial does not."""
    name = nested.get("protocol")
    if not isinstance(name, str):
        return
    for path, value in fixed_settings(name, methods).items():
        section, _, key = path.partition(".")
        if isinstance(nested.setdefault(section, {}), dict):
            nested[section].setdefault(key, value)


def _refuse_section(name: str, methods: tuple[str, ...], place: str) -> None:
    if name in plugins.names(METHODS):
        raise ConfigError(
            f"{name}.* is set but methods is {list(methods)} ({place}); "
            f"add {name!r} to methods or remove its settings."
        )
    known = sorted({path.split(".")[0] for path in known_paths()})
    raise ConfigError(
        f"no settings section {name!r} ({place}){nearest(name, known)}. "
        f"Available: {', '.join(known)}."
    )


def _validate(model: type[T], values: Any, section: str, place: str) -> T:
    try:
        return model.model_validate(values)
    except ValidationError as err:
        raise ConfigError(_explain(err, model, section, place)) from err


def _explain(err: ValidationError, model: type[Settings], section: str, place: str) -> str:
    """Turn the first pydantic problem into one sentence with path, value and possibilities."""
    problem = err.errors()[0]
    path = ".".join([*([section] if section else []), *(str(p) for p in problem["loc"])])
    got = problem["input"]
    if problem["type"] == "extra_forbidden":
        return f"no setting {path!r} ({place}){nearest_setting(path, known_paths())}."
    if problem["type"] == "value_error":  # our own model validators name the path themselves
        return f"{problem['ctx']['error']} ({place})"
    message = problem["msg"][0].lower() + problem["msg"][1:]
    return f"{path}: {message.replace('input should be', 'must be')}, got {got!r} ({place})."


def _hash(identity: Flat) -> str:
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
