"""AutoVP: the image is shrunk into the middle of a trained frame, and its output is mapped.

In pixel space of [0, 1] every image is resized to a part of the input and padded; sigmoid(delta)
fills what is left, so that the frame starts grey. The resized side is fixed, or trained as one
number s that scales the image about its centre. Trainable besides the head: 3 H^2, 1 with
`train_resize`, S C + C with mapping `fc`.

Mappings: `head` (a linear layer on the features, what TCPA's authors compare); on the S logits of
the backbone's own classifier `fc` (a linear layer) or the mean over `num_map` source classes per
class, each used once: `freq` (those predicted for the class most often, set before training),
`iter` (the same, anew every `map_every` epochs with the prompts as they are then) and `semantic`
(those whose names are most similar, by CLIP's features of the names, given in `text_features`).

Source:
    Tsao et al., AutoVP, ICLR 2024 (AutoVP). Its declared dropout of 0.2 is unused there, too.
"""

# Axes: M members, B samples, H image side, C classes, S source classes.

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from tcpa_core.config import TrialConfig
from tcpa_core.errors import ConfigError
from tcpa_core.methods import _pixels, base
from tcpa_core.methods._output_maps import (
    check_text_features,
    count_predictions,
    frequency_map,
    need_source_classes,
    read_text_features,
    semantic_map,
)
from tcpa_core.methods._pixels import frozen_features
from tcpa_core.methods.base import constant, copy_of
from tcpa_core.settings import IS_FILE, MAY_CHANGE

if TYPE_CHECKING:
    from tcpa_core.model.backbone import Backbone, TokenLayout

BASE_SHARE = 128 / 224
"""Side of the image at scale 1, as a share of the input."""
SCALE_RANGE = (0.1, 5.0)
BATCH = 100


class Config(base.MethodSettings):
    """Settings of AutoVP."""

    shared = ("mapping", "train_resize", "num_map")

    img_scale: float = Field(default=1.0, gt=0.0, le=5.0)
    """Side of the image as a multiple of 128 / 224 of the input; from 1.75 on it fills the input
    and there is no prompt (unless it is trained)."""
    train_resize: bool = False
    """Train the scale, starting from img_scale, within [0.1, 5]."""
    mapping: Literal["head", "fc", "freq", "iter", "semantic"] = "head"
    """From features or source logits to the classes."""
    num_map: int = Field(default=1, ge=1)
    """Source classes per class (freq, iter, semantic)."""
    map_every: int = Field(default=1, ge=1)
    """Epochs between two mappings (iter)."""
    text_features: str | None = Field(default=None, json_schema_extra=IS_FILE)
    """A safetensors file with CLIP's text features of the class names (semantic): `source` (S, E)
    in the order of the backbone's classifier, `target` (C, E), and in its metadata `classes`, the
    names of the target's rows as a JSON list."""
    lr_scale: float = Field(default=1.0, gt=0.0, json_schema_extra=MAY_CHANGE)
    """Factor on the learning rate of the prompt and the scale; the rest keeps optim.lr."""

    def idle(self, methods: Sequence[str]) -> Collection[str]:
        """What concerns another mapping."""
        fields = [] if self.is_map else ["num_map"]
        fields += [] if self.mapping == "iter" else ["map_every"]
        return fields if self.mapping == "semantic" else [*fields, "text_features"]

    @property
    def fills(self) -> bool:
        """Whether the image leaves no room for a prompt, whatever the input's size."""
        return not self.train_resize and self.img_scale * BASE_SHARE >= 1

    @property
    def is_map(self) -> bool:
        """Whether each class stands for the mean of some source classes."""
        return self.mapping in ("freq", "iter", "semantic")

    @property
    def names_file(self) -> str | None:
        """The file of text features, where names are compared."""
        return self.text_features if self.mapping == "semantic" else None

    @model_validator(mode="after")
    def _names_need_features(self) -> Self:
        if self.mapping == "semantic" and self.text_features is None:
            raise ValueError(
                "autovp.mapping='semantic' needs autovp.text_features, got None: class names are "
                "compared by CLIP's features of them, which this package cannot make; name a file "
                "of them, or choose another mapping"
            )
        return self

    def pack_key(self) -> tuple[object, ...]:
        """Code path, and whether there is a prompt at all."""
        return (*super().pack_key(), self.fills)


