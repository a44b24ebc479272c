"""MLP-k: the head becomes a network of k layers on the features of the untouched backbone.

Each of the k - 1 hidden layers is Linear(D, D), ReLU, BatchNorm1d, Dropout; the head follows. A
distilled model has such a network before each of its two heads.

Trainable besides the head: (k - 1) (D^2 + 3 D). Running statistics belong to the trial's state and
are saved with it. A batch of one sample cannot be normalised by itself; the running statistics
are used for it.

Source:
    Jia et al., Visual Prompt Tuning, ECCV 2022 (KMnP/vpt, models/mlp.py).
"""

# Axes: M members, B samples, D width, F features (one or two times D), H readouts (heads).

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from pydantic import Field
from torch import Tensor

from tcpa_core.config import TrialConfig
from tcpa_core.methods import base
from tcpa_core.methods.base import batch_norm, constant, member_linear, normal
from tcpa_core.settings import MAY_CHANGE

if TYPE_CHECKING:
    from tcpa_core.model.backbone import Backbone


class Config(base.MethodSettings):
    """Settings of the MLP head."""

    shared = ("num_layers",)

    num_layers: int = Field(default=3, ge=1)
    """Layers with the head itself (k); 1 is a linear probe."""
    dropout: float = Field(default=0.1, ge=0.0, lt=1.0, json_schema_extra=MAY_CHANGE)
    """Dropout behind each hidden layer."""


class Method(base.Method[base.Pass]):
    """MLP heads for a pack."""

    weight: Tensor
    """(M, k - 1, H, D, D); the tensors below are (M, k - 1, H, D)."""
    bias: Tensor
    norm_scale: Tensor
    norm_shift: Tensor
    running_mean: Tensor
    running_var: Tensor

    @classmethod
    def splits_batch(cls, config: TrialConfig) -> bool:
        """No: each hidden layer normalises over the batch."""
        return config.method_settings[cls.name()].num_layers == 1

    def __init__(self, backbone: Backbone, configs: Sequence[TrialConfig]) -> None:
        super().__init__(backbone, configs)
        self._hidden = self.settings[0].num_layers - 1
        rates = [s.dropout for s in self.settings]
        self._dropout = base.Dropout("mlp.dropout", rates, self._hidden)

    @classmethod
    def params(cls, setup: base.Setup) -> dict[str, base.ParamSpec]:
        """Hidden layers, kaiming normal by fan-out; what is not a matrix does not decay."""
        hidden = setup.settings(cls.name()).num_layers - 1
        if hidden == 0:
            return {}
        layout = setup.backbone.layout
        width = layout.embed_dim
        shape = (hidden, layout.num_readouts, width)
        return {
            "weight": base.ParamSpec((*shape, width), normal(0.0, (2 / width) ** 0.5)),
            "bias": base.ParamSpec(shape, constant(0.0), decay=False),
            "norm_scale": base.ParamSpec(shape, constant(1.0), decay=False),
            "norm_shift": base.ParamSpec(shape, constant(0.0), decay=False),
            "running_mean": base.ParamSpec(shape, constant(0.0), trainable=False),
            "running_var": base.ParamSpec(shape, constant(1.0), trainable=False),
        }

    @property
    def active(self) -> bool:
        """Whether there is a hidden layer."""
        return self._hidden > 0

    @property
    def changes_features(self) -> bool:
        """Never: only what the head reads changes, so the backbone's features can be cached."""
        return False

    def extra_flops(self, m: int) -> float:
        """One product of the features for each hidden layer."""
        return 2.0 * self._hidden * self.layout.num_readouts * self.layout.embed_dim**2

    def on_features(self, features_MBF: Tensor, state: base.Pass) -> Tensor:
        """Run the hidden layers, at least in float32."""
        with torch.autocast(features_MBF.device.type, enabled=False):
            # Members and readouts both have weights of their own, so both become one leading axis.
            wide = features_MBF.to(self.weight.dtype)
            x_MHBD = wide.unflatten(-1, (self.layout.num_readouts, -1)).transpose(1, 2)
            for index in range(self._hidden):
                x_MHBD = self._layer(index, x_MHBD, state.step)
            return x_MHBD.transpose(1, 2).flatten(2)

    def _layer(self, index: int, x_MHBD: Tensor, step: base.Step) -> Tensor:
        flat = member_linear(
            x_MHBD.flatten(0, 1),
            self.weight[:, index].flatten(0, 1),
            self.bias[:, index].flatten(0, 1),
        )
        hidden = flat.view_as(x_MHBD).relu()
        mean, var = self.running_mean[:, index], self.running_var[:, index]
        normed = batch_norm(hidden, mean, var, eps=1e-5, training=step.training)
        scale, shift = self.norm_scale[:, index], self.norm_shift[:, index]
        x_MHBD = normed * scale.unsqueeze(-2) + shift.unsqueeze(-2)
        return self._dropout.activations(x_MHBD, step, index)
