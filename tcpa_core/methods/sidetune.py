"""Side-tuning: a small network beside the backbone sees the same images; both features are blended.

feature = sigmoid(a) f(x) + (1 - sigmoid(a)) W s(x), with a = 0 at the start. The authors' side
network is an AlexNet with ImageNet weights; this is an offline variant of it: four 3 x 3
convolutions with stride 2 and ReLU, of c, 2c, 4c and 8c channels, trained from scratch, and their
average over the image. The backbone itself is frozen, but its part of the blend shrinks the
features from the first step on.

Trainable besides the head: 9 c (3 + 42 c) + 15 c for the convolutions, 8 c F for W, and a.

Source:
    Zhang et al., Side-Tuning, ECCV 2020 (jozhang97/side-tuning), its sigmoid blend; as a baseline
    in Jia et al., Visual Prompt Tuning, ECCV 2022 (KMnP/vpt).
"""

# Axes: M members, B samples, C channels, F features.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from tcpa_core.config import TrialConfig
from tcpa_core.methods import base
from tcpa_core.methods.base import constant, member_linear, normal

if TYPE_CHECKING:
    from tcpa_core.model.backbone import Backbone

_STAGES = 4


class Config(base.MethodSettings):
    """Settings of side-tuning."""

    variant: Literal["small_cnn"] = "small_cnn"
    """Says in every table that the side network is not the authors' AlexNet."""
    channels: int = Field(default=16, ge=0)
    """Channels of the first convolution (c); 0 leaves the backbone as it is."""

    def pack_key(self) -> tuple[object, ...]:
        """Whether there is a side network at all."""
        return (*super().pack_key(), self.channels > 0)


@dataclass(slots=True)
class _State:
    run: base.Pass
    side_MBF: Tensor | None = None
    """W s(x) of this pass's images."""


class Method(base.Method[_State]):
    """Side networks for a pack, padded with zeros to the widest."""

    blend: Tensor
    """(M, 1)."""
    project: Tensor
    """(M, F, 8 c)."""

    def __init__(self, backbone: Backbone, configs: Sequence[TrialConfig]) -> None:
        super().__init__(backbone, configs)
        self._channels = [s.channels for s in self.settings]
        self._img_size = backbone.img_size

    @classmethod
    def deviations(cls, config: TrialConfig) -> tuple[str, ...]:
        """Always."""
        return ("sidetune.variant=small_cnn (not the authors' pretrained AlexNet)",)

    @classmethod
    def params(cls, setup: base.Setup) -> dict[str, base.ParamSpec]:
        """Convolutions from kaiming normal, W as PyTorch's Linear; biases and a do not decay."""
        channels = setup.settings(cls.name()).channels
        if channels == 0:
            return {}
        specs, inputs = {}, 3
        for stage in range(_STAGES):
            outputs = channels * 2**stage
            weight = normal(0.0, (2 / (9 * inputs)) ** 0.5)
            specs[f"conv{stage}_weight"] = base.ParamSpec((outputs, inputs, 3, 3), weight)
            specs[f"conv{stage}_bias"] = base.ParamSpec((outputs,), constant(0.0), decay=False)
            inputs = outputs
        shape = (setup.backbone.layout.feature_dim, inputs)
        specs["project"] = base.ParamSpec(shape, base.uniform(inputs**-0.5))
        specs["blend"] = base.ParamSpec((1,), constant(0.0), decay=False)
        return specs

    @property
    def active(self) -> bool:
        """Whether there is a side network."""
        return max(self._channels) > 0

    def extra_flops(self, m: int) -> float:
        """The convolutions at the backbone's image size, and W."""
        side, inputs, total = self._img_size, 3, 0
        for stage in range(_STAGES):
            side, outputs = -(-side // 2), self._channels[m] * 2**stage
            total += side * side * 9 * inputs * outputs
            inputs = outputs
        return 2.0 * (total + self.layout.feature_dim * inputs)

    def begin(self, run: base.Pass) -> _State:
        """A place for the side network's features."""
        return _State(run)

    def on_images(self, images: Tensor, state: _State) -> Tensor:
        """Run the side network; the images stay as they are."""
        members, samples = images.shape[:2]
        x = images.transpose(0, 1).flatten(1, 2)  # members side by side as groups of channels
        for stage in range(_STAGES):
            weight = getattr(self, f"conv{stage}_weight").flatten(0, 1)
            bias = getattr(self, f"conv{stage}_bias").flatten()
            x = F.conv2d(x, weight, bias, stride=2, padding=1, groups=members).relu()
        pooled_MBC = x.mean((-2, -1)).view(samples, members, -1).transpose(0, 1)
        state.side_MBF = member_linear(pooled_MBC, self.project)
        return images

    def on_features(self, features_MBF: Tensor, state: _State) -> Tensor:
        """Blend the backbone's features with those of the side network."""
        assert state.side_MBF is not None
        share = self.blend.sigmoid()[:, :, None]
        return share * features_MBF + (1 - share) * state.side_MBF