class Method(base.Method[base.Pass]):
    """AutoVP for a pack."""

    prompt: Tensor
    """(M, 3, H, H)."""
    scale: Tensor
    """(M, 1)."""
    fc_weight: Tensor
    fc_bias: Tensor
    """(M, C, S) and (M, C)."""
    source_classes: Tensor
    """(M, C, num_map)."""

    def __init__(self, backbone: Backbone, configs: Sequence[TrialConfig]) -> None:
        super().__init__(backbone, configs)
        self._source_logits = backbone.source_logits
        self._source_flops = backbone.source_flops
        self._side = backbone.img_size
        self._frames = _Frames.of(backbone, configs)
        self._config: Config = self.settings[0]

    @classmethod
    def check(cls, config: TrialConfig, layout: TokenLayout) -> None:
        """Refuse a scale at which nothing of the image is left."""
        settings: Config = config.method_settings[cls.name()]
        side = layout.grid[0] * layout.patch_size[0]
        if int(BASE_SHARE * side * settings.img_scale) < 1:
            raise ConfigError(
                f"autovp.img_scale must leave at least one pixel of images of {side} pixels, got "
                f"{settings.img_scale:g}; raise it to {1.01 / (BASE_SHARE * side):.3f} or more."
            )

    @classmethod
    def check_classes(cls, config: TrialConfig, class_names: Sequence[str]) -> None:
        """semantic: refuse features of other names than the data set's."""
        settings: Config = config.method_settings[cls.name()]
        if settings.names_file is not None:
            found = read_text_features(settings.names_file)[2]
            if found != list(class_names):
                first = next((n for n in class_names if n not in found), "their order")
                raise ConfigError(
                    f"autovp.text_features: {settings.names_file!r} must hold the data set's "
                    f"{len(class_names)} class names in order, got {len(found)} (differs in: "
                    f"{first}); make it for this data set."
                )

    @classmethod
    def hides_map(cls, config: TrialConfig) -> str | None:
        """It moves pixels."""
        return "shrinks pictures, so that tokens stand elsewhere than the pixels of a mask"

    @classmethod
    def has_own_logits(cls, config: TrialConfig) -> bool:
        """Mappings of source logits take the head's place."""
        return bool(config.method_settings[cls.name()].mapping != "head")

    @classmethod
    def fit(cls, setup: base.Setup, data: base.FitData) -> dict[str, Tensor]:
        """Map source classes to classes, by predictions or by names."""
        settings: Config = setup.settings(cls.name())
        if not settings.is_map:
            return {}
        need_source_classes(setup, f"autovp.mapping={settings.mapping}", settings.num_map)
        if settings.names_file is not None:
            cls.check_classes(setup.config, data.class_names)
            source, target, _ = read_text_features(settings.names_file)
            return {"source_classes": semantic_map(source, target, settings.num_map)}
        backbone = setup.backbone
        # The frame is grey before training, sigmoid(0).
        start = torch.zeros(1, 3, backbone.img_size, backbone.img_size, device=backbone.device)
        scale = torch.full((1, 1), settings.img_scale, device=backbone.device)
        frames = _Frames.of(backbone, [setup.config])

        def predictions() -> Iterator[tuple[Tensor, Tensor]]:
            for part in torch.arange(len(data.labels), device=data.labels.device).split(BATCH):
                images = data.batch(part)[None]
                if not settings.fills:
                    images = frames.around(images, start, scale if settings.train_resize else None)
                features = frozen_features(backbone, images[0])
                yield backbone.source_logits(features), data.labels[part]

        counts = count_predictions(predictions(), setup.num_classes)
        return {"source_classes": frequency_map(counts, settings.num_map)}

    @classmethod
    def refresh(cls, trainer: base.Trainer) -> base.MemberState:
        """iter: map anew by what the prompted images are taken for now."""
        settings: Config = trainer.config.method_settings[cls.name()]
        # A map made behind the last epoch would belong to no epoch that was evaluated.
        is_last = trainer.epoch >= trainer.config.train.epochs
        if settings.mapping != "iter" or is_last or trainer.epoch % settings.map_every:
            return {}
        name = f"{cls.name()}.source_classes"
        before = trainer.state[name]
        counts = count_predictions(trainer.source_logits(), len(before))
        return {name: frequency_map(counts, settings.num_map).to(before)}

    @classmethod
    def params(cls, setup: base.Setup) -> dict[str, base.ParamSpec]:
        """Prompt, scale, and what the mapping needs."""
        settings: Config = setup.settings(cls.name())
        side, classes = setup.backbone.img_size, setup.num_classes
        specs = {}
        rate = settings.lr_scale
        if not settings.fills:
            shape = (_pixels.COLOURS, side, side)
            specs["prompt"] = base.ParamSpec(shape, constant(0.0), lr_scale=rate)
        if settings.train_resize:
            specs["scale"] = base.ParamSpec(
                (1,), constant(settings.img_scale), lr_scale=rate, decay=False
            )
        if settings.mapping == "fc":
            need_source_classes(setup, "autovp.mapping=fc", 0)
            sources = setup.backbone.num_source_classes
            bound = base.uniform(sources**-0.5)
            specs["fc_weight"] = base.ParamSpec((classes, sources), bound)
            specs["fc_bias"] = base.ParamSpec((classes,), bound)
        if settings.is_map:
            need_source_classes(setup, f"autovp.mapping={settings.mapping}", settings.num_map)
            if settings.names_file is not None:
                check_text_features(settings.names_file, setup)
            known = setup.fitted.get("source_classes")
            specs["source_classes"] = base.ParamSpec(
                (classes, settings.num_map), copy_of(known), trainable=False
            )
        return specs

    @property
    def active(self) -> bool:
        """Whether there is a prompt or a mapping."""
        return not self._config.fills or self._config.mapping != "head"

    @property
    def changes_features(self) -> bool:
        """Not where the image fills the input."""
        return not self._config.fills

    def extra_flops(self, m: int) -> float:
        """The backbone's own classifier and the layer behind it, where they make the logits."""
        if self._config.mapping == "head":
            return 0.0
        layer = 2.0 * self.fc_weight[m].numel() if self._config.mapping == "fc" else 0.0
        return self._source_flops + layer

    def on_images(self, images: Tensor, state: base.Pass) -> Tensor:
        """Shrink the images into their frames."""
        if not self.changes_features:
            return images
        scale = self.scale if self._config.train_resize else None
        return self._frames.around(images, self.prompt, scale)

    def on_logits(self, features_MBF: Tensor, state: base.Pass) -> Tensor:
        """Logits of the classes from those of the source classes."""
        logits = self._source_logits(features_MBF)
        if self._config.mapping == "fc":
            with torch.autocast(logits.device.type, enabled=False):
                return torch.baddbmm(self.fc_bias[:, None], logits, self.fc_weight.mT)
        members, samples, _ = logits.shape
        index = self.source_classes.long().flatten(1)[:, None].expand(-1, samples, -1)
        mapped = logits.gather(-1, index)
        return mapped.view(members, samples, -1, self._config.num_map).mean(-1)

    @torch.no_grad()
    def after_step(self) -> None:
        """Keep the scale in its range."""
        if self._config.train_resize:
            self.scale.clamp_(*SCALE_RANGE)


