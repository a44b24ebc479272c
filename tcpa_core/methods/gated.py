"""Gated prompt tuning: shallow prompts that gates carry past the blocks, and attention temperature.

Behind every block but the last the prompts become g * (the block's output) + (1 - g) * (its input),
with one learned gate g = sigmoid(gamma) per block; other tokens know no gate. In every block one
learned temperature divides all attention logits. Gates and temperatures have no weight decay.

Trainable besides the head: P * D for the prompts, L - 1 gates and L temperatures.

Source:
    Yoo et al., Improving Visual Prompt Tuning for Self-supervised Vision Transformers, ICML 2023
    (ryongithub/GatedPromptTuning). With MAE the authors average patches and prompts
    (`pool_prompts`); with MoCo they read CLS. They train 100 prompts.
"""

# Axes: M members, B samples, S tokens (prompts among them), P prompt tokens, D width, L blocks.

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tcpa_core.methods import base
from tcpa_core.methods._prompt_tokens import PromptSettings, PromptTokens, State
from tcpa_core.model.blocks import keys_values, mlp_residual, normalised, project, queries

if TYPE_CHECKING:
    from timm.models.vision_transformer import Block

COLDEST, HOTTEST = 0.01, 10.0
"""Range of the temperatures."""


class Config(PromptSettings):
    """Settings of gated prompt tuning. A deep variant does not exist: gates would do nothing."""

    gate_init: float = 10.0
    """The gates start at sigmoid(-gate_init), so prompts pass the blocks almost unchanged."""

    @property
    def is_deep(self) -> bool:
        """Whether every block has prompts of its own."""
        return False


class Method(PromptTokens):
    """Gated prompts for a pack."""

    gates: Tensor
    """gamma (M, L - 1)."""
    temperatures: Tensor
    """(M, L)."""

    @classmethod
    def params(cls, setup: base.Setup) -> dict[str, base.ParamSpec]:
        """Prompts (P, D), gates (L - 1,) and temperatures (L,)."""
        specs = super().params(setup)
        if not specs:
            return {}
        settings: Config = setup.settings(cls.name())
        depth = setup.backbone.layout.depth
        if depth > 1:
            specs["gates"] = base.ParamSpec(
                (depth - 1,), base.constant(-settings.gate_init), decay=False
            )
        specs["temperatures"] = base.ParamSpec((depth,), base.constant(1.0), decay=False)
        return specs

    def begin(self, run: base.Pass) -> State:
        """Bring the temperatures back into their range, as the authors do before every pass."""
        with torch.no_grad():
            self.temperatures.clamp_(COLDEST, HOTTEST)
        return super().begin(run)

    def on_block(self, index: int, block: Block, tokens_MBSD: Tensor, state: State) -> Tensor:
        """Run the block at its temperature, then let the gate mix the prompts."""
        is_last = index == self.layout.depth - 1
        rows = state.run.rows if is_last else None
        out = self._run(index, block, tokens_MBSD, rows)
        # No block follows that would read the prompts.
        if is_last:
            return out
        place = self._place(tokens_MBSD)
        gate = self.gates[:, index].sigmoid().view(-1, 1, 1, 1)
        prompts = gate * out[:, :, place] + (1 - gate) * tokens_MBSD[:, :, place]
        parts = [out[:, :, : place.start], prompts.to(out.dtype), out[:, :, place.stop :]]
        return torch.cat(parts, dim=2)

    def attention(
        self, index: int, block: Block, tokens_MBSD: Tensor, state: State
    ) -> base.BlockAttention:
        """The block's own, at its temperature."""
        plain = super().attention(index, block, tokens_MBSD, state)
        temperature = self._temperature(index, tokens_MBSD.shape[1])
        return replace(plain, q_NHSE=plain.q_NHSE / temperature)

    def _temperature(self, index: int, samples: int) -> Tensor:
        """(N, 1, 1, 1)."""
        return self.temperatures[:, index].repeat_interleave(samples).view(-1, 1, 1, 1)

    def _run(self, index: int, block: Block, tokens_MBSD: Tensor, rows: int | None) -> Tensor:
        batch = tokens_MBSD.shape[:2]
        exists = self._exists(tokens_MBSD)
        mask: Any = None
        if exists is not None:
            mask = exists.repeat_interleave(batch[1], 0)[:, None, None]
        x_NSD = tokens_MBSD.flatten(0, 1)
        h_NSD = normalised(block, x_NSD)
        place = self._place(tokens_MBSD)
        q = queries(block, h_NSD[:, :rows], place)
        k, v = keys_values(block, h_NSD, place)
        # Dividing queries divides all logits; back to their type, as a temperature is in float32.
        q = (q / self._temperature(index, batch[1])).to(q.dtype)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x_NRD = x_NSD[:, :rows] + project(block, mixed)
        return mlp_residual(block, x_NRD).unflatten(0, batch)
