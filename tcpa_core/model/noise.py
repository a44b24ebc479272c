"""Dropout and drop path inside the frozen network, for trials that train with them.

Several authors leave their backbone in training mode: CVPT, V-PETL and SSF with drop path, which
rises from 0 at the first block, SA²VP with dropout behind the position embeddings and in the MLPs.
Every draw is from the member's own stream, so that its neighbours change nothing.
"""

# Axes: M members, B samples, N = M * B.

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain, count
from typing import TYPE_CHECKING, Any

from torch import Tensor

from tcpa_core.config import TrialConfig
from tcpa_core.methods.base import Dropout, DropPath, Step

if TYPE_CHECKING:
    from tcpa_core.model.backbone import Backbone

_DROP_PATH, _DROPOUT = "backbone.drop_path", "backbone.dropout"
"""Names of the random streams."""


def has_noise(config: TrialConfig) -> bool:
    """Whether the backbone gives other features from step to step."""
    return config.train.drop_path > 0 or config.train.dropout > 0


class Noise:
    """The noise of a pack's members.

    Args:
        backbone: In which it is; shared by all packs of a process.
        configs: Of the members.
    """

    def __init__(self, backbone: Backbone, configs: Sequence[TrialConfig]) -> None:
        self._backbone = backbone
        self._members = len(configs)
        depth = len(backbone.blocks)
        shares = [index / max(depth - 1, 1) for index in range(depth) for _ in range(2)]
        rates = [config.train.drop_path for config in configs]
        self._drop_path = DropPath(_DROP_PATH, [[share * r for r in rates] for share in shares])
        self._rates = [config.train.dropout for config in configs]
        self._dropouts: list[Dropout] = []

    @contextmanager
    def during(self, step: Step) -> Iterator[None]:
        """Let it into the backbone for one pass; none in evaluation."""
        # The sites are changed for this pass alone: evaluation must find the backbone silent.
        sites: list[Any] = []
        if step.training and self._drop_path.is_on:
            sites += self._open_branches(step)
        if step.training and any(self._rates):
            sites += self._open_activations(step)
        try:
            yield
        finally:
            for site in sites:
                site.change = None

    def _open_branches(self, step: Step) -> list[Any]:
        """Let samples skip branches (N, S, D) or (M, B, S, D) of blocks."""

        def change(layer: int, branch: Tensor) -> Tensor:
            if branch.ndim == 4:  # maybe one for all samples, which each skip it for themselves
                return self._drop_path.apply(branch, step, layer)
            by_member = branch.unflatten(0, (self._members, -1))
            return self._drop_path.apply(by_member, step, layer).flatten(0, 1)

        branches = [(b.drop_path1, b.drop_path2) for b in self._backbone.blocks]
        sites = list(chain.from_iterable(branches))
        for layer, site in enumerate(sites):
            site.change = partial(change, layer)
        return sites

    def _open_activations(self, step: Step) -> list[Any]:
        """Drop elements of (N, S, D) or (M, B, S, D), others at every call of a pass."""
        calls = count()

        def change(x: Tensor) -> Tensor:
            call = next(calls)
            if call == len(self._dropouts):
                self._dropouts.append(Dropout(f"{_DROPOUT}.{call}", self._rates))
            by_member = x.reshape(self._members, -1, *x.shape[-2:])
            return self._dropouts[call].activations(by_member, step, 0).view_as(x)

        sites: list[Any] = [self._backbone.vit.pos_drop]
        for block in self._backbone.blocks:
            sites += [block.mlp.drop1, block.mlp.drop2] if hasattr(block.mlp, "drop1") else []
        for site in sites:
            site.change = change
        return sites
