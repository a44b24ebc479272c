"""The hooks of a pack's methods during one forward pass, as one chain.

The states that methods keep during a pass are of types of their own, which meet only here.
"""

# Axes: M members, B samples, S tokens, D width, F features, C classes.

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tcpa_core.chain import overrides
from tcpa_core.config import TrialConfig
from tcpa_core.methods.base import AnyMethod, BlockAttention, Pass
from tcpa_core.model.backbone import Change

if TYPE_CHECKING:
    from timm.models.vision_transformer import Block


class ActiveMethods:
    """Methods that add something, each with what its `begin` returned for this pass.

    Hooks run in the order of the chain: what one returns, the next one changes.

    Args:
        chain: All methods of the pack; those that add nothing are left out.
        run: The pass.
    """

    def __init__(self, chain: Iterable[AnyMethod], run: Pass) -> None:
        self.run = run
        # A method without prompts is left out altogether: the pass is then that of the plain
        # backbone to the bit.
        self._active: list[tuple[AnyMethod, Any]] = [
            (method, method.begin(run)) for method in chain if method.active
        ]
        self.kept: list[Tensor] = []
        """Tokens before the first block and after each, where the pass is inspected."""

    def keep(self, tokens_MBSD: Tensor) -> None:
        """Keep tokens, where the pass is inspected."""
        if self.run.inspect:
            self.kept.append(tokens_MBSD)

    def defines(self, hook: str) -> bool:
        """Whether one of the methods has a hook of its own."""
        return any(overrides(method, hook) for method, _ in self._active)

    @property
    def needs_all_blocks(self) -> bool:
        """Whether blocks count whose tokens nobody reads: figures show them, or losses of a method
        are of all of them."""
        return self.run.inspect or (self.run.penalised and self.defines("penalty"))

    def weights(self) -> dict[str, Tensor]:
        """What takes the place of the backbone's weights, by its parameter names."""
        # Names cannot clash: `check_chain` allows one method of a chain to train the backbone.
        replaced: dict[str, Tensor] = {}
        for method, state in self._active:
            replaced |= method.weights(state)
        return replaced

    def on_images(self, images: Tensor) -> Tensor:
        """Images (M, B, 3, height, width) that the network sees."""
        for method, state in self._active:
            images = method.on_images(images, state)
        return images

    def on_tokens(self, tokens_MBSD: Tensor) -> Tensor:
        """Tokens that enter the first block."""
        for method, state in self._active:
            tokens_MBSD = method.on_tokens(tokens_MBSD, state)
        return tokens_MBSD

    def changes(self, hook: str, batch: torch.Size) -> Change | None:
        """A hook of all methods as one function of flat (M * B, ...) tensors, as the backbone's two
        ends have them; None: no method has the hook.

        Args:
            hook: on_patches or on_norm.
            batch: M and B.
        """
        found = [(method, state) for method, state in self._active if overrides(method, hook)]
        if not found:
            return None

        # timm's modules know no members: M and B are one axis there, and two in the hooks.
        def change(x: Tensor) -> Tensor:
            x = x.unflatten(0, batch)
            for method, state in found:
                x = getattr(method, hook)(x, state)
            return x.flatten(0, 1)

        return change

    def block_runner(self) -> Callable[[int, Block, Tensor], Tensor] | None:
        """What runs the blocks in the network's place; None: no method does."""
        for method, state in self._active:
            if overrides(method, "on_block"):  # `check_chain` allows one method of a chain to
                return partial(_run_block, method, state)
        return None

    def attention(self, entering: Iterable[tuple[Block, Tensor]]) -> list[BlockAttention]:
        """What the self-attention of each block reads.

        Args:
            entering: Blocks, each with the tokens that entered it.
        """
        told = [pair for pair in self._active if overrides(pair[0], "attention")]
        if not told:
            return [BlockAttention.of(block, tokens) for block, tokens in entering]
        method, state = told[0]
        return [method.attention(i, block, x, state) for i, (block, x) in enumerate(entering)]

    def usage(self) -> dict[str, Tensor]:
        """How often each prompt group was chosen: counts (M, L, G) by pool."""
        return {k: v for method, state in self._active for k, v in method.usage(state).items()}

    def on_output(self, tokens_MBSD: Tensor) -> Tensor:
        """Tokens behind the last block, as the final norm and pooling see them."""
        for method, state in self._active:
            tokens_MBSD = method.on_output(tokens_MBSD, state)
        return tokens_MBSD

    def on_features(self, features_MBF: Tensor) -> Tensor:
        """Features that the classifier reads."""
        for method, state in self._active:
            features_MBF = method.on_features(features_MBF, state)
        return features_MBF

    def on_logits(self, features_MBF: Tensor, config: TrialConfig) -> Tensor | None:
        """Logits (M, B, C) of a method that makes its own; None: the head makes them."""
        for method, state in self._active:
            if method.has_own_logits(config):
                return method.on_logits(features_MBF, state)
        return None

    def side_features(self) -> list[tuple[float, Tensor]]:
        """Features (M, B, F) of further branches, each with its share of the loss."""
        return [pair for method, state in self._active for pair in method.side_features(state)]

    def penalty(self, zero: Tensor) -> Tensor:
        """Extra loss (M,) of all methods, added to `zero`."""
        penalties = [method.penalty(state) for method, state in self._active]
        return sum((penalty for penalty in penalties if penalty is not None), zero)


def _run_block(method: AnyMethod, state: Any, index: int, block: Block, tokens: Tensor) -> Tensor:
    return method.on_block(index, block, tokens, state)
