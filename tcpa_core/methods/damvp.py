"""DAM-VP: one border prompt per cluster of the data; each image uses that of its nearest cluster.

Clusters are found once, on features of the frozen backbone without any prompt, and stay. An image
runs through the backbone twice: unprompted to find its cluster, then with that cluster's prompt.
Trainable besides the head: M * 12 p (H - p) for M clusters. Without `meta_init`, prompts start from
N(0, 1); the authors learn them on six other data sets first, so that is not all of DAM-VP.

Source:
    Huang et al., Diversity-Aware Meta Visual Prompting, CVPR 2023 (DAM-VP). Its head-tuning code
    sets momentum to 0 by a misspelling (optim.momentum does) and gives the head the prompts' rate
    (lr_scale 1); that it tests stored prompts with the current head is not copied.
"""

# Axes: M members, K clusters, B samples, F features, H image side, C classes.

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tcpa_core.config import TrialConfig
from tcpa_core.errors import ConfigError, WeightsError
from tcpa_core.methods import _pixels, base
from tcpa_core.methods._pixels import frozen_features
from tcpa_core.methods.base import copy_of
from tcpa_core.settings import IS_FILE, MAY_CHANGE

if TYPE_CHECKING:
    from tcpa_core.model.backbone import Backbone, TokenLayout

THRESHOLDS = {
    "vit_base_patch16_224.augreg_in21k": 10.0,
    "vit_base_patch16_224.augreg_in1k": 31.0,
    "vit_base_patch16_224.augreg2_in21k_ft_in1k": 31.0,
}
"""Largest distance within a cluster that the authors used, by backbone."""
SHARE_OF_MEAN = 0.75
"""For other backbones: this share of the mean distance between two images."""
SAMPLE, BATCH, NOISE_IMAGES = 1000, 100, 512


class Config(base.MethodSettings):
    """Settings of DAM-VP."""

    shared = ("output",)

    prompt_size: int | None = Field(default=None, ge=0)
    """Width of the borders in pixels (p); None: 30 of 224, in proportion; 0: no prompt."""
    distance_threshold: float | None = Field(default=None, gt=0.0)
    """Largest average distance within a cluster; None: the authors' value for the backbones they
    used, else 0.75 of the mean distance between two images."""
    max_clusters: int = Field(default=32, ge=1)
    """Most clusters; memory grows with them."""
    output: Literal["head", "head_free"] = "head"
    """A trained head, or C features of the backbone as logits: those that vary most on noise."""
    meta_init: str | None = Field(default=None, json_schema_extra=IS_FILE)
    """A safetensors file with `prompt` (3, H, H) to start from; None: N(0, 1)."""
    lr_scale: float = Field(default=1.0, gt=0.0, json_schema_extra=MAY_CHANGE)
    """Factor on the learning rate of the prompts; the head keeps optim.lr."""

    def pack_key(self) -> tuple[object, ...]:
        """Output, and whether there are prompts at all."""
        return (*super().pack_key(), self.prompt_size != 0)


