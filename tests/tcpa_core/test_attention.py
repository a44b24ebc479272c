"""Three backends, one function: against the formula, with gradients, masks and padding."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tcpa_core.model.attention import (
    FEW_KEYS,
    FEW_ROWS,
    Backend,
    MaskMode,
    PromptKeys,
    Visibility,
    attend,
    join_prompts,
    mix,
)

M, B, H, S, E = 2, 3, 2, 12, 4
SIZES = (5, 3)


def draw(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


def draw_mask(*shape: int, seed: int) -> Tensor:
    return draw(*shape, seed=seed).detach() > 0


def inputs(samples: int, rows: int = S) -> tuple[list[Tensor], list[Tensor]]:
    """Queries, keys, values of tokens, and keys and values of both pools."""
    tokens = [draw(M, B, H, n, E, seed=i) for i, n in enumerate((rows, S, S))]
    prompts = [
        draw(M, samples, H, n, E, seed=10 + 2 * i + j) for i, n in enumerate(SIZES) for j in (0, 1)
    ]
    return tokens, prompts


Visible = bool | Tensor
"""Which prompts of a pool some rows use: all, none, or a boolean (M, B or 1, R, P) tensor."""


def keys_of(prompts: list[Tensor], padded: bool) -> PromptKeys:
    exists = torch.ones(M, SIZES[0], dtype=torch.bool)
    exists[1, 3:] = False
    first = PromptKeys(prompts[0], prompts[1], exists if padded else None)
    return join_prompts(first, PromptKeys(prompts[2], prompts[3], None))


def mask_of(
    visible: tuple[Visible, ...], mode: MaskMode = "post", rows: int = S
) -> Visibility | None:
    if all(entry is True for entry in visible):
        return None
    samples = max(entry.shape[1] if isinstance(entry, Tensor) else 1 for entry in visible)
    mask = torch.cat(
        [
            entry[:, :, :rows].expand(-1, samples, -1, -1)
            if isinstance(entry, Tensor)
            else torch.full((M, samples, rows, size), entry)
            for entry, size in zip(visible, SIZES, strict=True)
        ],
        dim=-1,
    )
    return Visibility(mask, mode)


def formula(
    tokens: list[Tensor],
    prompts: list[Tensor],
    visible: tuple[Visible, ...],
    mode: MaskMode,
    padded: bool,
) -> Tensor:
    """Softmax over everything that exists, one row at a time."""
    q, k, v = tokens
    out = torch.zeros_like(q)
    for m in range(M):
        exists = [SIZES[0] - 2 * (padded and m == 1), SIZES[1]]
        for b in range(B):
            for h in range(H):
                for t in range(q.shape[3]):
                    keys, values, sees = [k[m, b, h]], [v[m, b, h]], [torch.ones(S)]
                    for i, entry in enumerate(visible):
                        size, shared = exists[i], prompts[2 * i].shape[1] == 1
                        keys.append(prompts[2 * i][m, 0 if shared else b, h, :size])
                        values.append(prompts[2 * i + 1][m, 0 if shared else b, h, :size])
                        seen = torch.full((size,), float(entry is True))
                        if isinstance(entry, Tensor):
                            seen = entry[m, min(b, entry.shape[1] - 1), t, :size].double()
                        sees.append(seen)
                    mask = torch.cat(sees).double()
                    scores = torch.cat(keys) @ q[m, b, h, t] / E**0.5
                    weights = (scores + mask.log() if mode == "pre" else scores).softmax(-1)
                    out[m, b, h, t] = (weights * mask) @ torch.cat(values)
    return out


VISIBLE: dict[str, tuple[Visible, ...]] = {
    "all": (True, True),
    "one pool": (False, True),
    "chosen": (draw_mask(M, B, S, SIZES[0], seed=20), draw_mask(M, B, S, SIZES[1], seed=21)),
    "chosen of one": (draw_mask(M, 1, S, SIZES[0], seed=22), False),
}


@pytest.mark.parametrize("padded", [False, True], ids=["equal", "padded"])
@pytest.mark.parametrize("samples", [1, B], ids=["shared", "per_sample"])
@pytest.mark.parametrize("mode", ["post", "pre"])
@pytest.mark.parametrize("case", VISIBLE)
def test_backends_equal_the_formula(case: str, mode: MaskMode, samples: int, padded: bool) -> None:
    tokens, prompts = inputs(samples)
    weight = draw(M, B, H, S, E, seed=30).detach()
    leaves = [*tokens, *prompts]
    expected = formula(tokens, prompts, VISIBLE[case], mode, padded)
    expected_grads = torch.autograd.grad(expected, leaves, weight, materialize_grads=True)
    backends: tuple[Backend | None, ...] = (None, "dense", "twin", "lse")
    for backend in backends:
        both, mask = keys_of(prompts, padded), mask_of(VISIBLE[case], mode)
        out = attend(tokens[0], tokens[1], tokens[2], both, mask, backend=backend)
        grads = torch.autograd.grad(out, leaves, weight, materialize_grads=True)
        torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
        for ours, reference in zip(grads, expected_grads, strict=True):
            torch.testing.assert_close(ours, reference, rtol=1e-12, atol=1e-12)


def test_lse_computes_no_token_gradient_that_nobody_wants() -> None:
    tokens, prompts = inputs(B)
    frozen = [t.detach() for t in tokens]
    visible = VISIBLE["chosen"]
    weight = draw(M, B, H, S, E, seed=30).detach()
    grads = {}
    for kind, used in (("frozen", frozen), ("trained", tokens)):
        both = keys_of(prompts, padded=False)
        out = attend(used[0], used[1], used[2], both, mask_of(visible), backend="lse")
        grads[kind] = torch.autograd.grad(out, prompts, weight)
    for a, b in zip(grads["frozen"], grads["trained"], strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("backend", [None, "dense", "twin", "lse"])
def test_few_rows_equal_the_same_rows_among_many(backend: Backend | None) -> None:
    tokens, prompts = inputs(B)
    visible = VISIBLE["chosen"]
    both = keys_of(prompts, padded=True)
    full = attend(tokens[0], tokens[1], tokens[2], both, mask_of(visible), backend=backend)
    q = tokens[0][:, :, :, :2]
    assert q.shape[3] <= FEW_ROWS < S
    few = attend(q, tokens[1], tokens[2], both, mask_of(visible, rows=2), backend=backend)
    torch.testing.assert_close(few, full[:, :, :, :2], rtol=1e-12, atol=1e-12)


def test_a_post_row_is_a_pre_row_times_the_attention_it_kept() -> None:
    tokens, prompts = inputs(B)
    both, visible = keys_of(prompts, padded=False), VISIBLE["chosen"]
    post, pre = (
        attend(tokens[0], tokens[1], tokens[2], both, mask_of(visible, mode), backend="lse")
        for mode in ("post", "pre")
    )
    q, k, _ = tokens
    scores = torch.cat([q @ k.mT, q @ prompts[0].mT, q @ prompts[2].mT], -1) / E**0.5
    seen = torch.cat([torch.ones(M, B, S, S, dtype=torch.bool), *visible], -1)  # type: ignore[list-item]
    rho = (scores.softmax(-1) * seen[:, :, None]).sum(-1, keepdim=True)
    assert float(rho.detach().min()) < 0.9
    torch.testing.assert_close(post, rho * pre, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("rows", "keys", "keeps_a_map"),
    [
        (FEW_KEYS, FEW_KEYS, True),
        (FEW_ROWS, 3 * FEW_KEYS, True),
        (FEW_ROWS + 1, FEW_KEYS + 1, False),
    ],
)
@pytest.mark.parametrize("masked", [False, True])
def test_only_small_attention_keeps_its_map(
    rows: int, keys: int, keeps_a_map: bool, masked: bool
) -> None:
    """And what is fastest for the shapes changes no number, without prompts either."""
    q, k, v = (draw(1, 2, 2, n, E, seed=i) for i, n in enumerate((rows, keys - 3, keys - 3)))
    prompts = PromptKeys(draw(1, 1, 2, 3, E, seed=3), draw(1, 1, 2, 3, E, seed=4), None)
    visible = Visibility(draw_mask(1, 1, rows, 3, seed=5)) if masked else None
    kept: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        found = attend(q, k, v, prompts, visible, backend=None)
    assert (2 * 2 * rows * keys in kept) is keeps_a_map
    other = attend(q, k, v, prompts, visible, backend="twin")
    torch.testing.assert_close(found, other, rtol=1e-12, atol=1e-12)
    alone = mix(q[0], k[0], v[0])
    expected = F.scaled_dot_product_attention(q[0], k[0], v[0])
    torch.testing.assert_close(alone, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", [None, "dense"])
@pytest.mark.parametrize("kinds", ["hf", "hh", "ff"])
def test_autocast_may_leave_some_of_them_in_float32(backend: Backend | None, kinds: str) -> None:
    """Values stand first; queries and keys come from a norm in some models."""
    dtypes = [torch.bfloat16 if kind == "h" else torch.float32 for kind in kinds]
    v, q, k, pk, pv = (
        draw(1, 2, 2, n, E, seed=i).detach().to(dtypes[kind]).requires_grad_()
        for i, (n, kind) in enumerate(((S, 0), (S, 1), (S, 1), (3, 1), (3, 0)))
    )
    visible = Visibility(draw_mask(1, 2, S, 3, seed=9))
    leaves = [q, k, v, pk, pv]
    results = []
    for full in (False, True):
        used = [t.detach().float().requires_grad_() for t in leaves] if full else leaves
        with torch.autocast("cpu", torch.bfloat16, enabled=not full):
            prompts = PromptKeys(used[3], used[4], None)
            out = attend(*used[:3], prompts, visible, backend=backend)
        results.append([out, *torch.autograd.grad(out.float().square().sum(), used)])
    for half, exact in zip(*results, strict=True):
        torch.testing.assert_close(half.float(), exact, rtol=0.05, atol=0.05)
