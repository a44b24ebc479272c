"""VPT: prompt tokens in the sequence, once (shallow) or fresh ones in every block (deep).

Deep prompts are thrown away after their block, so they are computed as keys and values only.
Trainable besides the head: P * D (shallow) or L * P * D (deep).

Source:
    Jia et al., Visual Prompt Tuning, ECCV 2022 (KMnP/vpt). Prompts stand behind all prefix tokens;
    the authors' code inserts them behind the first one also in distilled models and then reads a
    prompt as the distillation output.
"""

# Axes: M members, B samples, S tokens, P prompt tokens, D width, L blocks.

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field, model_validator
from timm.models.vision_transformer import Block
from torch import Tensor

from tcpa_core.attention import (
    PromptPool,
    plain_block,
    prompt_pools,
    prompted_block,
)
from tcpa_core.backbone import Backbone, TokenLayout
from tcpa_core.config import TrialConfig
from tcpa_core.errors import ConfigError
from tcpa_core.methods import base


class Config(base.MethodSettings):
    """Settings of VPT."""

    shared = ("deep",)

    num_prompts: int = Field(default=10, ge=0)
    """Prompt tokens per block (P); 0 leaves the backbone as it is."""
    deep: bool = True
    """True: own prompts in every block; False: inserted once, before the first block."""
    prompt_dropout: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Dropout on the prompts, per sample. Not set: 0.1 deep, 0 shallow, as the authors train."""

    @model_validator(mode="before")
    @classmethod
    def _dropout_by_depth(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("deep") is False:
            return {"prompt_dropout": 0.0, **values}
        return values

    def pack_key(self) -> tuple[Any, ...]:
        """Depth, and whether there are prompts at all."""
        return (*super().pack_key(), self.num_prompts > 0)


@dataclass(slots=True)
class _State:
    run: base.Pass
    prompts: Sequence[Tensor]
    """(M, P, D) per block."""
    pools: list[list[PromptPool]] | None
    """Keys and values per block if they do not depend on the sample."""


class Method(base.Method):
    """VPT for a pack. Under TCPA it has no prompts: TCPA on VPT is TCPA itself."""

    replaced_by = ("tcpa",)

    prompts: Tensor
    """(M, L, P, D) deep or (M, P, D) shallow, padded at the end of P."""

    def __init__(self, backbone: Backbone, configs: Sequence[TrialConfig]) -> None:
        super().__init__(backbone, configs)
        self._blocks = backbone.blocks
        replaced = self.is_replaced(configs[0])
        self._sizes = [0 if replaced else s.num_prompts for s in self.settings]
        self._rates = [s.prompt_dropout for s in self.settings]
        self._deep = self.settings[0].deep

    @classmethod
    def check(cls, config: TrialConfig, layout: TokenLayout) -> None:
        """Refuse TCPA on shallow prompts, which live on as tokens."""
        if cls.is_replaced(config) and not config.method_settings[cls.name()].deep:
            raise ConfigError(
                "methods: 'tcpa' takes the place of prompts that every block has anew, got "
                "vpt.deep=False; set vpt.deep=true or take 'vpt' out of methods."
            )

    @classmethod
    def params(cls, setup: base.Setup) -> dict[str, base.ParamSpec]:
        """Prompts: (L, P, D) deep or (P, D) shallow."""
        settings: Config = setup.settings(cls.name())
        if settings.num_prompts == 0 or cls.is_replaced(setup.config):
            return {}
        layout = setup.backbone.layout
        depth = (layout.depth,) if settings.deep else ()
        shape = (*depth, settings.num_prompts, layout.embed_dim)
        return {"prompts": base.ParamSpec(shape, base.uniform(base.vpt_bound(setup.backbone)))}

    @property
    def active(self) -> bool:
        """Whether there is any prompt."""
        return max(self._sizes) > 0

    def extra_flops(self, m: int) -> float:
        """Deep: attention to P more keys; shallow: P more tokens in every block."""
        layout, size = self.layout, self._sizes[m]
        tokens, width = layout.num_prefix + layout.num_image, layout.embed_dim
        if self._deep:
            return 4.0 * layout.depth * tokens * size * width
        linear = sum(p.numel() for p in self._blocks[0].parameters() if p.ndim == 2)
        pairs = (tokens + size) ** 2 - tokens**2
        return layout.depth * (2.0 * linear * size + 4.0 * pairs * width)

    def begin(self, run: base.Pass) -> _State:
        """Project the prompts of all blocks unless dropout makes them differ between samples."""
        prompts = self.prompts.unbind(1) if self._deep else [self.prompts]
        if not self._deep or self._drops(run):
            return _State(run, prompts, None)
        exists = base.padding(self._sizes, self.prompts.device)
        pools = [
            prompt_pools(block, p[:, None], [p.shape[1]], exists)
            for block, p in zip(self._blocks, prompts, strict=True)
        ]
        return _State(run, prompts, pools)

    def on_tokens(self, tokens_MBSD: Tensor, state: _State) -> Tensor:
        """Shallow: insert the prompts behind the prefix tokens."""
        if self._deep:
            return tokens_MBSD
        prompts = self._per_sample(0, tokens_MBSD.shape[1], state)
        prefix = self.layout.num_prefix
        return torch.cat([tokens_MBSD[:, :, :prefix], prompts, tokens_MBSD[:, :, prefix:]], dim=2)

    def on_block(self, index: int, block: Block, tokens_MBSD: Tensor, state: _State) -> Tensor:
        """Deep: tokens attend to this block's prompts. Shallow: the block runs on all tokens."""
        rows = state.run.rows if index == self.layout.depth - 1 else None
        if not self._deep:
            return plain_block(block, tokens_MBSD, exists_MS=self._exists(tokens_MBSD), rows=rows)
        pools = (
            state.pools[index]
            if state.pools
            else self._sample_pools(index, block, tokens_MBSD, state)
        )
        return prompted_block(
            block, tokens_MBSD, pools, (True,), backend=state.run.backend, rows=rows
        )

    def on_output(self, tokens_MBSD: Tensor, state: _State) -> Tensor:
        """Shallow: take the prompts out, so that they never enter a pooling."""
        if self._deep or state.run.rows is not None:
            return tokens_MBSD
        prefix, length = self.layout.num_prefix, self.prompts.shape[1]
        return torch.cat([tokens_MBSD[:, :, :prefix], tokens_MBSD[:, :, prefix + length :]], dim=2)

    def _drops(self, run: base.Pass) -> bool:
        return run.step.training and any(rate > 0 for rate in self._rates)

    def _per_sample(self, index: int, samples: int, state: _State) -> Tensor:
        prompts = state.prompts[index]
        if not self._drops(state.run):
            return prompts[:, None].expand(-1, samples, -1, -1)
        exists = base.padding(self._sizes, prompts.device)
        return base.drop_prompts(
            prompts,
            exists,
            self._sizes,
            self._rates,
            samples,
            state.run.step,
            "vpt.prompt_dropout",
            index,
        )

    def _sample_pools(
        self, index: int, block: Block, tokens_MBSD: Tensor, state: _State
    ) -> list[PromptPool]:
        prompts = self._per_sample(index, tokens_MBSD.shape[1], state)
        exists = base.padding(self._sizes, prompts.device)
        return prompt_pools(block, prompts, [prompts.shape[2]], exists)

    def _exists(self, tokens_MBSD: Tensor) -> Tensor | None:
        """Shallow: False at the padding among the tokens."""
        exists = base.padding(self._sizes, tokens_MBSD.device)
        if exists is None:
            return None
        members, _, length, _ = tokens_MBSD.shape
        full = torch.ones(members, length, dtype=torch.bool, device=tokens_MBSD.device)
        prefix = self.layout.num_prefix
        full[:, prefix : prefix + exists.shape[1]] = exists
        return full
