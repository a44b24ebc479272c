"""Counts of pixels: what follows from them, and the file that keeps them."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tcpa_core.errors import RecordError
from tcpa_core.record.regions import (
    IGNORED,
    MapScores,
    Regions,
    Shown,
    SplitRegions,
    read_regions,
    write_regions,
)
from tests.tcpa_core.maps import counted, slow_scores

NAMES = ("sky", "road", "tree", "bicyclist")


def masks(
    seed: int, count: int = 3, classes: int = 4, absent: tuple[int, ...] = ()
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Truths with ignored pixels, and predictions, of different sizes."""
    rng = np.random.default_rng(seed)
    truths, found = [], []
    some = [c for c in range(classes) if c not in absent]
    for n in range(count):
        shape = (5 + n, 7)
        truth = rng.choice([*some, IGNORED], shape).astype(np.uint8)
        truths.append(truth)
        found.append(np.where(rng.random(shape) < 0.4, truth, rng.choice(some, shape)) % IGNORED)
    return truths, [np.where(f < classes, f, some[0]).astype(np.uint8) for f in found]


def regions(seed: int = 0) -> Regions:
    splits = {name: counted(*masks(seed + n), len(NAMES)) for n, name in enumerate(("val", "test"))}
    return Regions(NAMES, splits, {2: Shown(b"jpeg", b"png", b""), 0: Shown(b"", b"2", b"three")})


@pytest.mark.parametrize("absent", [(), (1,), (0, 2)])
def test_scores_equal_those_of_literal_loops(absent: tuple[int, ...]) -> None:
    truths, found = masks(3, absent=absent)
    split = counted(truths, found, 4)
    scores = slow_scores(truths, found, 4)
    assert split.scores == pytest.approx(scores, abs=1e-12)
    assert np.isnan(split.class_iou).tolist() == [c in absent for c in range(4)]
    assert np.nanmean(split.class_iou) == pytest.approx(scores[0])
    for n in range(len(truths)):
        alone = slow_scores(truths[n : n + 1], found[n : n + 1], 4)
        assert split.picture_iou[n] == pytest.approx(alone[0])


def test_a_class_that_is_only_predicted_counts_and_one_that_is_only_ignored_does_not() -> None:
    truth = np.array([[0, 0, IGNORED, IGNORED]], np.uint8)
    split = counted([truth], [np.array([[0, 1, 2, 1]], np.uint8)], 3)
    assert split.predicted.tolist() == [[1, 1, 0]]
    assert split.scores == pytest.approx((1 / 4, 1 / 2, 1 / 2))  # IoU 1/2 and 0; recall of 0 alone
    assert [math.isnan(x) for x in split.class_iou] == [False, False, True]


def test_nothing_labelled_scores_zero() -> None:
    assert MapScores.of(np.zeros((3, 3), np.int64)) == (0.0, 0.0, 0.0)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "regions.safetensors"
    wanted = regions()
    write_regions(path, wanted)
    found = read_regions(path)
    assert found.class_names == wanted.class_names
    assert list(found.pictures.items()) == list(wanted.pictures.items())  # the worst first
    assert found.splits.keys() == wanted.splits.keys()
    for name, split in wanted.splits.items():
        assert list(found.splits[name].keys) == list(split.keys)
        for part in ("hits", "labelled", "predicted", "confusion"):
            assert np.array_equal(getattr(found.splits[name], part), getattr(split, part))


def _torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def _altered(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("damage", [_torn, _altered])
def test_a_damaged_file_is_refused(damage: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "regions.safetensors"
    write_regions(path, regions())
    damage(path)
    with pytest.raises(RecordError, match="cannot be read"):
        read_regions(path)
    with pytest.raises(FileNotFoundError):
        read_regions(tmp_path / "none")


@pytest.mark.parametrize(
    ("part", "change", "why"),
    [
        ("hits", lambda x: x[:-1], "different lengths"),
        ("confusion", lambda x: x[:, :-1], "different lengths"),
        ("labelled", lambda x: -x, "other numbers than counts"),
        ("predicted", lambda x: x.astype(np.float64), "other numbers than counts"),
        ("confusion", lambda x: x + 1, "do not add up"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(
    part: str, change: Callable[[np.ndarray], np.ndarray], why: str, tmp_path: Path
) -> None:
    split = regions().splits["test"]
    parts = {name: getattr(split, name) for name in ("hits", "labelled", "predicted", "confusion")}
    broken = SplitRegions(split.keys, **{**parts, part: change(parts[part])})
    path = tmp_path / "regions.safetensors"
    write_regions(path, Regions(NAMES, {"test": broken}, {}))
    assert "test.hits" in load_file(path)
    with pytest.raises(RecordError, match=why):
        read_regions(path)
