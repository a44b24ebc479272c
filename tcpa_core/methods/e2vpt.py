"""E²VPT: VPT-deep, key-value prompts inside the attention, and pruning with rewinding.

Key-value prompts join the keys and values of each head as they are: no norm, no projection, behind
a model's own norm of keys. They change neither queries nor the number of tokens.

Trainable besides the head: L * P * D for the prompts and L * P_kv * D for the key-value prompts
(twice that if keys and values have their own). Pruned prompts are not counted as saved.

Pruning is a second stage. At the end of epoch `prune_epoch` a mask over prompts and one over
segments of their channels, both shared by all blocks, are cut where the loss depends least on them:
by the mean over the training batches of the loss's gradient with respect to the mask, without
dropout and without updates in between. Then weights are rewound, and the trial trains the epochs
that are left with the masks fixed. Optimiser, warm-up and learning-rate schedule start anew and run
to their end over these epochs; epochs are selected among them only.

Source:
    Han et al., E²VPT: An Effective and Efficient Approach for Visual Prompt Tuning, ICCV 2023. The
    authors' code scores with the signed gradient, takes every 16th channel as a segment, draws new
    weights in place of rewinding, trains the masks in the first stage and goes on updating while it
    scores; each of these is a setting.
"""

# Axes: M members, P prompt tokens, K key-value prompts, H heads, E head width, G segments, D width,
# L blocks.

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from tcpa_core.config import TrialConfig
from tcpa_core.errors import ConfigError
from tcpa_core.methods import base
from tcpa_core.methods._prompt_tokens import PromptSettings, PromptTokens
from tcpa_core.methods.base import (
    Init,
    ParamSpec,
    Restart,
    Step,
    Trainer,
    constant,
    trunc02,
    uniform,
)
from tcpa_core.model.attention import PromptKeys

if TYPE_CHECKING:
    from tcpa_core.model.backbone import Backbone, TokenLayout

_MASKS = ("token_mask", "segment_mask")


_OF_PRUNING = (
    "prune_epoch",
    "token_prune",
    "segment_prune",
    "num_segments",
    "importance",
    "segments",
    "train_masks",
    "update_while_scoring",
    "rewind",
)
"""Settings that mean nothing without a second stage."""


class Config(PromptSettings):
    """Settings of E²VPT."""

    shared: ClassVar[tuple[str, ...]] = (
        *PromptSettings.shared,
        "share_kv",
        "segments",
        "num_segments",
        "train_masks",
    )

    num_kv_prompts: int = Field(default=5, ge=0)
    """Key-value prompts per head and block; 0 and no pruning is VPT-deep."""
    share_kv: bool = True
    """The same tensor as key and as value, or one for each."""
    kv_init: Literal["kaiming", "uniform", "trunc02"] = "kaiming"
    """Key-value prompts from Kaiming's uniform by fan-in (authors), VPT's bound for a width of 16,
    or a normal of 0.02."""
    prune_epoch: int | None = Field(default=None, ge=1)
    """Prune after this many epochs and train the others anew; None: no pruning."""
    token_prune: int = Field(default=0, ge=0, lt=100)
    """Percent of the prompts that are pruned, rounded down; at least one stays. With segment_prune
    0, too, there is no second stage."""
    segment_prune: int = Field(default=0, ge=0, lt=100)
    """Percent of each prompt's segments that are pruned, rounded down; at least a quarter stays."""
    num_segments: int = Field(default=16, ge=1)
    """Segments per prompt; a divisor of the backbone's width."""
    importance: Literal["abs", "signed"] = "abs"
    """Mean of the gradients' absolute values (paper) or of the gradients (authors' code)."""
    segments: Literal["contiguous", "interleaved"] = "contiguous"
    """Neighbouring channels (paper), or every num_segments-th channel (authors' code)."""
    train_masks: bool = False
    """Train the masks as well until they are cut (authors' code), in place of leaving them at 1."""
    update_while_scoring: bool = False
    """Make an optimiser step behind each batch that is scored (authors' code)."""
    rewind: Literal["stored", "reinit"] = "stored"
    """Second stage from the first one's start (paper), or from newly drawn weights (authors)."""

    def idle(self, methods: Sequence[str]) -> Collection[str]:
        """What concerns pruning or key-value prompts, where there is none."""
        fields = () if self.num_kv_prompts else ("share_kv", "kv_init")
        return fields if self.prunes else (*fields, *_OF_PRUNING)

    @property
    def prunes(self) -> bool:
        """Whether there is a second stage."""
        cuts = self.token_prune > 0 or self.segment_prune > 0
        return self.prune_epoch is not None and cuts and self.num_prompts > 0

    def pack_key(self) -> tuple[object, ...]:
        """Code path, and which tensors there are."""
        return (*super().pack_key(), self.num_kv_prompts > 0, self.prunes)


