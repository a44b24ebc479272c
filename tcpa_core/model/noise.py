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
from itertools import count
from typing import TYPE_CHECKING

from torch import Tensor

from tcpa_core.config import TrialConfig
from tcpa_core.methods.base import Dropout, Step

if TYPE_CHECKING:
    from tcpa_core.model.backbone import Backbone

_DROP_PATH, _DROPOUT = "backbone.drop_path", "backbone.dropout"
"""Names of the random streams."""


def has_noise(config: TrialConfig) -> bool:
    """Whether the backbone gives other features from step to step."""
    return config.train.drop_path > 0 or config.train.dropout > 0


@contextmanager
def noisy(backbone: Backbone, configs: Sequence[TrialConfig], step: Step) -> Iterator[None]:
    """Let the noise of each member into the backbone for one pass; none in evaluation."""
    if not step.training or not any(has_noise(config) for config in configs):
        yield
        return
    # The sites are changed for this pass alone: a backbone is shared by all packs of a process, and
    # evaluation must find it silent.
    depth = len(backbone.blocks)
    dropout = Dropout(_DROPOUT, [config.train.dropout for config in configs])
    sites = [backbone.vit.pos_drop]
    for index, block in enumerate(backbone.blocks):
        share = index / max(depth - 1, 1)
        drop_path = Dropout(_DROP_PATH, [config.train.drop_path * share for config in configs])
        for branch, site in enumerate((block.drop_path1, block.drop_path2)):
            site.change = partial(_drop_path, drop_path, step, 2 * index + branch)
            sites.append(site)
        sites += [block.mlp.drop1, block.mlp.drop2] if hasattr(block.mlp, "drop1") else []
    elementwise = [site for site in sites if site.change is None]
    calls = count()
    for site in elementwise:
        site.change = partial(_dropout, dropout, step, calls)
    try:
        yield
    finally:
        for site in sites:
            site.change = None


def _drop_path(dropout: Dropout, step: Step, layer: int, branch: Tensor) -> Tensor:
    """Let samples skip a branch of a block (stochastic depth); the kept ones are scaled up.

    The same samples skip it whenever a pass runs it, so that what stands beside the attention
    skips with it.

    Args:
        branch: (N, S, D) or (M, B, S, D).
    """
    if not any(dropout.rates):
        return branch
    members = len(dropout.rates)
    x = branch if branch.ndim == 4 else branch.unflatten(0, (members, -1))
    kept = dropout.activations(x.new_ones(members, x.shape[1], 1), step, layer)
    return (x * kept.view(members, -1, *[1] * (x.ndim - 2))).view_as(branch)


def _dropout(dropout: Dropout, step: Step, calls: Iterator[int], x: Tensor) -> Tensor:
    """Set elements of (N, S, D) or (M, B, S, D) to 0, others at every call of a pass."""
    if not any(dropout.rates):
        return x
    by_member = x.reshape(len(dropout.rates), -1, *x.shape[-2:])
    return dropout.activations(by_member, step, next(calls)).view_as(x)
