"""Ablation designs: which points, which cells, which of them is the baseline."""

from itertools import combinations
from math import prod
from pathlib import Path
from typing import Any

import pytest

from spaces.designs import Cell, DesignPoint
from spaces.fraction import two_level_runs
from spaces.load import load_space, space_of
from spaces.space import Space
from tcpa_core.errors import ConfigError

N_C, N_I = "tcpa.num_cls_prompts", "tcpa.num_image_prompts"
OFF = {"tcpa.split_roles": False, "tcpa.match_tokens": False}


def _space(base: dict[str, Any] | None = None, **ablation: Any) -> Space:
    base = {"methods": ["tcpa"]} | (base or {})
    return space_of({"name": "a", "base": base, "ablation": ablation})


def _cells(points: tuple[DesignPoint, ...]) -> list[list[tuple[str, str, int, bool]]]:
    return [[(c.factor, c.level, c.order, c.baseline) for c in p.cells] for p in points]


def test_one_factor_shares_its_baseline() -> None:
    space = _space(
        design="one_factor", factors={N_C: [5, 10, 20], "tcpa.mask_mode": ["post", "pre"]}
    )
    assert _cells(space.design()) == [
        [(N_C, "10", 1, True), ("tcpa.mask_mode", "post", 0, True)],
        [(N_C, "5", 0, False)],
        [(N_C, "20", 2, False)],
        [("tcpa.mask_mode", "pre", 1, False)],
    ]
    assert [point.point[N_C] for point in space.design()] == [10, 5, 20, 10]


def test_the_baseline_is_the_base_unless_named() -> None:
    factors = {N_C: [4, 8], "optim.lr": [0.1, 0.2]}
    space = _space({N_C: 8}, design="one_factor", factors=factors, baseline={"optim.lr": 0.2})
    assert space.design()[0].point == {N_C: 8, "optim.lr": 0.2}


def test_full_factorial_fills_each_factor_and_the_combination() -> None:
    space = _space(design="full_factorial", factors={N_C: [5, 10], N_I: [10, 20]}, seeds=2)
    points = space.design()
    assert len(points) == 8
    assert space.size() == 4
    assert _cells(points)[1] == [
        (N_C, "5", 0, False),
        (N_I, "20", 1, True),
        ("combination", f"{N_C}=5, {N_I}=20", 1, False),
    ]
    assert [p.cells[-1].baseline for p in points] == [False, False, False, True] * 2


def test_components_may_add_up_or_stand_alone() -> None:
    rows = {"VPT": OFF, "R": {"tcpa.split_roles": True}, "R+T": {"tcpa.match_tokens": True}}
    summed = _space(design="components", rows=rows, cumulative=True).design()
    assert [p.point for p in summed] == [
        OFF,
        {"tcpa.split_roles": True, "tcpa.match_tokens": False},
        {"tcpa.split_roles": True, "tcpa.match_tokens": True},
    ]
    alone = _space(OFF, design="components", rows=rows, baseline="R").design()
    assert [p.point for p in alone] == list(rows.values())
    assert _cells(alone) == [
        [("components", "VPT", 0, False)],
        [("components", "R", 1, True)],
        [("components", "R+T", 2, False)],
    ]


def test_a_row_may_be_empty_and_choose_other_methods() -> None:
    rows = {"TCPA": None, "VPT": {"methods": ["vpt"], "vpt": {"num_prompts": 30}}}
    space = _space({N_C: 4}, design="components", rows=rows)
    configs = [space.config(p.point, p.seed) for p in space.design()]
    assert [c.methods for c in configs] == [("tcpa",), ("vpt",)]
    assert configs[1].flat()["vpt.num_prompts"] == 30
    assert space.design()[0].cells[0].baseline


