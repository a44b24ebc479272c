"""Bounds, conditions and enumeration: no suggestion is ever out of bounds or thrown away."""

from collections.abc import Mapping
from typing import Any

import optuna
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from spaces.load import space_of
from spaces.space import Space
from tcpa_core.errors import ConfigError
from tests.spaces.trials import RandomTrial

N_C, N_I, K_C, K_I = (
    "tcpa.num_cls_prompts",
    "tcpa.num_image_prompts",
    "tcpa.top_k_cls",
    "tcpa.top_k_image",
)


def _space(axes: Mapping[str, Any], constraints: list[str] | None = None, **more: Any) -> Space:
    data = {"name": "s", "base": {"methods": ["tcpa"]}, "axes": axes, "budget": {"trials": 1}}
    return space_of(data | {"constraints": constraints or []} | more)


@st.composite
def _ranges(draw: st.DrawFn) -> tuple[int, int]:
    low = draw(st.integers(1, 30))
    return low, low + draw(st.integers(0, 30))


@settings(max_examples=60, deadline=None)
@given(
    pool=_ranges(),
    shares=st.tuples(st.floats(0.001, 1), st.floats(0.001, 1)),
    seed=st.integers(0, 2**32),
)
def test_a_fraction_never_exceeds_its_pool(
    pool: tuple[int, int], shares: tuple[float, float], seed: int
) -> None:
    fraction = {"fraction_of": N_I, "range": sorted(shares)}
    space = _space({K_I: fraction, N_I: {"int": list(pool)}})
    trial = RandomTrial(seed)
    point = space.suggest(trial)
    assert 1 <= point[K_I] <= point[N_I]
    low, high = (max(1, round(share * point[N_I])) for share in sorted(shares))
    assert low <= point[K_I] <= high
    assert space.config(point, seed=0).flat()[K_I] == point[K_I]
    params = space.params(point)
    assert min(shares) <= params[f"{K_I}/{N_I}"] <= max(shares)
    assert space.suggest(optuna.trial.FixedTrial(params)) == point