@dataclass(frozen=True, slots=True)
class _Frames:
    """What is known of the members' frames before a pass: made once, on the device."""

    mean: Tensor
    std: Tensor
    """Of the normalisation, (M, 1, 3, 1, 1)."""
    filled: Sequence[int]
    """Side of each member's image in pixels, where it is not trained."""
    outside: Tensor
    """1 outside of it, (M, 1, H, H)."""

    @classmethod
    def of(cls, backbone: Backbone, configs: Sequence[TrialConfig]) -> Self:
        """The frames of some trials."""
        stats = [backbone.norm_stats(config.data.norm_stats) for config in configs]
        mean, std = torch.tensor(stats, device=backbone.device).view(-1, 2, 1, 3, 1, 1).unbind(1)
        side = backbone.img_size
        scales = [config.method_settings["autovp"].img_scale for config in configs]
        filled = [min(side, int(BASE_SHARE * side * scale)) for scale in scales]
        outside = _outside(torch.tensor(filled, device=backbone.device), side)
        return cls(mean, std, filled, outside)

    def around(self, images: Tensor, prompt: Tensor, scale: Tensor | None) -> Tensor:
        """Normalised images (M, B, 3, H, H) shrunk into the middle of each member's frame.

        Args:
            prompt: (M, 3, H, H), before the sigmoid.
            scale: (M, 1), where it is trained, and then it gets a gradient.
        """
        mean, std = self.mean.to(images), self.std.to(images)
        # The authors' frame lives in pixels of [0, 1], images arrive normalised.
        pixels = images * std + mean
        if scale is None:
            pairs = zip(pixels, self.filled, strict=True)
            shrunk, outside = torch.stack([_resized(x, size) for x, size in pairs]), self.outside
        else:
            side = images.shape[-1]
            start = min(side, int(BASE_SHARE * side))
            shrunk = _zoom(_resized(pixels.flatten(0, 1), start).view_as(pixels), scale)
            # The frame's inner edge is a number of pixels and has no gradient; the image moves
            # smoothly.
            filled = (start * scale.detach()[:, 0].double()).long().clamp(max=side)
            outside = _outside(filled, side)
        frame = torch.sigmoid(prompt) * outside.to(images)
        return (shrunk + frame[:, None] - mean) / std