def test_leave_one_out_takes_one_thing_away_from_the_base() -> None:
    rows = {"roles": {"tcpa.split_roles": False}, "matching": {"tcpa.match_tokens": False}}
    points = _space(design="leave_one_out", rows=rows).design()
    assert [p.point for p in points] == [{}, *rows.values()]
    assert _cells(points) == [
        [("leave_one_out", "full", 0, True)],
        [("leave_one_out", "without roles", 1, False)],
        [("leave_one_out", "without matching", 2, False)],
    ]


def test_equal_points_are_one_trial_with_all_cells() -> None:
    rows = {"plain": {}, "spelt out": {"tcpa.split_roles": True}, "off": OFF}
    space = _space(design="components", rows=rows)
    points = space.design()
    assert len(points) == space.size() == 2
    assert [cell.level for cell in points[0].cells] == ["plain", "spelt out"]
    assert [cell.baseline for cell in points[0].cells] == [True, False]


def test_seeds_go_round_by_round() -> None:
    points = _space(design="components", rows={"a": {}, "b": OFF}, seeds=[7, 3]).design()
    assert [(p.seed, p.cells[0].level) for p in points] == [(7, "a"), (7, "b"), (3, "a"), (3, "b")]


@pytest.mark.parametrize("name", ["tcpa_components", "tcpa_pools", "cvpt_design"])
def test_a_record_gives_the_same_design(name: str) -> None:
    space = load_space(name)
    again = space_of(space.as_dict(), source=space.source)
    assert again == space
    assert again.design() == space.design()


def test_settings_can_be_overridden_and_seeds_too() -> None:
    space = load_space("tcpa_components", {"train.epochs": 1, "ablation.seeds": 1})
    assert len(space.design()) == 3
    assert space.seeds == (0,)
    assert {space.config(p.point, p.seed).train.epochs for p in space.design()} == {1}


@pytest.mark.parametrize(
    ("overrides", "pattern"),
    [
        ({"tcpa.split_roles": True}, r"tcpa.split_roles is varied by the ablation"),
        ({"sampler.name": "tpe"}, r"an ablation has no 'sampler' \(--set sampler.name\)"),
        ({"seeds": 2}, r"stand under ablation.seeds \(--set seeds\)"),
        ({"ablation.seeds": 0}, r"ablation.seeds must be a count .* \(--set ablation.seeds\)"),
    ],
)
def test_overrides_that_do_not_fit(overrides: dict[str, Any], pattern: str) -> None:
    with pytest.raises(ConfigError, match=pattern):
        load_space("tcpa_components", overrides)


def test_corners_of_an_ablation_are_its_points() -> None:
    space = load_space("tcpa_components")
    assert list(space.corners()) == [p.point for p in space.design()[:3]]
    assert isinstance(space.design()[0].cells[0], Cell)


@pytest.mark.parametrize("count", range(2, 17))
def test_fractions_have_resolution_four(count: int) -> None:
    """No product of one, two or three columns is constant: effects up to pairs stay apart."""
    runs = [[2 * bit - 1 for bit in run] for run in two_level_runs(count)]
    assert runs[0] == [-1] * count
    assert len(runs) >= 2 * count
    for size in (1, 2, 3):
        for columns in combinations(range(count), size):
            assert sum(prod(run[c] for c in columns) for run in runs) == 0


def test_a_fraction_starts_at_the_baseline() -> None:
    factors: dict[str, list[Any]] = {
        N_C: [5, 10],
        N_I: [20, 10],
        "tcpa.prompt_dropout": [0.0, 0.1],
        "optim.lr": [1e-3, 1e-2],
    }
    space = _space(
        design="fractional_factorial", factors=factors, seeds=[0],
        baseline={N_C: 10, N_I: 20, "tcpa.prompt_dropout": 0.1, "optim.lr": 1e-3},
    )  # fmt: skip
    points = space.design()
    assert len(points) == 8
    first = {cell.factor: cell for cell in points[0].cells}
    assert all(cell.baseline for cell in first.values())
    for path in factors:
        levels = [c.level for p in points for c in p.cells if c.factor == path]
        assert sorted(levels.count(level) for level in set(levels)) == [4, 4]