class Method(base.Method[base.Pass]):
    """DAM-VP for a pack."""

    prototypes: Tensor
    """(M, K, F), padded at the end of K."""
    logit_features: Tensor
    """(M, C): which feature is the logit of each class."""

    def __init__(self, backbone: Backbone, configs: Sequence[TrialConfig]) -> None:
        super().__init__(backbone, configs)
        # A function: as an attribute the backbone would become part of this module.
        self._features = lambda images: frozen_features(backbone, images)
        self._backbone_flops = backbone.flops_per_image()
        self._side = backbone.img_size
        self._sees_images_first = configs[0].methods[0] == self.name()
        self._assigned: dict[base.Images, Tensor] = {}
        """Numbers of the nearest prototypes (M, N) of splits whose images do not change."""
        self._sizes = [_size(s, self._side) for s in self.settings]

    @classmethod
    def check(cls, config: TrialConfig, layout: TokenLayout) -> None:
        """Refuse borders that cover the image."""
        side = layout.grid[0] * layout.patch_size[0]
        size = _size(config.method_settings[cls.name()], side)
        if 2 * size >= side:
            raise ConfigError(
                f"damvp.prompt_size must be at most {(side - 1) // 2} on images of {side} pixels, "
                f"got {size}; lower it."
            )

    @classmethod
    def deviations(cls, config: TrialConfig) -> tuple[str, ...]:
        """Prompts that were not learned on other data sets first."""
        if config.method_settings[cls.name()].meta_init is not None:
            return ()
        return ("damvp.meta_init=null (not all of DAM-VP: no meta-learned start)",)

    @classmethod
    def has_own_logits(cls, config: TrialConfig) -> bool:
        """Head-free: features are the logits."""
        return bool(config.method_settings[cls.name()].output == "head_free")

    @classmethod
    def hides_map(cls, config: TrialConfig) -> str | None:
        """It is made for whole pictures."""
        return "chooses a border by the whole of a picture, of which a window is a part"

    @classmethod
    def fit(cls, setup: base.Setup, data: base.FitData) -> dict[str, Tensor]:
        """Cluster up to 1,000 training images; head-free: choose the features."""
        settings: Config = setup.settings(cls.name())
        # Average linkage takes memory by the square of the images.
        order = torch.randperm(len(data.labels), generator=data.stream.generator("damvp.sample"))
        chosen = order[:SAMPLE].to(data.labels.device)
        features = torch.cat(
            [frozen_features(setup.backbone, data.batch(part)) for part in chosen.split(BATCH)]
        )
        threshold = settings.distance_threshold or THRESHOLDS.get(setup.config.backbone.full_name)
        found = {"prototypes": cluster(features, threshold, settings.max_clusters)}
        if settings.output == "head_free":
            found["logit_features"] = _lively_features(setup, data)
        return found

    @classmethod
    def params(cls, setup: base.Setup) -> dict[str, base.ParamSpec]:
        """Four border sides per cluster, prototypes, and the features that are logits."""
        settings: Config = setup.settings(cls.name())
        side, fitted = setup.backbone.img_size, setup.fitted
        size, count = _size(settings, side), len(fitted.get("prototypes", [()]))
        specs = {}
        if size:
            specs = _pixels.border_specs(side, size, count, lr_scale=settings.lr_scale)
            # A trained state has its prompts, and may lie where that file is not.
            if settings.meta_init is not None and "top" not in fitted:
                specs = _from_meta(settings.meta_init, specs, side, size)
        width = setup.backbone.layout.feature_dim
        specs["prototypes"] = base.ParamSpec(
            (count, width), copy_of(fitted.get("prototypes")), trainable=False
        )
        if settings.output == "head_free":
            if setup.num_classes > width:
                raise ConfigError(
                    f"damvp.output=head_free needs at most {width} classes (one feature each), "
                    f"got {setup.num_classes}; set damvp.output=head."
                )
            specs["logit_features"] = base.ParamSpec(
                (setup.num_classes,), copy_of(fitted.get("logit_features")), trainable=False
            )
        return specs

    @property
    def active(self) -> bool:
        """Whether there are prompts, or features instead of a head."""
        return self.changes_features or self.settings[0].output == "head_free"

    @property
    def changes_features(self) -> bool:
        """Not without prompts."""
        return max(self._sizes) > 0

    def extra_flops(self, m: int) -> float:
        """A second pass of the backbone, and distances to the prototypes; head-free logits cost
        nothing."""
        distances = 2.0 * self._real(m).numel()
        return self._backbone_flops + distances if self._sizes[m] else 0.0

    def on_images(self, images: Tensor, state: base.Pass) -> Tensor:
        """Add to each image the prompt of its nearest prototype."""
        if not self.changes_features:
            return images
        nearest = self._nearest(images, state.step)
        parts = {name: getattr(self, name) for name in _pixels.SIDES}
        prompts = _pixels.borders(parts, self._sizes, self._side)
        rows = torch.arange(len(images), device=images.device)[:, None]
        return images + prompts[rows, nearest]

    def _nearest(self, images: Tensor, step: base.Step) -> Tensor:
        """The prototype nearest to each image (M, B)."""
        unchanged = step.unchanged if self._sees_images_first else None
        if unchanged is None:
            features = self._features(images.flatten(0, 1)).unflatten(0, images.shape[:2])
            return self._assign(features)
        # Neither these images nor prototypes ever change: the other pass of the backbone is made
        # once for each, in place of once for each epoch.
        split, indices = unchanged.split, unchanged.indices
        if split not in self._assigned:
            turns = [slice(i, i + BATCH) for i in range(0, len(split), BATCH)]
            found = [self._assign(self._features(split.batch(turn))[None]) for turn in turns]
            self._assigned[split] = torch.cat(found, dim=-1)
        table_MN = self._assigned[split]
        return table_MN[:, indices] if isinstance(indices, slice) else table_MN.gather(1, indices)

    @torch.no_grad()
    def _assign(self, features: Tensor) -> Tensor:
        """Number of the nearest prototype of features (M, n, F) or, for all members, (1, n, F)."""
        prototypes = self.prototypes.to(features.dtype)
        if torch.compiler.is_exporting():  # torch.cdist is another operation for larger batches
            distances = (features[:, :, None] - prototypes[:, None]).square().sum(-1)
        else:
            distances = torch.cdist(features, prototypes)
        # Padding is a vector of zeros, which could be the nearest.
        is_padding = self.prototypes.eq(0).all(-1)
        return distances.masked_fill(is_padding[:, None], float("inf")).argmin(-1)

    def on_logits(self, features_MBF: Tensor, state: base.Pass) -> Tensor:
        """The chosen features."""
        index = self.logit_features.long()[:, None].expand(-1, features_MBF.shape[1], -1)
        return features_MBF.gather(-1, index)

    def _real(self, m: int) -> Tensor:
        """Prototypes of a member without the padding, which is all zero."""
        prototypes = self.prototypes[m]
        return prototypes[prototypes.ne(0).any(-1)]


