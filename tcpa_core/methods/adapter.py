"""Adapter (Pfeiffer): a bottleneck behind the MLP of every block, inside its residual branch.

With m = MLP(LN U) the branch becomes m + W_u GELU(W_d m + b_d) + b_u; a layer scale of the block
stands behind both.

Trainable besides the head: L * (2 D h + h + D); 156,768 on a ViT-B/16 with h = 8. With `init`
"zero_zero" the gradients of W_d, b_d and W_u are 0 for ever: they are dead, and b_u alone learns.

Source:
    Pfeiffer et al., AdapterFusion, EACL 2021, as in Jia et al., Visual Prompt Tuning, ECCV 2022
    (KMnP/vpt), whose code starts W_d and W_u at 0 and gives the reduction D / h (8, 64 or 256).
"""

# Axes: M members, B samples, S tokens, I inputs, O outputs.

from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor

from tcpa_core.methods._bottleneck import Bottleneck, BottleneckSettings
from tcpa_core.methods._tuned_blocks import Layer, State
from tcpa_core.methods.base import Init, constant, member_linear, normal


class Config(BottleneckSettings):
    """Settings of the adapter."""

    init: Literal["zero_up", "zero_zero"] = "zero_up"
    """W_u = 0 and W_d from N(0, 0.01^2), or both 0 (VPT's authors)."""


class Method(Bottleneck):
    """Adapters for a pack."""

    @classmethod
    def down_init(cls, settings: Any, width: int) -> Init:
        """N(0, 0.01^2), or 0."""
        return constant(0.0) if settings.init == "zero_zero" else normal(0.0, 0.01)

    def behind(self, layer: Layer, x_MBSI: Tensor, y_MBSO: Tensor, index: int, s: State) -> Tensor:
        """Add to the output of the MLP."""
        if layer != "mlp":
            return y_MBSO
        down, down_bias, up, up_bias = (s.by_block[name][index] for name in self.per_block)
        hidden = F.gelu(member_linear(y_MBSO, down, down_bias))
        return y_MBSO + member_linear(hidden, up, up_bias)
