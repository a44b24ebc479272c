"""The image-level prompter of one script of TCPA's authors: a small residual network on the pixels.

x + Conv11x11(9 -> 3)(PReLU(Conv11x11(3 -> 9)(x))), stride 1, same padding, initialised as PyTorch
does, trained with the prompts. It is not in the paper; the authors use it on CUB only.
"""

# Axes: M members, B samples, images (M, B, 3, height, width).

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

from tcpa_core.methods.base import ParamSpec, constant, uniform

KERNEL, HIDDEN, COLOURS = 11, 9, 3
SLOPE = 0.25
"""Initial slope of the PReLU."""


def specs() -> dict[str, ParamSpec]:
    """Trainable tensors of one member by name."""
    wide = (COLOURS * KERNEL**2) ** -0.5
    narrow = (HIDDEN * KERNEL**2) ** -0.5
    return {
        "prompter_conv1_weight": ParamSpec((HIDDEN, COLOURS, KERNEL, KERNEL), uniform(wide)),
        "prompter_conv1_bias": ParamSpec((HIDDEN,), uniform(wide)),
        "prompter_slope": ParamSpec((1,), constant(SLOPE)),
        "prompter_conv2_weight": ParamSpec((COLOURS, HIDDEN, KERNEL, KERNEL), uniform(narrow)),
        "prompter_conv2_bias": ParamSpec((COLOURS,), uniform(narrow)),
    }


def apply(images: Tensor, params: Mapping[str, Tensor]) -> Tensor:
    """Add every member's own network output to its own images.

    Args:
        images: (M, B, 3, height, width), normalised.
        params: The tensors of `specs`, stacked (M, ...).
    """
    members = images.shape[0]
    stacked = images.transpose(0, 1).flatten(1, 2)  # members side by side as channel groups

    def convolve(x: Tensor, layer: str) -> Tensor:
        weight = params[f"prompter_{layer}_weight"].flatten(0, 1)
        bias = params[f"prompter_{layer}_bias"].flatten()
        return F.conv2d(x, weight, bias, padding=KERNEL // 2, groups=members)

    slopes = params["prompter_slope"].expand(members, HIDDEN).flatten()
    added = convolve(F.prelu(convolve(stacked, "conv1"), slopes), "conv2")
    return images + added.unflatten(1, (members, COLOURS)).transpose(0, 1)