def cluster(features: Tensor, threshold: float | None, most: int) -> Tensor:
    """Means (K, F) of the clusters that average linkage finds.

    Args:
        features: (n, F).
        threshold: Largest average distance within a cluster; None: a share of the mean distance.
        most: Upper limit of K.
    """
    from scipy.cluster.hierarchy import fcluster, linkage  # not needed to import the core

    # On the CPU in double precision, so that clusters do not depend on the device.
    points = features.double().cpu().numpy()
    if len(points) < 2:
        return features.mean(0, keepdim=True).cpu()
    if threshold is None:
        threshold = SHARE_OF_MEAN * float(torch.pdist(features.double()).mean())
    tree = linkage(points, method="average")
    labels = fcluster(tree, threshold, criterion="distance")
    if labels.max() > most:
        labels = fcluster(tree, most, criterion="maxclust")
    means = [points[labels == label].mean(0) for label in np.unique(labels)]
    return torch.from_numpy(np.stack(means)).float()


def _lively_features(setup: base.Setup, data: base.FitData) -> Tensor:
    """The C features with the largest deviation over images of noise, in order of their index."""
    side = setup.backbone.img_size
    generator = data.stream.generator("damvp.noise")
    noise = torch.randn(NOISE_IMAGES, 3, side, side, generator=generator).to(setup.backbone.device)
    features = torch.cat(
        [
            frozen_features(setup.backbone, part.to(setup.backbone.dtype))
            for part in noise.split(BATCH)
        ]
    )
    deviation = features.double().std(0, unbiased=False)
    return deviation.topk(setup.num_classes).indices.sort().values.cpu()


def _from_meta(
    path: str, specs: Mapping[str, base.ParamSpec], side: int, size: int
) -> dict[str, base.ParamSpec]:
    """The same tensors, started from the border of a stored prompt.

    Raises:
        WeightsError: The file cannot be read or holds no such prompt.
    """
    try:
        prompt = load_file(os.path.expanduser(path)).get("prompt")
    except (OSError, SafetensorError) as err:
        raise WeightsError(
            f"damvp.meta_init: {path!r} cannot be read ({err}); give a safetensors file."
        ) from err
    if prompt is None or prompt.shape != (3, side, side):
        raise WeightsError(
            f"damvp.meta_init: {path!r} must hold 'prompt' of shape (3, {side}, {side}), got "
            f"{None if prompt is None else tuple(prompt.shape)}."
        )
    inner = slice(size, side - size)
    parts = {
        "top": prompt[:, :size],
        "bottom": prompt[:, side - size :],
        "left": prompt[:, inner, :size],
        "right": prompt[:, inner, side - size :],
    }
    return {
        name: base.ParamSpec(spec.shape, copy_of(parts[name]), lr_scale=spec.lr_scale)
        for name, spec in specs.items()
    }


def _size(settings: Config, side: int) -> int:
    return _pixels.default_size(side) if settings.prompt_size is None else settings.prompt_size
