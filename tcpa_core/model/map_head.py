"""Heads that give each place of a map of tokens a distribution over classes.

A head is a body, which makes features of the maps of some blocks, and a linear classifier of each
place. In training every auxiliary block has a small head of its own.
"""

# Axes: M members, B samples, K blocks that are read, C classes, X = M * channels, D width, H rows
# and W columns of a map.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from tcpa_core.methods.base import Dropout, Init, ParamSpec, Step, constant, normal
from tcpa_core.model.map_layers import Tensors, convolved, enlarged

HEAD = "head"
"""What the names of a head's tensors begin with."""


class Body(Protocol):
    """From the maps of some blocks to features of places."""

    @property
    def channels(self) -> int:
        """Of the features."""

    @property
    def enlarges(self) -> int:
        """By what factor the logits are enlarged at the end."""

    def specs(self) -> dict[str, ParamSpec]:
        """Tensors of one member by full name."""

    def flops(self, grid: tuple[int, int]) -> tuple[float, int]:
        """FLOPs of one picture of so many tokens, and the places that there are behind."""

    def __call__(self, maps: Sequence[Tensor], tensors: Tensors, training: bool) -> Tensor:
        """Features (B, X, rows, columns) of maps (M, B, H, W, D)."""


@dataclass(frozen=True, slots=True)
class Branch:
    """A body with its classifier."""

    name: str
    body: Body
    blocks: tuple[int, ...]
    """Blocks it reads, from 0; one may stand here twice."""
    init: tuple[Init, Init] = (normal(0.0, 0.01), constant(0.0))
    """Of the classifier's weight and bias; mmsegmentation's decode_head.py."""

    def specs(self, num_classes: int) -> dict[str, ParamSpec]:
        """Tensors of one member by full name."""
        weight, bias = self.init
        shape = (num_classes, self.body.channels, 1, 1)
        return {
            **self.body.specs(),
            f"{self.name}.weight": ParamSpec(shape, weight),
            f"{self.name}.bias": ParamSpec((num_classes,), bias),
        }

    def flops(self, grid: tuple[int, int], num_classes: int) -> float:
        """Of one picture of so many tokens."""
        total, places = self.body.flops(grid)
        return total + 2.0 * places * self.body.channels * num_classes


class MapHead(nn.Module):
    """The members' heads, stacked; all read the same blocks.

    Args:
        branches: The head, then auxiliary ones.
        share: Weight of each auxiliary loss.
        dropout: Share of channels that are dropped before a classifier, per member.
        tensors: Stacks (M, ...) of all branches by full name.
    """

    def __init__(
        self,
        branches: Sequence[Branch],
        *,
        share: float,
        dropout: Sequence[float],
        tensors: Mapping[str, Tensor],
    ) -> None:
        super().__init__()
        self._main, *self._auxiliary = branches
        self._members = len(dropout)
        self._share = share
        self._dropout = Dropout(f"{HEAD}.dropout", dropout, len(branches))
        self.blocks = tuple(sorted({block for branch in branches for block in branch.blocks}))
        """Blocks, from 0, whose maps are read in training."""
        self.scored_blocks = tuple(sorted(set(self._main.blocks)))
        """Those of them that logits depend on in evaluation."""
        self._names = list(tensors)
        for name, tensor in tensors.items():
            if isinstance(tensor, nn.Parameter):
                self.register_parameter(_attribute(name), tensor)
            else:
                self.register_buffer(_attribute(name), tensor, persistent=False)

    def flops(self, grid: tuple[int, int], num_classes: int) -> float:
        """Forward FLOPs of one picture of so many tokens in evaluation."""
        return self._main.flops(grid, num_classes)

    def forward(
        self, maps_MBKHWD: Tensor, blocks: Sequence[int], step: Step
    ) -> tuple[Tensor, list[tuple[float, Tensor]]]:
        """Logits (M, B, C, rows, columns), at least in float32, and in training those of auxiliary
        heads, each with its weight in the loss.

        Args:
            maps_MBKHWD: Tokens behind some blocks; M may be 1 where all members see the same.
            blocks: Which blocks, from 0: `blocks`, or `scored_blocks` in evaluation.
            step: Position in training.
        """
        tensors = {name: getattr(self, _attribute(name)) for name in self._names}
        for_all = maps_MBKHWD.expand(self._members, *[-1] * 5)
        maps = dict(zip(blocks, for_all.unbind(2), strict=True))
        logits = [
            self._logits(number, branch, [maps[block] for block in branch.blocks], tensors, step)
            for number, branch in enumerate([self._main, *self._auxiliary])
            if step.training or number == 0
        ]
        return logits[0], [(self._share, one) for one in logits[1:]]

    def _logits(
        self,
        number: int,
        branch: Branch,
        maps: Sequence[Tensor],
        tensors: Tensors,
        step: Step,
    ) -> Tensor:
        features = branch.body(maps, tensors, step.training)
        features = self._dropped(features, step, number)
        weight, bias = tensors[f"{branch.name}.weight"], tensors[f"{branch.name}.bias"]
        with torch.autocast(features.device.type, enabled=False):
            # Logits in bfloat16 would round a cross-entropy's differences away.
            logits = convolved(features.to(weight.dtype), weight, bias)
            if branch.body.enlarges > 1:
                logits = enlarged(logits, branch.body.enlarges)
        return logits.unflatten(1, (self._members, -1)).transpose(0, 1)

    def _dropped(self, x_BXHW: Tensor, step: Step, number: int) -> Tensor:
        """Drop whole channels of samples."""
        if not self._dropout.is_on(step):
            return x_BXHW
        samples = len(x_BXHW)
        ones = x_BXHW.new_ones(self._members, samples, 1, x_BXHW.shape[1] // self._members)
        factors_MB1C = self._dropout.activations(ones, step, number)
        return x_BXHW * factors_MB1C[:, :, 0].transpose(0, 1).flatten(1)[..., None, None]


def _attribute(name: str) -> str:
    """A module's names have no dots."""
    return name.replace(".", "_")
