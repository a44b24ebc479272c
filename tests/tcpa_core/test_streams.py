"""What a step draws belongs to a member, a purpose, a layer and a row, and to nothing else."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tcpa_core import philox
from tcpa_core.methods._random import Dropout, DropPath
from tcpa_core.methods.base import BatchPart, Step, token_rows
from tcpa_core.streams import MAX_ROWS, Draws, Stream, offsets, row_keys, whole_numbers
from tests.tcpa_core import chance

CPU = torch.device("cpu")
SEEDS, STEPS = [3, 2**40, 3], [0, 7, 2**26 - 1]


def step_of(members: list[int], part: BatchPart | None = None) -> Step:
    streams = [Stream(SEEDS[m]) for m in members]
    steps = [STEPS[m] for m in members]
    return Step(training=True, epochs=[0] * len(members), steps=steps, streams=streams, part=part)


def counting_words(keys: Tensor, count: int) -> Tensor:
    """A kernel whose positions count numbers, as PyTorch's for CUDA does."""
    positions = (keys[..., 1] >> 2) & (2**62 - 1)
    return philox._formula(torch.stack([keys[..., 0], positions], dim=-1), count)


@pytest.mark.parametrize("unit", [None, 1, philox.WORDS])
def test_numbers_follow_from_seed_step_purpose_layer_and_row(
    unit: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever PyTorch's kernel counts in, and also without it."""
    monkeypatch.setattr(philox, "unit", lambda device: unit)
    monkeypatch.setattr(philox, "_kernel", counting_words if unit == 4 else philox._formula)
    rows = torch.tensor([[5, 0], [MAX_ROWS - 1, 1]])
    keys = row_keys(rows[None], MAX_ROWS)
    step = step_of([0, 1, 2])
    drawn = step.draws.uniform("a", keys, 6, layers=3, layer=None)
    assert drawn.shape == (3, 3, 2, 2, 6)
    for m in range(3):
        for layer in range(3):
            expected = chance.numbers(step_of([m]), "a", layer, rows, 6)
            assert torch.equal(drawn[layer, m].double(), expected)
            assert torch.equal(step.draws.uniform("a", keys, 6, layers=3, layer=layer)[m],
                               drawn[layer, m])  # fmt: skip
    given = offsets([STEPS, [1, 2, 3]], CPU)
    again = Draws(step.streams, [0, 0, 0], given[0]).uniform("a", keys, 6, layers=3, layer=None)
    assert torch.equal(again, drawn), "what an epoch copies to the device says where they are"
    assert drawn.unique().numel() == drawn.numel()
    assert not torch.equal(step.draws.uniform("b", keys, 6), drawn[0])


def test_rows_that_would_overlap_are_refused() -> None:
    with pytest.raises(ValueError, match=f"at most {MAX_ROWS}.*got {MAX_ROWS + 1}"):
        row_keys(torch.zeros(1, 1, dtype=torch.int64), MAX_ROWS + 1)
    with pytest.raises(ValueError, match="at most 16384.*got 16385"):
        step_of([0]).draws.uniform("a", row_keys(torch.zeros(1, 1, dtype=torch.int64), 1), 16385)


def test_whole_numbers_reach_all_values_and_no_more() -> None:
    edges = torch.tensor([0.0, 0.5, 1 - philox.RESOLUTION])
    for below in (1, 2, 3, 257, 2**24 - 1):
        assert whole_numbers(edges, torch.tensor(below)).tolist() == [0, below // 2, below - 1]
    assert whole_numbers(edges, torch.tensor(0)).tolist() == [0, 0, 0]


B, F = 6, 10


def dropped_prompts(exists: Tensor | None, members: list[int], part: BatchPart | None) -> Tensor:
    rates = [[0.5, 0.25, 0.75][m] for m in members]
    prompts = torch.ones(2, len(members), 3 if exists is None else exists.shape[1], F)
    samples = B if part is None else part.rows.stop - part.rows.start
    dropout = Dropout("p", rates, layers=2)
    return dropout.prompts(prompts, exists, samples, step_of(members, part))[1].transpose(1, 2)


def dropped_activations(pad: int, members: list[int], part: BatchPart | None) -> Tensor:
    rates = [[0.5, 0.25, 0.75][m] for m in members]
    samples = B if part is None else part.rows.stop - part.rows.start
    x = torch.ones(len(members), samples, 4, F + pad)
    return Dropout("a", rates, layers=2).activations(x, step_of(members, part), 1, length=9)


def skipped(pad: int, members: list[int], part: BatchPart | None) -> Tensor:
    rates = [[[0.5, 0.25, 0.75][m] for m in members]] * 2
    samples = B if part is None else part.rows.stop - part.rows.start
    branch = torch.ones(len(members), samples, 2, 3)
    return DropPath("s", rates).apply(branch, step_of(members, part), 1)


@pytest.mark.parametrize("drop", [dropped_activations, skipped])
def test_neighbours_padding_and_parts_change_no_number(
    drop: Callable[[int, list[int], BatchPart | None], Tensor],
) -> None:
    together = drop(7, [0, 1, 2], None)
    for m in range(3):
        alone = drop(0, [m], None)
        assert torch.equal(alone[0], together[m][..., : alone.shape[-1]])
        assert 0 < alone.count_nonzero() < alone.numel()
    for rows in (slice(0, 2), slice(2, 6)):
        assert torch.equal(drop(7, [0, 1, 2], BatchPart(rows, B)), together[:, rows])


def test_padding_in_the_middle_of_prompts_changes_no_number() -> None:
    """As between TCPA's two pools."""
    exists = torch.tensor([[1, 0, 0, 1, 1], [1, 1, 1, 0, 0], [0, 1, 0, 1, 1]]).bool()
    together = dropped_prompts(exists, [0, 1, 2], None)
    for m in range(3):
        assert torch.equal(dropped_prompts(None, [m], None)[0], together[m][exists[m]])
    for rows in (slice(0, 1), slice(1, 6)):
        part = dropped_prompts(exists, [0, 1, 2], BatchPart(rows, B))
        assert torch.equal(part, together[:, :, rows])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_keeps_the_mean_and_its_gradient_is_its_factor(dtype: torch.dtype) -> None:
    """The factors are exact for rates that no number hits, in half precision, too."""
    rate = 0.1234567
    share = chance.share_kept(rate)
    x = torch.full((1, 4, 16, 64), 3.0, dtype=dtype, requires_grad=True)
    out = Dropout("d", [rate]).activations(x, step_of([0]), 0)
    out.sum().backward()
    assert x.grad is not None and out.dtype == x.grad.dtype == dtype
    kept = chance.dropout((4, 16, 64), rate, step_of([0]), "d", 0)[None] > 0
    assert torch.equal(out.detach(), torch.where(kept, 3 / share, 0.0).to(dtype))
    assert torch.equal(x.grad, torch.where(kept, 1 / share, 0.0).to(dtype))
    assert abs(share - (1 - rate)) <= philox.RESOLUTION / 2


def test_a_rate_just_below_one_keeps_something() -> None:
    out = Dropout("d", [1 - 1e-12]).activations(torch.ones(1, 1, 1, 1), step_of([0]), 0)
    assert out.isfinite().all()


def test_the_last_block_draws_the_numbers_of_all_tokens() -> None:
    step = step_of([0])
    whole = token_rows(step, 2, 5, CPU)
    assert torch.equal(token_rows(step, 2, 3, CPU, length=5), whole[:, :, :3])
