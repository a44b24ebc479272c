"""Settings of a trial by section: fields with defaults, ranges and meaning, as pydantic models.

The text under a field is its documentation: `tcpa settings` and docs/settings.md print it. This
module never imports torch.

Every section checks itself: a trial that exists has settings that fit together within each section.
"""

import math
import re
from collections.abc import Collection, Sequence
from types import ModuleType
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.config import JsonDict

from tcpa_core import plugins

DATASETS = "tcpa_core.data"
TASKS = "tcpa_core.tasks"

OF_SOME_KINDS = (
    *("image_column", "label_column", "train_list", "splits_dir"),
    *("num_classes", "ignore", "reduce_zero_label", "scale_range", "max_class_share"),
)
"""Settings of `data.*` that only those kinds read whose file lists them in USES."""

IS_FILE: JsonDict = {"is_file": True}
"""Marks a setting (`json_schema_extra`) that names a file or folder. In a space it is relative to
the space's own file; in a trial's identity its content stands for it."""

MAY_CHANGE: JsonDict = {"may_change": True}
"""Marks a setting (`json_schema_extra`) that may change from one epoch of a training to the next:
no tensor has its shape or its meaning from it. Population based training changes no other."""


class Settings(BaseModel):
    """Base of all settings: frozen, strict, unknown keys forbidden."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def idle(self, methods: Sequence[str]) -> Collection[str]:
        """Fields that change nothing in a trial of these methods, given the other fields."""
        return ()

    def idle_elsewhere(self) -> Collection[str]:
        """Paths of other sections that change nothing, given these fields."""
        return ()


Triple = tuple[float, float, float]
"""One number per colour channel."""


def norm_stats_value(value: Any) -> Any:
    """Check a value of `backbone.norm_stats`.

    Returns:
        A name or None as it is, numbers as (mean, std), each a tuple of three floats.

    Raises:
        ValueError: It is neither, or the numbers cannot be those of pixels in [0, 1].
    """
    if value is None or value in ("imagenet", "inception", "clip"):
        return value
    try:
        # Lists from YAML and JSON, tuples from our own code, rows of arrays: all become tuples.
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


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return float(value)


class BackboneConfig(Settings):
    """Which frozen ViT, with which weights, at which image size."""

    name: str = "vit_nano"
    """A timm VisionTransformer or Eva model (DINOv3, ...) by name, or "vit_nano" (shipped)."""
    tag: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_]+$")
    """Which of the published weights of the name ("mae", "augreg_in21k"), as if it stood behind a
    dot in the name. With a file: whose weights it holds. None: what the name says, or timm's
    default."""
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
    pool: Literal["avg", "token"] | None = None
    """avg: features are the mean of the image tokens, and the model's final norm follows the mean,
    as MAE's are read. token: CLS, as DINOv3's authors read it, where timm's model reads the mean.
    None: as the model reads them."""

    @property
    def full_name(self) -> str:
        """Name and tag as timm writes them: "vit_base_patch16_224.mae"."""
        return self.name if self.tag is None else f"{self.name}.{self.tag}"

    @model_validator(mode="after")
    def _one_tag(self) -> Self:
        if self.tag is not None and "." in self.name:
            raise ValueError(
                f"backbone.tag={self.tag!r} beside backbone.name={self.name!r}, which has a tag; "
                "leave one of the two out"
            )
        return self


Range = tuple[float, float]
LEAST_SCALE, MOST_SCALE = 0.125, 8.0
"""Of a training picture."""
"""Smallest and largest value."""
Jitter = tuple[float, float, float, float]

_POLICY = re.compile(
    r"rand(-(m\d+|n[1-9]|p([01]|0\.\d+)|mstd\d+(\.\d+)?|mmax[1-9]\d*|inc[01]|t(weights|3aw?)))*"
    r"|(originalr?|v0r?|3a)(-mstd\d+(\.\d+)?)?"
)
"""What timm reads; of other texts it takes parts, or fails with an assertion."""


def as_tuple(value: object) -> object:
    """Lists of YAML and JSON as tuples; all else as it is."""
    return tuple(value) if isinstance(value, list) else value


def _as_jitter(value: object) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = (value, value, value)
    value = as_tuple(value)
    return (*value, 0.0) if isinstance(value, tuple) and len(value) == 3 else value


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
    flip: bool = Field(default=False, json_schema_extra=MAY_CHANGE)
    """Mirror half of the training images."""
    resized_crop: Annotated[Range | None, BeforeValidator(as_tuple)] = None
    """Train on random parts of the pictures at their own size, resized to img_size: the range of a
    part's share of the area, for example [0.08, 1.0] (RandomResizedCrop, timm's)."""
    crop_ratio: Annotated[Range, BeforeValidator(as_tuple)] = (3 / 4, 4 / 3)
    """Range of width over height of these parts."""
    train_interpolation: Literal["bicubic", "bilinear", "random"] | None = None
    """Filter for training images alone; random: either, drawn for each random part and each
    distortion (timm's). None: as interpolation."""
    auto_augment: str | None = Field(default=None, json_schema_extra=MAY_CHANGE)
    """Distortions of training images by timm's policies: RandAugment, for example
    "rand-m9-mstd0.5-inc1", or AutoAugment: original, originalr, v0, v0r or 3a, with "-mstd0.5"."""
    color_jitter: Annotated[Jitter | None, BeforeValidator(_as_jitter)] = Field(
        default=None, json_schema_extra=MAY_CHANGE
    )
    """Change colours of training images at random (ColorJitter, torchvision's): strengths of
    brightness, contrast, saturation and, up to 0.5, hue; one number f means [f, f, f, 0]."""
    erase_prob: float = Field(default=0.0, ge=0.0, le=1.0, json_schema_extra=MAY_CHANGE)
    """Share of training images of which a random rectangle is erased, behind mixup and CutMix
    (RandomErasing, timm's)."""
    erase_mode: Literal["const", "rand", "pixel"] = "const"
    """What is in its place: the mean of the normalisation, or normal noise, one colour for the
    rectangle (rand) or for each pixel."""
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
    split: Literal["official", "hta", "own"] = "official"
    """official: the distributor's train, val and test, val drawn from train where there is none;
    hta: as TCPA and DAM-VP split the ten sets of HTA, where the data set is one of them; own: val
    drawn from train together with the val that the data set brings."""
    splits_dir: str | None = Field(default=None, json_schema_extra=IS_FILE)
    """fgvc, and cub, nabirds, stanford_dogs and stanford_cars with split hta: folder of VPT's
    lists, train.json, val.json and test.json; None: they are in data.root."""
    size_per_class: int | None = Field(default=None, ge=1)
    """Train on so many images of each class only, chosen by a hash of their names and split_seed;
    val and test stay whole."""
    image_column: str | None = None
    """parquet, imagelist: column with the images or their paths; None: one of the usual names."""
    label_column: str | None = None
    """parquet, imagelist: column with the classes; None: one of the usual names."""
    train_list: str | None = None
    """imagelist, segfolder: the list of train, below data.root, where there are several, as those
    of few-shot studies: annotations/train_meta.list.num_shot_4.seed_0."""
    num_classes: int | None = Field(default=None, ge=2, le=254)
    """segfolder: classes of the masks, where neither a list of names nor the layout says it; those
    of data.ignore are not counted."""
    ignore: Annotated[tuple[int, ...] | None, BeforeValidator(as_tuple)] = None
    """segfolder: values of masks without a class, as they stand in the files; 255 always has none.
    None: as the layout says (the last one of SegNet's copy of CamVid)."""
    reduce_zero_label: bool | None = None
    """segfolder: 0 has no class and the classes count from 1. None: in ADE20K's layout."""
    scale_range: Annotated[Range | None, BeforeValidator(as_tuple)] = None
    """segfolder: train on pictures scaled by a factor from this range, masks with them, before
    img_size is cut at random, for example [0.5, 2.0]; what lies outside a smaller picture is the
    mean colour and no class. None: unscaled."""
    max_class_share: float | None = Field(default=None, gt=0.0, le=1.0)
    """segfolder: draw the place of a random crop anew, up to ten times, while one class fills as
    much of what has a class there, for example 0.75 (mmsegmentation's cat_max_ratio). None: as
    drawn first."""
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

    @property
    def has_masks(self) -> bool:
        """True when the data set has a class of each pixel, and not one of each picture."""
        # A trained state says what it saw where the kind of its data is not installed, too.
        if self.name not in plugins.names(DATASETS):
            return False
        return bool(getattr(plugins.load(DATASETS, self.name), "HAS_MASKS", False))

    @property
    def cuts_parts(self) -> bool:
        """True when training images are random parts of the pictures at their own size."""
        return self.resized_crop is not None

    @property
    def distorts(self) -> bool:
        """True when training images go through operations that are made picture by picture."""
        return self.cuts_parts or self.auto_augment is not None or self.color_jitter is not None

    @property
    def augments(self) -> bool:
        """True when training images may differ from epoch to epoch by these settings."""
        moves = self.flip or self.random_crop or self.scale_range is not None
        return moves or self.distorts or self.erase_prob > 0

    @property
    def filter_of_train(self) -> str:
        """The filter that training images are resized with: bicubic, bilinear or random."""
        return self.train_interpolation or self.interpolation

    @field_validator("resized_crop", "crop_ratio")
    @classmethod
    def _range_is_one(cls, value: Range | None, info: ValidationInfo) -> Range | None:
        highest = 1.0 if info.field_name == "resized_crop" else math.inf
        if value is not None and not 0 < value[0] <= value[1] <= highest:
            of = "shares of a picture's area" if highest == 1 else "widths over heights"
            raise ValueError(
                f"data.{info.field_name} must be [smallest, largest], {of} above 0"
                f"{' and up to 1' if highest == 1 else ''}, got {list(value)}"
            )
        return value

    @field_validator("ignore")
    @classmethod
    def _ignored_are_values(cls, value: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if value is not None and not all(0 <= one <= 255 for one in value):
            raise ValueError(
                f"data.ignore must be values of masks, from 0 to 255, got {list(value)}; write for "
                "example [11]"
            )
        return value

    @field_validator("scale_range")
    @classmethod
    def _scales_are_some(cls, value: Range | None) -> Range | None:
        if value is not None and not LEAST_SCALE <= value[0] <= value[1] <= MOST_SCALE:
            raise ValueError(
                f"data.scale_range must be [smallest, largest], factors from {LEAST_SCALE:g} to "
                f"{MOST_SCALE:g}, got {list(value)}; write for example [0.5, 2.0]"
            )
        return value

    @field_validator("color_jitter")
    @classmethod
    def _jitter_has_limits(cls, value: Jitter | None) -> Jitter | None:
        if value is not None and (min(value) < 0 or value[3] > 0.5 or not any(value)):
            raise ValueError(
                "data.color_jitter must be strengths of brightness, contrast, saturation and hue, "
                f"from 0, hue up to 0.5, not all 0, got {list(value)}; leave it out for none"
            )
        return value

    @field_validator("auto_augment")
    @classmethod
    def _policy_is_known(cls, value: str | None) -> str | None:
        if value is not None and not _POLICY.fullmatch(value):
            raise ValueError(
                f"data.auto_augment must be a policy of timm, got {value!r}; write for example "
                "'rand-m9-mstd0.5-inc1' (parts m, n, p, mstd, mmax, inc and t), or original, "
                "originalr, v0, v0r or 3a, with '-mstd0.5' behind it or without"
            )
        return value

    def idle(self, methods: Sequence[str]) -> Collection[str]:
        """How val is split off, where the data set brings its own; settings of other kinds; parts
        of what is off."""
        return [*self._idle_changes(), *self._idle_reading()]

    def _idle_changes(self) -> Collection[str]:
        fields = [] if self.cuts_parts else ["crop_ratio"]
        fields += [] if self.erase_prob else ["erase_mode"]
        fields += [] if self.random_crop or self.scale_range else ["max_class_share"]
        own = self.train_interpolation
        is_unused = own == "random" and not (self.cuts_parts or self.auto_augment)
        return (
            [*fields, "train_interpolation"] if is_unused or own == self.interpolation else fields
        )

    def _idle_reading(self) -> Collection[str]:
        # Asked of the data set's own file: only that knows what it reads.
        kind = plugins.load(DATASETS, self.name)
        others = tuple(s for s in OF_SOME_KINDS if s not in getattr(kind, "USES", ()))
        idle = kind.idle(self) if hasattr(kind, "idle") else self._idle_of_splits(kind)
        # Few images of a class are drawn by the seed of the split as well.
        return [s for s in (*others, *idle) if s != "split_seed" or self.size_per_class is None]

    def _idle_of_splits(self, kind: ModuleType) -> tuple[str, ...]:
        """What is idle where the data set comes with val, or where val is drawn from its train."""
        draws_val = kind.draws_val(self) if hasattr(kind, "draws_val") else True
        same = ("split",) if self.split == "hta" or (self.split == "own" and draws_val) else ()
        is_drawn = draws_val or self.split == "own"
        return same if is_drawn else (*same, "val_fraction", "split_seed", "group")

    @model_validator(mode="after")
    def _crops_need_room(self) -> Self:
        if self.resize == "squash" and (self.random_crop or self.resize_to is not None):
            raise ValueError(
                f"data.random_crop and data.resize_to need data.resize='short_side', got 'squash' "
                f"with random_crop={self.random_crop}, resize_to={self.resize_to}; set "
                f"data.resize=short_side or leave them out"
            )
        if self.random_crop and self.cuts_parts:
            raise ValueError(
                "data.random_crop and data.resized_crop are two ways to crop, got random_crop=True "
                f"and resized_crop={list(self.resized_crop or ())}; leave one of them out"
            )
        return self


class OptimConfig(Settings):
    """Optimiser and learning-rate schedule."""

    name: Literal["adamw", "sgd"] = "adamw"
    """Optimiser; sgd has momentum."""
    lr: float = Field(default=1e-3, gt=0.0, json_schema_extra=MAY_CHANGE)
    """Peak learning rate, reached at the end of the warm-up; not scaled by the batch size."""
    weight_decay: float = Field(default=0.01, ge=0.0, json_schema_extra=MAY_CHANGE)
    """Decoupled (AdamW) or added to the gradient (SGD)."""
    momentum: float = Field(default=0.9, ge=0.0, lt=1.0, json_schema_extra=MAY_CHANGE)
    """SGD only."""
    warmup_fraction: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Share of all steps with a linear warm-up; 0 switches it off."""
    schedule: Literal["cosine", "constant", "poly"] = "cosine"
    """Learning rate behind the warm-up: down to 0 along a half cosine, unchanged, or down to min_lr
    by a power of the share of steps that are left, as segmenters are trained."""
    poly_power: float = Field(default=0.9, gt=0.0, json_schema_extra=MAY_CHANGE)
    """That power; 1 is a straight line. poly only."""
    min_lr: float = Field(default=0.0, ge=0.0, json_schema_extra=MAY_CHANGE)
    """Learning rate that poly ends at, the same for every tensor, whatever its factor on lr."""
    head_lr: float = Field(default=1.0, gt=0.0, json_schema_extra=MAY_CHANGE)
    """Factor on lr for the tensors of the head; mmsegmentation trains decoders with 10."""
    clip_norm: float | None = Field(default=None, gt=0.0, json_schema_extra=MAY_CHANGE)
    """Largest gradient norm of one trial's trainable tensors; None: no clipping."""
    adamw_wd0: Literal["adamw", "sgd"] = "adamw"
    """What adamw without weight decay means: itself, or SGD (VPT's authors' code)."""

    def idle(self, methods: Sequence[str]) -> Collection[str]:
        """SGD's momentum, what AdamW without weight decay means and the parts of poly, where they
        are not used."""
        # By the rule that is used, not by the name: AdamW without weight decay may stand for SGD.
        fields = ["momentum"] if self.rule == "adamw" else []
        if self.name != "adamw" or self.weight_decay > 0:
            fields.append("adamw_wd0")
        return fields if self.schedule == "poly" else [*fields, "poly_power", "min_lr"]

    @property
    def rule(self) -> Literal["adamw", "sgd"]:
        """The optimiser that is used."""
        falls_back = self.weight_decay == 0 and self.adamw_wd0 == "sgd"
        return "sgd" if falls_back else self.name

    @model_validator(mode="after")
    def _ends_below_its_peak(self) -> Self:
        peak = self.lr * min(1.0, self.head_lr)
        if self.schedule == "poly" and self.min_lr > peak:
            raise ValueError(
                "optim.min_lr must be <= optim.lr, and <= optim.lr * optim.head_lr, got "
                f"min_lr={self.min_lr:g} with lr={self.lr:g} and head_lr={self.head_lr:g}; lower "
                "optim.min_lr"
            )
        return self


class TrainConfig(Settings):
    """Length, batches, regularisation and selection."""

    epochs: int = Field(default=20, ge=1)
    """Passes over the training split."""
    batch_size: int = Field(default=64, ge=1)
    """Training images per step."""
    drop_last: bool = False
    """Leave the last batch of an epoch out where it is smaller than the others; a split of less
    than one batch is trained on all the same."""
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0, json_schema_extra=MAY_CHANGE)
    """Share of each target that is spread evenly over all classes."""
    mixup_alpha: float = Field(default=0.0, ge=0.0, json_schema_extra=MAY_CHANGE)
    """Beta(alpha, alpha) mixing of image pairs; 0 switches it off."""
    mixup_prob: float = Field(default=0.5, ge=0.0, le=1.0, json_schema_extra=MAY_CHANGE)
    """Probability that a batch is mixed."""
    cutmix_alpha: float = Field(default=0.0, ge=0.0, json_schema_extra=MAY_CHANGE)
    """Beta(alpha, alpha) share of a rectangle that comes from the partner (CutMix, timm's); 0
    switches it off. With mixup, a batch is mixed in one of the two ways."""
    mixup_switch_prob: float = Field(default=0.5, ge=0.0, le=1.0, json_schema_extra=MAY_CHANGE)
    """Probability of CutMix where both are on."""
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
    drop_path: float = Field(default=0.0, ge=0.0, lt=1.0, json_schema_extra=MAY_CHANGE)
    """Share of samples that skip a branch of the backbone's last block in training; it rises from
    0 at the first block. Several papers use 0.1 or 0.2 on the frozen network."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0, json_schema_extra=MAY_CHANGE)
    """Dropout in the backbone, behind the position embeddings and in the MLPs, in training. Some
    authors leave the frozen network so, with 0.1."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: fp32 on CPU, bf16 autocast on CUDA."""

    @property
    def mixes(self) -> bool:
        """True when images may be mixed with others of their batch."""
        return self.mixup_prob > 0 and (self.mixup_alpha > 0 or self.cutmix_alpha > 0)

    def idle(self, methods: Sequence[str]) -> Collection[str]:
        """Other parts of a mixing that is off, and a patience that never ends."""
        mixup, cutmix = self.mixup_alpha > 0, self.cutmix_alpha > 0
        # Either of the two switches mixing off, and makes the other one's value meaningless.
        fields = [] if mixup or cutmix else ["mixup_prob"]
        if self.mixup_prob == 0:
            fields += ["mixup_alpha", "cutmix_alpha"]
        if not (mixup and cutmix):
            fields.append("mixup_switch_prob")
        elif self.mixup_switch_prob in (0, 1):
            fields.append("mixup_alpha" if self.mixup_switch_prob else "cutmix_alpha")
        return [*fields, "patience"] if (self.patience or 0) >= self.epochs else fields


class TaskConfig(Settings):
    """What is learnt."""

    name: str = "classify"
    """A file of tcpa_core/tasks: classify, a class for each picture; segment, one for each pixel,
    whose settings are `segment.*`."""


class CommonSettings(Settings):
    """Settings that every trial has, whatever its methods are."""

    protocol: str | None = None
    """Published protocol that the trial claims to follow: it gives every setting that is not named,
    and what differs from it is recorded as a deviation. A label; the settings decide."""
    task: TaskConfig = TaskConfig()
    backbone: BackboneConfig = BackboneConfig()
    data: DataConfig = DataConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    methods: Annotated[tuple[str, ...], BeforeValidator(as_tuple), Field(min_length=1)] = (
        "linear",
    )
    """Chain of tuning methods, applied together."""
    seed: int = Field(default=0, ge=0)
    """Initial values, batch order and augmentation; a space lists its replicates as `seeds`."""

    @model_validator(mode="after")
    def _val_must_be_unseen(self) -> Self:
        # Here and not in a section: it sets two of them against each other.
        by_val = self.train.selection in ("best_val", "best_val_loss")
        selects = by_val or self.train.patience is not None
        if self.data.train_on == "train_and_val" and selects:
            raise ValueError(
                "data.train_on='train_and_val' leaves no val to select by, got train.selection="
                f"{self.train.selection!r} and train.patience={self.train.patience}; set "
                "train.selection=last_epoch and train.patience=null, or data.train_on=train"
            )
        return self