class Method(PromptTokens):
    """E²VPT for a pack."""

    kv_prompts: Tensor
    key_prompts: Tensor
    value_prompts: Tensor
    """(M, L, H, K, E), padded at the end of K: the first, or the other two."""
    token_mask: Tensor
    """(M, P), where the trial prunes."""
    segment_mask: Tensor
    """(M, P, G)."""
    is_cut: Tensor
    """(M, 1), where masks are trained: 1 from the pruning on, when they are fixed."""

    def __init__(self, backbone: Backbone, configs: Sequence[TrialConfig]) -> None:
        super().__init__(backbone, configs)
        self._kv_sizes = [s.num_kv_prompts for s in self.settings]

    @classmethod
    def check(cls, config: TrialConfig, layout: TokenLayout) -> None:
        """Refuse a second stage that may not come, and segments that do not fit the width."""
        super().check(config, layout)
        settings: Config = config.method_settings[cls.name()]
        if not settings.prunes:
            return
        if settings.prune_epoch is not None and settings.prune_epoch >= config.train.epochs:
            raise ConfigError(
                f"e2vpt.prune_epoch must be < train.epochs, got {settings.prune_epoch} >= "
                f"{config.train.epochs}; the second stage trains the epochs that are left."
            )
        if config.train.patience is not None:
            raise ConfigError(
                f"train.patience must be null where e2vpt prunes, got {config.train.patience}: it "
                "could end the trial before its second stage."
            )
        if layout.embed_dim % settings.num_segments:
            raise ConfigError(
                f"e2vpt.num_segments must divide the backbone's width, got "
                f"{settings.num_segments} for {config.backbone.full_name!r} with width "
                f"{layout.embed_dim}; set e2vpt.num_segments to one of its divisors."
            )

    @classmethod
    def params(cls, setup: base.Setup) -> dict[str, ParamSpec]:
        """Prompts (L, P, D), key-value prompts (L, H, K, E), and masks where the trial prunes."""
        settings: Config = setup.settings(cls.name())
        specs = super().params(setup)
        layout, count = setup.backbone.layout, settings.num_kv_prompts
        if count:
            width = layout.embed_dim // layout.num_heads
            shape = (layout.depth, layout.num_heads, count, width)
            init = _kv_init(settings, setup.backbone, width)
            names = ("kv_prompts",) if settings.share_kv else ("key_prompts", "value_prompts")
            specs |= {name: ParamSpec(shape, init) for name in names}
        if settings.prunes:
            shapes = ((settings.num_prompts,), (settings.num_prompts, settings.num_segments))
            specs |= {
                name: ParamSpec(shape, constant(1.0), trainable=settings.train_masks, decay=False)
                for name, shape in zip(_MASKS, shapes, strict=True)
            }
            if settings.train_masks:
                specs["is_cut"] = ParamSpec((1,), constant(0.0), trainable=False)
        return specs

    @property
    def active(self) -> bool:
        """Whether there is any prompt or key-value prompt."""
        return super().active or max(self._kv_sizes) > 0

    def extra_flops(self, m: int) -> float:
        """Attention to prompts and key-value prompts."""
        layout = self.layout
        tokens = layout.num_prefix + layout.num_image
        kv = 4.0 * layout.depth * tokens * self._kv_sizes[m] * layout.embed_dim
        return super().extra_flops(m) + kv

    def on_prompts(self, prompts: Tensor, sizes: Sequence[int], index: int, step: Step) -> Tensor:
        """Put the masks on a block's prompts (M, ..., P, D)."""
        if not self._config.prunes:
            return prompts
        repeats = self.layout.embed_dim // self._config.num_segments
        if self._config.segments == "contiguous":
            channels = self.segment_mask.repeat_interleave(repeats, dim=-1)
        else:
            channels = self.segment_mask.repeat(1, 1, repeats)
        mask = self.token_mask[:, :, None] * channels
        # Once cut, masks stay parameters but get no gradient any more.
        if self._config.train_masks:
            mask = torch.where(self.is_cut[:, :, None] > 0, mask.detach(), mask)
        return prompts * mask.view(len(sizes), *[1] * (prompts.ndim - 3), *mask.shape[1:])

    @classmethod
    def after_epoch(cls, trainer: Trainer) -> Restart | None:
        """Prune and rewind when the first stage is over."""
        settings: Config = trainer.config.method_settings[cls.name()]
        if not settings.prunes or trainer.epoch != settings.prune_epoch:
            return None
        names = [f"{cls.name()}.{mask}" for mask in _MASKS]
        gradients = trainer.gradients(names, settings.update_while_scoring)
        tokens, segments = _importance(names, gradients, settings)
        num_tokens = min(len(tokens) - 1, len(tokens) * settings.token_prune // 100)
        # At least a quarter of the segments stays, rounded up.
        most = settings.num_segments - -(-settings.num_segments // 4)
        num_segments = min(most, settings.num_segments * settings.segment_prune // 100)
        # Paper and code differ here: rewind to the first start, or draw another one.
        state = trainer.initial() if settings.rewind == "stored" else trainer.redraw()
        pruned = (_keep(tokens, num_tokens), _keep(segments, num_segments))
        masks = {name: mask.to(state[name]) for name, mask in zip(names, pruned, strict=True)}
        if settings.train_masks:
            masks[f"{cls.name()}.is_cut"] = torch.ones(1).to(tokens)
        return Restart(state | masks)

    def _more_keys(self, index: int) -> PromptKeys | None:
        if max(self._kv_sizes) == 0:
            return None
        share = self._config.share_kv
        keys = self.kv_prompts if share else self.key_prompts
        values = self.kv_prompts if share else self.value_prompts
        exists = base.padding(self._kv_sizes, keys.device)
        return PromptKeys(keys[:, index, None], values[:, index, None], exists)


def _importance(
    names: Sequence[str], gradients: Iterable[dict[str, Tensor]], settings: Config
) -> list[Tensor]:
    """Mean over the batches of the (absolute) gradients with respect to the masks."""
    batches = list(gradients)
    means = []
    for name in names:
        stacked = torch.stack([batch[name] for batch in batches])
        means.append((stacked.abs() if settings.importance == "abs" else stacked).mean(0))
    return means


def _keep(scores: Tensor, num_pruned: int) -> Tensor:
    """Mask of the shape of the scores: 0 at the lowest of the last axis, else 1."""
    lowest = scores.argsort(dim=-1, stable=True)[..., :num_pruned]
    return torch.ones_like(scores).scatter(-1, lowest, 0.0)


def _kv_init(settings: Config, backbone: Backbone, width: int) -> Init:
    if settings.kv_init == "uniform":
        return uniform(base.vpt_bound(backbone, 16))
    if settings.kv_init == "trunc02":
        return trunc02
    # PyTorch's fan-in of a tensor (H, K, E) is K * E
    return uniform((6 / (settings.num_kv_prompts * width)) ** 0.5)
