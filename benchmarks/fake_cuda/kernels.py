"""Kernels, bytes and FLOP of one operation on a GPU, as PyTorch's CUDA sources launch them."""

from dataclasses import dataclass
from math import ceil
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

NONE = frozenset(
    "detach alias view _unsafe_view reshape _reshape_alias expand t transpose permute slice "
    "unsqueeze squeeze select split split_with_sizes unbind as_strided chunk unsafe_split "
    "unsafe_split_with_sizes narrow diagonal unfold lift lift_fresh view_as_real view_as_complex "
    "real imag empty empty_like new_empty empty_strided new_empty_strided set_ resize_ "
    "is_same_size _nested_tensor_size sym_size sym_stride sym_numel conj _conj swapaxes movedim "
    "device layout dim numel is_contiguous is_non_overlapping_and_dense storage_offset size stride "
    "is_pinned _has_compatible_shallow_copy_type mT T record_stream "
    "_linalg_check_errors".split()
)
"""Operations that start no kernel."""
SEVERAL = {
    "sort": 3, "argsort": 3, "baddbmm": 2, "convolution": 2, "_fft_r2c": 2, "_fft_c2c": 2,
    "convolution_backward": 3, "_scaled_dot_product_flash_attention_backward": 3,
    "_scaled_dot_product_efficient_attention_backward": 2,
    "_scaled_dot_product_cudnn_attention_backward": 3, "_fft_c2r": 2, "_linalg_eigh": 40,
    "nonzero": 4, "_cdist_forward": 3, "randperm": 4, "embedding_dense_backward": 6,
    # a copy or zeros first, then the operation in place
    "scatter": 2, "scatter_add": 2, "index_add": 2, "index_copy": 2, "index_fill": 2,
    "masked_fill": 2, "masked_scatter": 2, "constant_pad_nd": 2, "slice_backward": 2,
    "select_backward": 2, "diagonal_backward": 2, "unfold_backward": 2, "slice_scatter": 2,
    "select_scatter": 2, "diagonal_scatter": 2, "as_strided_scatter": 2, "nll_loss_backward": 2,
    "grid_sampler_2d_backward": 2, "value_selecting_reduction_backward": 2,
}  # fmt: skip
"""Kernels of an operation where it is not one."""
WAITS = frozenset(
    "nonzero masked_select is_nonzero _unique2 unique_consecutive repeat_interleave bincount "
    "_linalg_check_errors _linalg_eigh _linalg_svd".split()
)
"""Operations for which the host waits, since it is told a size or whether they went well."""
BY_INDEX = frozenset({"index", "index_put_", "index_put", "_index_put_impl_"})
GATHERS = frozenset({"index", "index_select", "gather", "embedding"})
"""Read what they return, not all they are given."""
PUTS = frozenset(
    "index_put_ index_put _index_put_impl_ scatter_ scatter scatter_add_ scatter_add index_add_ "
    "index_add index_copy_ index_copy index_fill_ index_fill".split()
)
"""Write what they are given, not all they write into; those without "_" copy that first."""
WRITES_ONLY = frozenset(
    "copy_ fill_ zero_ bernoulli_ uniform_ normal_ random_ exponential_ _philox_uniform_ "
    "_philox_normal_ zeros_like ones_like full_like rand_like randn_like new_zeros new_ones "
    "new_full".split()
)
"""Do not read the tensor that they fill, or whose shape they take."""

ALIKE = frozenset(
    "mm bmm addmm baddbmm addbmm mv addmv dot convolution convolution_backward native_layer_norm "
    "native_layer_norm_backward lerp lerp_ index_put index_put_ index_add index_add_ index_copy "
    "index_copy_ scatter scatter_ scatter_add scatter_add_ masked_scatter masked_scatter_".split()
)
"""Their floating-point tensors have to be of one format."""
NOT_IN_HALF = ("linalg_", "_linalg_", "_fft_", "_cdist_", "geqrf", "ormqr", "lu_", "cholesky")
"""How operations begin that have no kernel in half precision."""

CHUNK, MOST_BLOCKS = 65536, 320
MOST_TENSORS = {1: 110, 2: 64, 3: 48, 4: 36, 5: 30}
"""`multi_tensor_apply`: elements of a block, blocks of a launch, tensors of a launch by the number
of lists (aten/src/ATen/native/cuda/MultiTensorApply.cuh)."""
CAT_INPUTS = 128
"""Tensors that one launch of `cat` joins (aten/src/ATen/native/cuda/Shape.cu)."""


Why = Literal["", "h2d", "d2h", "value", "shape"]
"""What the host waits for: a blocking copy to or from the device, a value, or the size of a result;
"" where it does not wait."""


@dataclass(frozen=True, slots=True)
class Work:
    """What an operation asks of the device."""

    kernels: int = 0
    flops: float = 0.0
    bytes: float = 0.0
    dtype: torch.dtype = torch.float32
    """In which products are computed."""
    wait: Why = ""


