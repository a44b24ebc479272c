"""Maps of other sizes: torch's numbers, and gradients that no order of threads can change."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tcpa_core.model.map_sizes import averaged, bilinear
from tcpa_core.model.pack_model import PackModel
from tcpa_core.training.loss import num_labelled, segmentation_loss
from tests.tcpa_core.tiny import NUM_CLASSES, images, tiny_backbone, training_step, trial

SIZES = [
    ((4, 4), (8, 8)), ((4, 6), (16, 24)), ((1, 1), (5, 7)), ((1, 5), (6, 1)), ((7, 3), (7, 10)),
    ((2, 3), (7, 7)), ((6, 6), (7, 5)), ((13, 9), (4, 3)), ((5, 5), (1, 1)), ((14, 14), (37, 41)),
    ((3, 2), (64, 33)), ((31, 17), (32, 18)), ((32, 18), (31, 17)), ((3, 3), (6, 6)),
]  # fmt: skip
"""Rows and columns before and behind."""


def _interpolated(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


PAIRS: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "bilinear": (bilinear, _interpolated),
    "averaged": (averaged, F.adaptive_avg_pool2d),
}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize(("before", "behind"), SIZES)
def test_values_and_gradients_are_those_of_torch(
    name: str, before: tuple[int, int], behind: tuple[int, int]
) -> None:
    ours, theirs = PAIRS[name]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, *before, dtype=torch.float64, generator=generator, requires_grad=True)
    factors = torch.randn(2, 3, *behind, dtype=torch.float64, generator=generator)
    found, expected = ours(x, behind), theirs(x, behind)
    assert torch.equal(found, expected)
    (mine,) = torch.autograd.grad(found, x, factors)
    (other,) = torch.autograd.grad(expected, x, factors)
    torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_keep_their_type_under_autocast(name: str, dtype: torch.dtype) -> None:
    """In float32 they are exact, also where the backward pass is inside of the context."""
    ours, theirs = PAIRS[name]
    x = torch.randn(2, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    low = x.to(dtype).requires_grad_()
    exact = x.to(dtype).double().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        (mine,) = torch.autograd.grad(ours(low, (11, 9)).float().square().sum(), low)
    (other,) = torch.autograd.grad(theirs(exact, (11, 9)).square().sum(), exact)
    assert mine.dtype == dtype
    rounding = 2e-6 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(mine.double(), other, rtol=rounding, atol=rounding)


def test_gradients_have_gradients() -> None:
    x = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    for ours, _ in PAIRS.values():
        assert torch.autograd.gradcheck(lambda x, ours=ours: ours(x, (5, 2)), x)
        assert torch.autograd.gradgradcheck(lambda x, ours=ours: ours(x, (5, 2)), x)


DIFFER = {
    "upsample_bilinear2d_backward", "upsample_linear1d_backward", "upsample_bicubic2d_backward",
    "_upsample_bilinear2d_aa_backward", "_adaptive_avg_pool2d_backward",
    "adaptive_max_pool2d_backward", "grid_sampler_2d_backward", "reflection_pad2d_backward",
    "replication_pad2d_backward", "embedding_dense_backward", "scatter_add", "scatter_add_",
    "index_add", "index_add_", "index_put_", "_index_put_impl_", "bincount", "histc", "put_",
}  # fmt: skip
"""Operations that differ from run to run on a GPU (`torch.use_deterministic_algorithms`)."""


class _Seen(TorchDispatchMode):
    """Notes operations that differ."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.differ: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.names.add(name)
        # A loss is added up in such a way only where it is reduced.
        reduced = name.startswith("nll_loss") and 0 not in args[3:5]
        # Windows that overlap add to one place from several of them.
        is_pool = name == "max_pool2d_with_indices_backward"
        overlaps = is_pool and args[2] != (args[3] or args[2])  # no stride: that of the window
        if name in DIFFER or reduced or overlaps:
            self.differ.add(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("head", ["linear", "setr_pup", "upernet"])
def test_no_operation_of_a_training_step_differs_from_run_to_run(head: str) -> None:
    settings: dict[str, Any] = {"task__name": "segment", "segment__head": head}
    config = trial(["vpt"], **settings, segment__channels=4, segment__auxiliary_blocks=[1])
    backbone = tiny_backbone()
    pack = PackModel(backbone, [config], NUM_CLASSES)
    x = images(backbone)
    masks = torch.randint(0, NUM_CLASSES, (*x.shape[:2], *x.shape[-2:]))
    with _Seen() as seen:
        out = pack(x, training_step([config], [0], [0]))
        segmentation_loss(out, masks, num_labelled(masks)).sum().backward()
    assert {"upsample_bilinear2d", "nll_loss2d_backward", "convolution_backward"} <= seen.names
    assert not seen.differ


def test_the_guard_knows_what_differs() -> None:
    """What the step would hold with torch's own functions."""
    x = torch.randn(1, 3, 8, 8, requires_grad=True)
    labels = torch.zeros(1, 8, 8, dtype=torch.long)
    with _Seen() as seen:
        loss = _interpolated(x, (16, 16)).sum() + F.adaptive_avg_pool2d(x, 3).sum()
        loss = loss + F.cross_entropy(x, labels) + F.max_pool2d(x, 3, stride=2).sum()
        loss.backward()
    assert seen.differ >= {
        "upsample_bilinear2d_backward", "_adaptive_avg_pool2d_backward", "nll_loss2d_forward",
        "nll_loss2d_backward", "max_pool2d_with_indices_backward",
    }  # fmt: skip
