"""Which attention kernel torch takes on an H200; the fake device cannot be asked."""

from typing import Any

import torch
from torch import Tensor

SHAPES: set[Any] = set()
"""Shapes of cuDNN attention: it builds a plan for each, forward and backward."""


_AS_EVER = torch.nn.functional.scaled_dot_product_attention


def attention(q: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """`scaled_dot_product_attention` with the kernel that torch 2.14 with cuDNN > 9.15 chooses."""
    if q.device.type == "cuda":
        return _on_cuda(q, *args, **kwargs)
    return _AS_EVER(q, *args, **kwargs)


def _on_cuda(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """cuDNN in half precision, with a bias where there is a mask; else memory-efficient attention,
    whose bias has to be aligned."""
    if torch.is_autocast_enabled("cuda"):
        kind = torch.get_autocast_dtype("cuda")
        q, k, v = (x.to(kind) if x.dtype == torch.float32 else x for x in (q, k, v))
    if not q.dtype == k.dtype == v.dtype:
        raise RuntimeError(
            "Expected query, key, and value to have the same dtype, but got "
            f"{q.dtype}, {k.dtype}, {v.dtype}"
        )
    bias = attn_mask
    if bias is not None and bias.dtype == torch.bool:
        bias = torch.where(bias, 0.0, float("-inf")).to(q.dtype)
    keep = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v))
    if q.dtype in (torch.bfloat16, torch.float16) and k.shape[-2] > 1:
        SHAPES.add((tuple(q.shape), k.shape[-2], bias is not None, keep))
        if bias is not None:
            bias = bias.view(*[1] * (4 - bias.ndim), *bias.shape)
            bias = bias.expand(len(q), -1, q.shape[-2], k.shape[-2])
        return torch.ops.aten._scaled_dot_product_cudnn_attention(
            q, k, v, bias, keep, dropout_p, is_causal, False, scale=scale
        )[0]
    if bias is not None:
        align = 16 // bias.element_size()
        length = bias.shape[-1]
        if length % align:
            bias = torch.nn.functional.pad(bias, (0, align - length % align))[..., :length]
        bias = bias.expand(*q.shape[:-1], k.shape[-2])
    return torch.ops.aten._scaled_dot_product_efficient_attention(
        q, k, v, bias, keep, dropout_p, is_causal, scale=scale
    )[0]