def test_components_are_added_one_by_one() -> None:
    points = _space(
        design="add_one_in", rows={"a": OFF, "b": {"optim.lr": 0.5}}, seeds=[0]
    ).design()
    assert [p.cells[0].level for p in points] == ["base", "with a", "with b"]
    assert [p.cells[0].baseline for p in points] == [True, False, False]


def test_a_design_runs_on_every_dataset() -> None:
    datasets = {"small": {"data.split_seed": 1}, "wide": {"optim.lr": 0.5}}
    rows = {"a": {}, "b": OFF}
    space = _space(design="components", rows=rows, datasets=datasets, seeds=2)
    points = space.design()
    assert len(points) == 8 and space.size() == 4
    assert [p.point for p in points[:4]] == [
        datasets["small"],
        datasets["small"] | OFF,
        datasets["wide"],
        datasets["wide"] | OFF,
    ]
    assert [p.cells[0].dataset for p in points[:4]] == ["small", "small", "wide", "wide"]
    assert (
        _cells(points)[:2]
        == _cells(points)[2:4]
        == [
            [("components", "a", 0, True)],
            [("components", "b", 1, False)],
        ]
    )
    assert space.config(points[3].point, 0).optim.lr == 0.5
    assert space_of(space.as_dict(), source=space.source) == space


def test_every_design_goes_over_datasets() -> None:
    datasets = {"a": {"train.epochs": 2}, "b": {"train.epochs": 3}}
    factors = {N_C: [5, 10], N_I: [10, 20]}
    for design in ("one_factor", "full_factorial", "fractional_factorial"):
        alone = _space(design=design, factors=factors)
        both = _space(design=design, factors=factors, datasets=datasets)
        assert len(both.design()) == 2 * len(alone.design()), design
        assert {c.dataset for p in both.design() for c in p.cells} == {"a", "b"}
    for design in ("leave_one_out", "add_one_in"):
        points = _space(design=design, rows={"R": OFF}, datasets=datasets).design()
        assert [(p.cells[0].dataset, p.cells[0].baseline) for p in points] == [
            ("a", True), ("a", False), ("b", True), ("b", False)]  # fmt: skip


def test_what_a_dataset_sets_cannot_be_fixed_elsewhere(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(
        "name: a\nbase: {methods: [tcpa]}\nablation:\n  design: one_factor\n"
        "  factors: {tcpa.num_cls_prompts: [4, 10]}\n"
        "  datasets: {x: {optim.lr: 0.1}, y: {optim.lr: 0.2}}\n"
    )
    with pytest.raises(ConfigError, match="optim.lr is varied by the ablation and cannot be fixed"):
        load_space(str(file), {"optim.lr": 0.3})
    assert len(load_space(str(file), {"train.epochs": 2}).design()) == 4


def test_the_winner_of_a_search_is_the_base_of_a_design(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(
        "name: a\nbase: {methods: [tcpa], optim.lr: 0.1}\n"
        "ablation: {design: one_factor, factors: {tcpa.num_cls_prompts: [4, 8]}}\n"
    )
    winner = {"methods": ["tcpa"], N_C: 8, "optim.lr": 0.02}
    space = load_space(str(file), {"train.epochs": 3}, (winner, "--from best"))
    first = space.design()[0]
    assert (first.point, first.cells[0].baseline) == ({N_C: 8}, True)
    config = space.config(first.point, 0)
    assert (config.optim.lr, config.train.epochs) == (0.02, 3)
    with pytest.raises(
        ConfigError, match="baseline tcpa.num_cls_prompts = 5 is not one of its lev"
    ):
        load_space(str(file), {}, ({"methods": ["tcpa"], N_C: 5}, "--from b"))
    with pytest.raises(ConfigError, match=r"num_cls_prompts belongs to method 'tcpa'.*never chos"):
        load_space(str(file), {}, ({"methods": ["vpt"], N_C: 8}, "--from b"))
