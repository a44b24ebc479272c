"""The formula of Philox against its published answers, and PyTorch's kernel against the formula."""

import pytest
import torch
from torch import Tensor

from tcpa_core import philox

# Known answers of Random123 (kat_vectors, philox 4x32, 10 rounds): counter, key, words.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000",
     "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
     "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
     "d16cfe09 94fdcceb 5001e420 24126ea1"),
]  # fmt: skip
CPU = torch.device("cpu")


def words(text: str) -> list[Tensor]:
    return [torch.tensor(int(word, 16)) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_the_formula_gives_the_published_words(counter: str, key: str, expected: str) -> None:
    assert philox.philox(words(counter), words(key)) == tuple(words(expected))


def keys(unit: int) -> Tensor:
    """All corners of seed and position, and places between them."""
    generator = torch.Generator().manual_seed(0)
    seeds = torch.randint(-(2**63), 2**63 - 1, (5, 7), generator=generator)
    blocks = torch.randint(0, 2**62, (5, 7), generator=generator)
    blocks[0, :4] = torch.tensor([0, 1, 2**32 - 1, 2**62 - 1])
    return torch.stack([seeds, blocks * unit], dim=-1)


@pytest.mark.skipif(philox.unit(CPU) is None, reason="this PyTorch has no kernel for Philox")
@pytest.mark.parametrize("count", [1, 3, 4, 5, 768, 2**14])
def test_the_kernel_gives_the_numbers_of_the_formula(count: int) -> None:
    unit = philox.unit(CPU)
    assert unit is not None
    assert torch.equal(philox._kernel(keys(unit), count), philox._formula(keys(1), count))


@pytest.mark.parametrize("has_kernel", [True, False])
def test_a_longer_draw_begins_as_a_shorter_one(
    has_kernel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_kernel:
        monkeypatch.setattr(philox, "unit", lambda device: None)
    long, short = (philox.uniform(keys(1), count) for count in (70, 6))
    assert torch.equal(long[..., :6], short)
    assert 0 <= float(long.min()) and float(long.max()) < 1
    assert torch.equal(long / philox.RESOLUTION % 1, torch.zeros_like(long))


def test_a_kernel_with_other_numbers_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that counts in words is; one that draws otherwise, or takes other arguments, is not."""

    def counting_words(keys: Tensor, count: int) -> Tensor:
        positions = torch.stack([keys[..., 0], (keys[..., 1] >> 2) & (2**62 - 1)], dim=-1)
        return philox._formula(positions, count)

    def refused(keys: Tensor, count: int) -> Tensor:
        raise RuntimeError("_philox_uniform_() takes other arguments")

    def other(keys: Tensor, count: int) -> Tensor:
        return 1 - philox._formula(keys, count)

    def one_key_otherwise(keys: Tensor, count: int) -> Tensor:
        return philox._formula(keys, count) * (len(keys) > 1)

    found = []
    for kernel in (philox._formula, counting_words, refused, other, one_key_otherwise):
        monkeypatch.setattr(philox, "_kernel", kernel)
        monkeypatch.setattr(torch.ops.aten, "_philox_uniform_", None, raising=False)
        found.append(philox.unit.__wrapped__(CPU))
    assert found == [1, philox.WORDS, None, None, None]


def test_numbers_are_spread_evenly() -> None:
    drawn = philox.uniform(torch.arange(128).view(64, 2), 2**14).double()
    assert float(drawn.mean()) == pytest.approx(0.5, abs=1e-3)
    counts = torch.histc(drawn, bins=16, min=0, max=1) / drawn.numel()
    assert float((counts - 1 / 16).abs().max()) < 5e-4