def _resized(images: Tensor, size: int) -> Tensor:
    """Images (n, 3, H, H) resized to `size` and padded with black around it."""
    side = images.shape[-1]
    if size < side:
        images = F.interpolate(images, (size, size), mode="bilinear", antialias=True)
    before = (side - size) // 2
    after = side - size - before
    return F.pad(images, (before, after, before, after))


def _zoom(images: Tensor, scale: Tensor) -> Tensor:
    """Images (M, B, 3, H, H) scaled about their centre by (M, 1); black where nothing is."""
    samples = images.shape[1]
    # Under autocast the grid would be rounded to half precision, by half a pixel at the edge.
    with torch.autocast(images.device.type, enabled=False):
        zero = torch.zeros_like(scale)
        rows = torch.cat([1 / scale, zero, zero, zero, 1 / scale, zero], dim=-1)
        theta = rows.view(-1, 2, 3).repeat_interleave(samples, 0)
        flat = images.flatten(0, 1)
        grid = F.affine_grid(theta, list(flat.shape), align_corners=False)
        return F.grid_sample(flat, grid.to(flat), align_corners=False).view_as(images)


def _outside(filled_M: Tensor, side: int) -> Tensor:
    """1 outside the central square of so many pixels, else 0, (M, 1, side, side)."""
    before = ((side - filled_M) // 2)[:, None]
    place = torch.arange(side, device=filled_M.device)
    inside = (place >= before) & (place < before + filled_M[:, None])
    return 1.0 - (inside[:, None, :, None] & inside[:, None, None, :]).float()
