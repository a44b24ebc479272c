"""The classifier of a trial: its tensors, their first values, and the logits of a pack."""

# Axes: M members, B samples, D width, F features, C classes.

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tcpa_core.config import TrialConfig
from tcpa_core.methods.base import Init, ParamSpec, constant, normal, trunc02, uniform

if TYPE_CHECKING:
    from tcpa_core.model.backbone import TokenLayout

HEADS = ("head", "head_dist")
"""Of a trial; the second reads the distillation token of a distilled model."""


def head_specs(layout: TokenLayout, config: TrialConfig, num_classes: int) -> dict[str, ParamSpec]:
    """Trainable tensors of the head; distilled models have one head per token that is read."""
    width = layout.embed_dim
    weight, bias = classifier_init(config.train.head_init, width, num_classes)
    specs = {}
    for head in HEADS[: layout.num_readouts]:
        specs[f"{head}.weight"] = ParamSpec((num_classes, width), weight)
        specs[f"{head}.bias"] = ParamSpec((num_classes,), bias)
    return specs


class Head(nn.Module):
    """The members' classifiers, stacked.

    Args:
        tensors: Weights (M, C, D) and biases (M, C) by full name ("head.weight"); empty where a
            method makes the logits.
    """

    head_weight: Tensor
    head_bias: Tensor
    head_dist_weight: Tensor
    head_dist_bias: Tensor

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            setattr(self, name.replace(".", "_"), tensor)
        self._is_distilled = "head_dist.weight" in tensors

    def forward(self, features_MBF: Tensor) -> Tensor:
        """Logits (M, B, C) of features, at least in float32; distilled: the mean of both heads."""
        with torch.autocast(features_MBF.device.type, enabled=False):
            # Logits in bfloat16 would round a cross-entropy's differences away.
            wide = features_MBF.to(self.head_weight.dtype)
            if not self._is_distilled:
                return _linear(wide, self.head_weight, self.head_bias)
            first, second = wide.chunk(2, dim=-1)
            logits = _linear(first, self.head_weight, self.head_bias)
            return (logits + _linear(second, self.head_dist_weight, self.head_dist_bias)) / 2


def _linear(x_MBD: Tensor, weight_MCD: Tensor, bias_MC: Tensor) -> Tensor:
    if len(weight_MCD) == 1:  # bit-equal to nn.Linear, which baddbmm is not
        return F.linear(x_MBD, weight_MCD[0], bias_MC[0])
    return torch.baddbmm(bias_MC[:, None], x_MBD, weight_MCD.mT)


def classifier_init(kind: str, width: int, num_classes: int) -> tuple[Init, Init]:
    """Initialisers of weight and bias.

    torch_default: PyTorch's Linear, U(-1/sqrt(D), 1/sqrt(D)) (TCPA, CVPT). vpt: N(0, 2/C) and
    -ln 99 (VPT, models/mlp.py). trunc02: truncated N(0, 0.02) and 0 (SA2VP).
    """
    if kind == "torch_default":
        return uniform(width**-0.5), uniform(width**-0.5)
    if kind == "vpt":
        return normal(0.0, (2 / num_classes) ** 0.5), constant(-4.59511985)
    return trunc02, constant(0.0)