@settings(max_examples=80, deadline=None)
@given(
    ranges=st.tuples(_ranges(), _ranges(), _ranges(), _ranges()),
    steps=st.tuples(*[st.integers(1, 4)] * 4),
    strict=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_constraints_bind_every_suggestion(
    ranges: tuple[tuple[int, int], ...], steps: tuple[int, ...], strict: bool, seed: int
) -> None:
    axes = {
        path: {"int": [low, low + (high - low) // step * step], "step": step}
        for path, (low, high), step in zip((K_I, N_C, N_I, K_C), ranges, steps, strict=True)
    }
    less = "<" if strict else "<="
    try:
        space = _space(axes, [f"{K_C} <= {N_C}", f"{N_I} >= {K_I}", f"{N_C} {less} {N_I}"])
    except ConfigError as err:
        assert "has no value left" in str(err)
        assume(False)
    for number in range(5):
        point = space.suggest(RandomTrial(seed + number))
        assert point[K_C] <= point[N_C] <= point[N_I] - strict
        assert point[K_I] <= point[N_I]
        for path in axes:
            assert space.axes[path].contains(point[path])
        space.config(point, seed=0)


def test_real_numbers_and_fixed_values_bind_too() -> None:
    axes = {"optim.lr": {"float": [1e-4, 1.0]}, "optim.weight_decay": {"float": [0.0, 1.0]}}
    space = _space(
        axes,
        [
            "optim.lr < optim.weight_decay",
            "optim.lr <= 0.5",
            "optim.weight_decay <= optim.momentum",
        ],
        base={"methods": ["tcpa"], "optim.momentum": 0.25},
    )
    for seed in range(50):
        point = space.suggest(RandomTrial(seed))
        assert 1e-4 <= point["optim.lr"] < point["optim.weight_decay"] <= 0.25


def test_an_inactive_axis_neither_binds_nor_is_bound() -> None:
    axes = {
        N_I: {"int": [8, 40]},
        K_I: {"int": [20, 30], "when": {"tcpa.match_tokens": True}},
        "tcpa.match_tokens": {"choice": [True, False]},
    }
    space = _space(axes, [f"{K_I} <= {N_I}"])
    points = [space.suggest(RandomTrial(seed)) for seed in range(200)]
    matched = [p for p in points if p["tcpa.match_tokens"]]
    free = [p for p in points if not p["tcpa.match_tokens"]]
    assert min(p[N_I] for p in matched) >= 20 > min(p[N_I] for p in free)
    assert all(K_I in p for p in matched) and not any(K_I in p for p in free)


def test_conditions_on_ints_and_chains_of_conditions() -> None:
    axes = {
        "methods": {"choice": [["vpt"], ["tcpa"]]},
        "vpt.prompt_dropout": {"choice": [0.0, 0.2], "when": {"vpt.deep": False}},
        "vpt.deep": {"choice": [True, False]},
        "optim.momentum": {
            "choice": [0.0, 0.5],
            "when": {"train.epochs": [3, 4], "methods": "vpt"},
        },
        "train.epochs": {"int": [1, 9]},
    }
    space = _space(axes, base={})
    seen = set()
    for seed in range(300):
        point = space.suggest(RandomTrial(seed))
        is_vpt = point["methods"] == ["vpt"]
        assert ("vpt.deep" in point) == is_vpt
        assert ("vpt.prompt_dropout" in point) == (is_vpt and not point["vpt.deep"])
        assert ("optim.momentum" in point) == (is_vpt and point["train.epochs"] in (3, 4))
        seen.add(frozenset(point))
    assert len(seen) == 5
    # tcpa: 9 lengths; vpt: deep, or shallow with 2 dropouts, and 2 momenta at 2 of the lengths
    assert space.size() == 9 + 7 * 3 + 2 * 3 * 2


def test_size_counts_what_grid_lists() -> None:
    axes = {
        "methods": {"choice": [["vpt"], ["tcpa"], ["linear"]]},
        "vpt.num_prompts": {"choice": [1, 5, 10]},
        N_C: {"int": [4, 8], "step": 2},
        K_C: {"fraction_of": N_C, "range": [0.25, 1.0]},
        "optim.lr": {"float": [0.1, 0.3], "step": 0.1},
    }
    space = _space(axes, base={}, sampler={"name": "grid"})
    points = list(space.points.grid())
    # vpt 3, tcpa: K of 4, 6, 8 from 1, 2, 2; linear 1; each with three rates
    assert space.size() == len(points) == 3 * (3 + (4 + 5 + 7) + 1)
    assert len({repr(point) for point in points}) == len(points)
    for point in points:
        space.config(point, seed=0)


def test_size_respects_constraints_and_is_none_without_an_end() -> None:
    axes = {N_C: {"int": [1, 4]}, K_C: {"int": [1, 4]}}
    assert _space(axes, [f"{K_C} <= {N_C}"]).size() == 10
    assert _space({"optim.lr": {"float": [0.1, 1.0]}}).size() is None
    assert _space({"optim.lr": {"float": [0.1, 0.1]}}).size() == 1
    huge = {N_C: {"int": [1, 1000]}, N_I: {"int": [1, 1000]}}
    fractions = {
        K_C: {"fraction_of": N_C, "range": [0.1, 1.0]},
        K_I: {"fraction_of": N_I, "range": [0.1, 1.0]},
    }
    assert _space(huge).size() == 1_000_000
    assert _space(huge | fractions).size() is None


def test_corners_hold_every_end_and_choice() -> None:
    axes = {
        "methods": {"choice": [["vpt"], ["tcpa"]]},
        "vpt.num_prompts": {"choice": [1, 5, 10]},
        N_C: {"int": [4, 8]},
        K_C: {"fraction_of": N_C, "range": [0.5, 1.0]},
        "optim.lr": {"float": [0.1, 1.0]},
    }
    corners = list(_space(axes, base={}).corners())
    assert {c.get("vpt.num_prompts") for c in corners} == {None, 1, 5, 10}
    pairs = {(c[N_C], c[K_C]) for c in corners if N_C in c}
    assert pairs == {(4, 2), (4, 4), (8, 4), (8, 8)}
    assert {c["optim.lr"] for c in corners} == {0.1, 1.0}
    assert len({repr(c) for c in corners}) == len(corners)


def test_axes_are_walked_in_dependency_order_whatever_the_file_says() -> None:
    axes = {
        K_C: {"fraction_of": N_C, "range": [0.5, 1.0]},
        N_C: {"int": [4, 8]},
        "methods": {"choice": [["tcpa"]]},
    }
    point = _space(axes, base={}).suggest(RandomTrial(0))
    assert list(point).index("methods") < list(point).index(N_C) < list(point).index(K_C)


def test_grid_sampler_accepts_a_countable_space_without_a_budget() -> None:
    space = _space({"optim.lr": {"choice": [0.1, 1.0]}}, sampler={"name": "grid"}, budget={})
    assert [point["optim.lr"] for point in space.points.grid()] == [0.1, 1.0]
    with pytest.raises(ConfigError, match="'grid' needs .* but optim.lr has too many"):
        _space({"optim.lr": {"float": [0.1, 1.0]}}, sampler={"name": "grid"})
