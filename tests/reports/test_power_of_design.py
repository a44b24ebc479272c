"""What a planned design will see, from journals of earlier studies."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from reports.power import Design, Power, power_of
from reports.statistics.power import Spread, between, seen_by_data_sets, seen_by_seeds, spread_of
from tcpa_core.errors import StudyError
from tests.reports.studies import SPACE, cell, final, over_datasets, planned, write

ROWS = {"VPT": 0.7, "+R": 0.72, "+T": 0.69}


def values(seed: int, seeds: int = 4, noise: float = 0.01) -> dict[str, list[float]]:
    """Three rows by seed."""
    random = np.random.default_rng(seed)
    common = random.normal(0, 0.05, seeds)
    return {row: list(mean + common + random.normal(0, noise, seeds))
            for row, mean in ROWS.items()}  # fmt: skip


def pilot(folder: Path, data: Mapping[str, Mapping[str, Sequence[float]]]) -> Path:
    """An ablation of these rows on these data sets."""
    return write(folder, over_datasets(data), "ablation")


def asked(folders: Sequence[Path], *datasets: str, seeds: int = 5, comparisons: int = 1) -> Power:
    design = Design("val_accuracy", datasets, seeds, comparisons)
    return power_of(design, folders, is_named=False)


def test_seeds_of_one_data_set(tmp_path: Path) -> None:
    found = values(0)
    power = asked([pilot(tmp_path / "pilot", {"svhn": found})], "svhn", comparisons=2)
    expected = spread_of({row: dict(enumerate(one)) for row, one in found.items()})
    assert expected is not None and expected.df == 6
    assert power.by_data["svhn"].value == pytest.approx(expected.value)
    text = "\n".join(power.lines())
    seen = re.search(r"5 seeds see ([0-9.]+) points, ([0-9]+) would see ([0-9.]+) points", text)
    assert seen is not None
    difference = seen_by_seeds(expected, 5)
    assert float(seen[1]) == pytest.approx(100 * difference, abs=0.051)
    assert float(seen[3]) == pytest.approx(50 * difference, abs=0.051)
    need = int(seen[2])
    assert seen_by_seeds(expected, need) <= difference / 2 < seen_by_seeds(expected, need - 1)
    certain = 100 * seen_by_seeds(Spread(expected.value, math.inf), 5)
    assert f"were it certain, 5 seeds would see {certain:.1f} points" in text
    family = 100 * seen_by_seeds(expected, 5, 0.025)
    assert f"after Holm over 2 comparisons at most {family:.1f} points" in text
    (data,) = power.document()["data"]
    by_seeds = {one["seeds"]: one["difference"] for one in data["seen"]}
    assert by_seeds[5] == pytest.approx(difference) and set(by_seeds) == {3, 5, 10, 20}
    assert "1 seed sees nothing" in "\n".join(asked([tmp_path / "pilot"], "svhn", seeds=1).lines())


def test_over_data_sets(tmp_path: Path) -> None:
    random = np.random.default_rng(9)
    data = {}
    for number in range(7):
        found = values(number)
        moved = {row: random.normal(0, 0.03) for row in ROWS}
        data[f"set{number}"] = {r: [v + moved[r] for v in one] for r, one in found.items()}
    power = asked([pilot(tmp_path / "pilot", data)], *data)
    assert power.of_data is not None
    # of two rows against the first one, each moved by as much
    assert power.of_data.value == pytest.approx(0.03 * math.sqrt(2), rel=0.4)
    assert power.of_data.df == 12
    (first, *_) = power.document()["across"]
    df = sum(one.df for one in power.by_data.values())
    of_seeds = math.sqrt(sum(s.df * s.value**2 for s in power.by_data.values()) / df)
    spread = between(power.of_data, Spread(of_seeds, df), 5)
    assert (first["data_sets"], first["seeds"]) == (7, 5)
    assert first["difference"] == pytest.approx(seen_by_data_sets(spread, 7))
    few = asked([tmp_path / "pilot"], "set0", "set1")
    assert "2 see nothing (Wilcoxon's test needs 6)" in few.lines()[-1]


def test_rows_of_several_studies_on_one_data_set_are_compared(tmp_path: Path) -> None:
    """The cells of a bench have one method each."""
    found = values(3)
    folders = [pilot(tmp_path / str(k), {"dtd": {row: found[row]}}) for k, row in enumerate(found)]
    power = asked(folders, "dtd")
    expected = spread_of({row: dict(enumerate(one)) for row, one in found.items()})
    assert expected is not None
    assert power.by_data["dtd"].value == pytest.approx(expected.value)
    assert power.sources == ("0", "1", "2")


def test_of_a_search_the_best_points_count(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    events, rows = [], {}
    for point in range(8):
        noise = 0.005 if point < 5 else 0.2  # bad settings spread more
        for seed in range(3):
            value = 0.9 - 0.01 * point - (0.3 if point > 4 else 0) + random.normal(0, noise)
            rows.setdefault(str(point), {})[seed] = value
            events += [planned(len(events) // 2, seed=seed, optim__lr=0.01 * (point + 1),
                               data__name="digits"),
                       final(len(events) // 2, "completed", value)]  # fmt: skip
    folder = write(tmp_path / "s", events, space={**SPACE, "seeds": [0, 1, 2]})
    expected = spread_of({name: rows[name] for name in list(rows)[:5]})
    assert expected is not None
    assert asked([folder], "digits").by_data["digits"].value == pytest.approx(expected.value)


def test_other_data_count_only_where_none_is_on_the_planned(tmp_path: Path) -> None:
    folders = [
        pilot(tmp_path / "a", {"svhn": values(1)}),
        pilot(tmp_path / "b", {"dtd": values(2)}),
    ]
    assert list(asked(folders, "dtd").by_data) == ["dtd"]
    other = asked(folders, "pets")
    assert list(other.by_data) == ["other data"] and other.by_data["other data"].df == 12
    assert "No earlier study is on pets" in other.notes[0]
    assert asked(folders, "dtd", "pets").notes == ("No earlier study is on pets.",)


def test_what_tells_nothing_is_said_or_refused(tmp_path: Path) -> None:
    one_seed = pilot(tmp_path / "one", {"svhn": values(1, seeds=1)})
    nothing = asked([one_seed], "svhn")
    assert nothing.lines() == list(nothing.notes) and "A pilot tells" in nothing.notes[0]
    with pytest.raises(StudyError, match=r"--pilot one: no two settings .* for two seeds"):
        power_of(Design("val_accuracy", ("svhn",), 3), [one_seed], is_named=True)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "study.yaml").write_text("kind: search")
    good = pilot(tmp_path / "good", {"svhn": values(1)})
    assert asked([tmp_path / "bad", good], "svhn").sources == ("good",)
    with pytest.raises(StudyError, match="--pilot bad"):
        power_of(Design("val_accuracy", ("svhn",), 3), [tmp_path / "bad"], is_named=True)


def test_other_backbones_count_only_by_name(tmp_path: Path) -> None:
    events = []
    for row, found in values(4).items():
        for seed, value in enumerate(found):
            at = [cell("components", row, 0, row == "VPT")]
            number = len(events) // 2
            events.append(planned(number, seed=seed, cells=at, row=row, data__name="digits",
                                  backbone__name="vit_nano"))  # fmt: skip
            events.append(final(number, "completed", value))
    folder = write(tmp_path / "nano", events, "ablation")
    settings = [{"data.name": "digits", "backbone.name": name} for name in ("vit_b", "vit_nano")]
    for config, is_found in zip(settings, (False, True), strict=True):
        design = Design.of("val_accuracy", [config], 3, 1)
        assert bool(power_of(design, [folder], is_named=False).by_data) is is_found
        assert power_of(design, [folder], is_named=True).by_data