def work_of(func: Any, args: Any, kwargs: Any, out: Any) -> Work:
    """Kernels, FLOP and bytes of an operation that has been dispatched."""
    name: str = func.overloadpacket.__name__
    wait = _wait(name, args)
    if name in NONE:
        return Work(wait=wait)
    ins, outs = tensors_of((args, kwargs)), tensors_of(out)
    rule = flop_registry.get(func.overloadpacket)
    flops = 0.0 if rule is None else float(rule(*args, **kwargs, out_val=out))
    kind = next((x.dtype for x in ins if x.is_floating_point()), torch.float32)
    count = _kernels(name, args, ins, outs)
    return Work(count, flops, _bytes(func, name, args, kwargs, ins, outs), kind, wait)


def is_masked_fill(indices: Any, value: Tensor) -> bool:
    """Whether x[indices] = value is a fill where a mask is true, which knows no sizes: only for a
    number of the CPU."""
    given = [i for i in indices if i is not None]
    is_number = value.device.type == "cpu" and value.numel() == 1
    return is_number and all(i.dtype == torch.bool for i in given)


def _wait(name: str, args: Any) -> Why:
    if name in WAITS:
        return "shape"
    if name in BY_INDEX:  # what lies on the CPU is copied inside
        on_cpu = [x for x in tensors_of(args[1:]) if x.device.type == "cpu"]
        return "h2d" if on_cpu else ""
    if name in ("masked_fill", "masked_fill_"):  # a value is read
        return "value" if any(x.device.type != "cpu" for x in tensors_of(args[2:])) else ""
    return ""


def refuse(name: str, ins: list[Tensor]) -> None:
    """Raise where a GPU would and fake tensors do not.

    Raises:
        RuntimeError: Number formats that the operation has no kernel for.
    """
    kinds = list(dict.fromkeys(x.dtype for x in ins if x.is_floating_point()))
    if name in ALIKE and len(kinds) > 1:
        raise RuntimeError(f"{name}: expected tensors of the same dtype, but got {kinds}")
    is_half = torch.bfloat16 in kinds or torch.float16 in kinds
    if is_half and name.startswith(NOT_IN_HALF) and name != "linalg_vector_norm":
        raise RuntimeError(f"{name}: not implemented for dtype {kinds}")


def _kernels(name: str, args: Any, ins: list[Tensor], outs: list[Tensor]) -> int:
    if name.startswith(("_foreach_", "_fused_")):
        return _launches([x for x in args if isinstance(x, list | tuple) and tensors_of(x)])
    if name in ("cat", "stack"):
        return ceil(len(ins) / CAT_INPUTS)
    if name == "topk":  # the choice, then the order
        return 1 if args[4:] == (False,) else 2
    if name in ("index_put_", "index_put", "_index_put_impl_"):
        adds = args[3:4] == (True,) or args[3:4] == [True]
        return (5 if adds else 1) + (name == "index_put")  # to add, indices are sorted first
    if name == "native_layer_norm_backward":  # of the input; and of scale and shift where trained
        return 1 + (len(outs) > 1)
    return SEVERAL.get(name, 1)


def _launches(lists: list[Any]) -> int:
    """Launches of a kernel over lists of tensors."""
    lists = [some for some in lists if isinstance(some[0], Tensor) and some[0].ndim]  # no counters
    if not lists:
        return 1
    first = lists[0]
    is_fast = all(
        (x.shape, x.dtype, x.stride()) == (y.shape, first[0].dtype, y.stride())
        for some in lists
        for x, y in zip(some, first, strict=True)
    )
    if not is_fast:
        return len(first)  # torch goes through them one by one
    launches = tensors = blocks = 0
    for x in first:
        if tensors == MOST_TENSORS[min(5, len(lists))]:
            launches, tensors, blocks = launches + 1, 0, 0
        tensors += 1
        for _ in range(ceil(x.numel() / CHUNK)):
            if blocks == MOST_BLOCKS:
                launches, tensors, blocks = launches + 1, 1, 0
            blocks += 1
    return launches + (blocks > 0)


def _bytes(
    func: Any, name: str, args: Any, kwargs: Any, ins: list[Tensor], outs: list[Tensor]
) -> float:
    if name in GATHERS:
        return float(2 * sum(map(span, outs)) + sum(map(span, ins[1:])))
    if name in PUTS:
        given = sum(map(span, ins[1:]))
        copied = 0 if name.endswith("_") else 2 * span(ins[0])
        return float(2 * given + copied)
    if name in WRITES_ONLY:
        ins = ins[1:]
    written = outs
    if not outs:  # in place over lists
        written = [
            x
            for argument, given in zip(func._schema.arguments, args, strict=False)
            if argument.alias_info is not None and argument.alias_info.is_write
            if argument.name != "grads"  # only where they are scaled, which nobody asks for
            for x in tensors_of(given)
        ]
    return float(sum(map(span, ins)) + sum(map(span, written)))


def tensors_of(tree: Any) -> list[Tensor]:
    """All tensors of nested lists, tuples and dictionaries."""
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, dict):
        tree = tree.values()
    elif not isinstance(tree, list | tuple):
        return []
    return [x for part in tree for x in tensors_of(part)]


def span(x: Tensor) -> int:
    """Bytes of the distinct elements of a tensor."""
    count = 1
    for size, stride in zip(x.shape, x.stride(), strict=True):
        count *= size if stride else 1
    return count * x.element_size()
