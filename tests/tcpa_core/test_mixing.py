"""Mixup, CutMix and random erasing: timm's pictures for the same draws; the same batches for a
member whatever its neighbours are."""

import math
import random
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm.data.mixup
import timm.data.random_erasing
import torch
from torch import Tensor

from tcpa_core.config import TrialConfig
from tcpa_core.methods.base import Mixing, Step
from tcpa_core.streams import Stream
from tcpa_core.training.mixing import EMPTY, erased_boxes, mix, mixings
from tcpa_core.training.timm_draws import drawing_from, timm_module

SIDE, CLASSES = 16, 5
CPU = torch.device("cpu")
BOTH = {"train.mixup_alpha": 0.8, "train.cutmix_alpha": 1.0, "train.mixup_prob": 1.0}


def config(seed: int = 0, **paths: Any) -> TrialConfig:
    return TrialConfig.from_flat(
        {"seed": seed} | {k.replace("__", "."): v for k, v in paths.items()}
    )


def drawn(configs: Sequence[TrialConfig], steps: int, batch: int = 6) -> Sequence[Mixing]:
    streams = [Stream(c.seed) for c in configs]
    at = [[step] * len(configs) for step in range(steps)]
    return mixings(configs, streams, at, batch=batch, side=SIDE, device=CPU)


def batch_of(members: int, batch: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(members, batch, 3, SIDE, SIDE, generator=generator)
    labels = torch.randint(CLASSES, (members, batch), generator=generator)
    return images, torch.nn.functional.one_hot(labels, CLASSES).float()


def step_of(configs: Sequence[TrialConfig], step: int = 0) -> Step:
    streams = [Stream(c.seed) for c in configs]
    return Step(
        training=True, epochs=[0] * len(configs), steps=[step] * len(configs), streams=streams
    )


def timm_draws(monkeypatch: pytest.MonkeyPatch, share: float, *, cuts: bool, place: Any) -> None:
    """Let timm's Mixup draw these."""
    uniform = iter([0.0, 0.0 if cuts else 0.9])
    numbers = SimpleNamespace(
        rand=lambda: next(uniform), beta=lambda a, b: share, randint=place, random=random
    )

    class Numpy:
        random = numbers

        def __getattr__(self, name: str) -> Any:
            return getattr(np, name)

    monkeypatch.setattr(timm.data.mixup, "np", Numpy())


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_batch_is_timms(smoothing: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images and targets of steps that mix, cut, and do neither."""
    one = config(
        3, train__label_smoothing=smoothing, **{k.replace(".", "__"): v for k, v in BOTH.items()}
    )
    kinds = set()
    for index, mixing in enumerate(drawn([one], 12)):
        images, plain = batch_of(1)
        off = smoothing / CLASSES
        targets = plain * (1 - smoothing) + off
        assert mixing.shares is not None and mixing.cut is not None
        top, bottom, left, right = mixing.cut[0].tolist()
        cuts = bottom > top
        kinds.add(cuts)
        with drawing_from(Stream(3).key("cutmix", index)) as place:
            place.random()
            randint = timm_module("timm.data.mixup").np.random.randint
            beta = np.random.default_rng(Stream(3).key("mixup", index)).beta
            share = beta(1.0, 1.0) if cuts else beta(0.8, 0.8)
            timm_draws(monkeypatch, share, cuts=cuts, place=randint)
            theirs = timm.data.mixup.Mixup(0.8, 1.0, label_smoothing=smoothing, num_classes=CLASSES)
            wanted, wanted_targets = theirs(images[0].clone(), plain[0].argmax(1))
        found, found_targets = mix([one], images, targets, step_of([one], index))
        torch.testing.assert_close(found[0], wanted, rtol=0, atol=1e-6)
        torch.testing.assert_close(found_targets[0], wanted_targets, rtol=0, atol=1e-6)
        if cuts:
            assert torch.equal(found[0], wanted), "pixels are copied, not blended"
    assert kinds == {True, False}


def test_how_often_batches_are_mixed_and_cut() -> None:
    one = config(train__mixup_alpha=0.4, train__cutmix_alpha=1.0, train__mixup_prob=0.6,
                 train__mixup_switch_prob=0.25)  # fmt: skip
    rows = drawn([one], 2000, batch=1)
    kept = torch.stack([row.shares[0, 0] for row in rows if row.shares is not None])
    cuts = torch.stack([row.cut[0, 1] > row.cut[0, 0] for row in rows if row.cut is not None])
    assert abs((kept < 1).float().mean() - 0.6) < 0.05
    assert abs(cuts.float().mean() - 0.15) < 0.03


def test_one_of_the_two_ways_alone_is_what_a_switch_at_its_end_gives() -> None:
    """Settings that change nothing, given the others, are one trial and have to draw one thing."""
    for switch, alone in ((0.0, {"train__mixup_alpha": 0.8}), (1.0, {"train__cutmix_alpha": 1.0})):
        both = config(
            train__mixup_alpha=0.8, train__cutmix_alpha=1.0, train__mixup_switch_prob=switch
        )
        other = config(**alone)
        assert both.digest("d", "w") == other.digest("d", "w")
        images, targets = batch_of(1)
        for index in range(6):
            first, second = (mix([c], images, targets, step_of([c], index)) for c in (both, other))
            assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


def test_mixup_alone_draws_what_it_always_drew() -> None:
    one = config(7, train__mixup_alpha=0.3, train__mixup_prob=0.7)
    for index, mixing in enumerate(drawn([one], 20)):
        numbers = np.random.default_rng(Stream(7).key("mixup", index))
        share = numbers.beta(0.3, 0.3)
        share = share if numbers.random() < 0.7 else 1.0
        expected = torch.tensor([[share, 1 - share]], dtype=torch.float64).float()
        assert mixing.shares is not None and torch.equal(mixing.shares, expected)
        assert mixing.cut is None and mixing.erased is None


MEMBERS = [
    config(0),
    config(1, train__mixup_alpha=0.8, train__mixup_prob=1.0),
    config(2, train__cutmix_alpha=1.0, train__mixup_prob=1.0),
    config(3, **{k.replace(".", "__"): v for k, v in BOTH.items()}),
]


@pytest.mark.parametrize("mode", ["const", "rand", "pixel"])
def test_a_member_sees_the_same_in_any_pack(mode: str) -> None:
    """And what an epoch's table says, a step by itself draws again."""
    configs = [c.replace_paths({"data.erase_prob": 0.6, "data.erase_mode": mode}) for c in MEMBERS]
    images, targets = batch_of(len(configs))
    table = drawn(configs, 4)
    for index in range(4):
        step = step_of(configs, index)
        together = mix(configs, images, targets, step)
        given = Step(**{f: getattr(step, f) for f in ("training", "epochs", "steps", "streams")},
                     mixing=table[index])  # fmt: skip
        for one, other in zip(together, mix(configs, images, targets, given), strict=True):
            assert torch.equal(one, other)
        for m, member in enumerate(configs):
            alone = mix([member], images[m : m + 1], targets[m : m + 1], step_of([member], index))
            assert torch.equal(together[0][m], alone[0][0]) and torch.equal(
                together[1][m], alone[1][0]
            )


def test_a_smaller_last_batch_takes_the_first_rectangles() -> None:
    one = config(data__erase_prob=1.0)
    images, targets = batch_of(1)
    (large,) = drawn([one], 1)
    found, _ = mix([one], images[:, :4], targets[:, :4], step_of([one]))
    step = step_of([one])
    given = Step(**{f: getattr(step, f) for f in ("training", "epochs", "steps", "streams")},
                 mixing=large)  # fmt: skip
    assert torch.equal(found, mix([one], images[:, :4], targets[:, :4], given)[0])


class Draws:
    """In place of `random`, with given numbers of [0, 1)."""

    def __init__(self, row: np.ndarray) -> None:
        self._prob, self._rest = row[0], row[1:].reshape(-1, 4)
        self._attempt, self._asked = -1, 0

    def random(self) -> float:
        return float(self._prob)

    def uniform(self, low: float, high: float) -> float:
        if self._asked % 2 == 0:
            self._attempt += 1
        self._asked += 1
        return low + (high - low) * float(self._rest[self._attempt, 1 - self._asked % 2])

    def randint(self, low: int, high: int) -> int:
        self._asked += 1
        which = 2 if self._asked % 2 else 3
        return low + math.floor(float(self._rest[self._attempt, which]) * (high - low + 1))


@pytest.mark.parametrize("side", [8, 16, 224])
def test_rectangles_are_timms(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.rand(400, 41, generator=torch.Generator().manual_seed(side)).double().numpy()
    boxes = erased_boxes(rows, 0.5, side)
    theirs = timm.data.random_erasing.RandomErasing(0.5, mode="const", device="cpu")
    for row, (top, bottom, left, right) in zip(rows, boxes.tolist(), strict=True):
        monkeypatch.setattr(timm.data.random_erasing, "random", Draws(row))
        wanted = theirs(torch.ones(3, side, side))
        found = torch.ones(3, side, side)
        found[:, top:bottom, left:right] = 0
        assert torch.equal(found, wanted)
    assert 0.4 < (boxes[:, 1] > boxes[:, 0]).mean() < 0.6


@pytest.mark.parametrize("mode", ["const", "rand", "pixel"])
def test_what_is_erased(mode: str) -> None:
    one = config(5, data__erase_prob=1.0, data__erase_mode=mode)
    images, targets = batch_of(1, 64)
    (mixing,) = drawn([one], 1, 64)
    found, same = mix([one], images, targets, step_of([one]))
    assert torch.equal(same, targets) and mixing.erased is not None
    values = []
    for image, before, box in zip(found[0], images[0], mixing.erased[0].tolist(), strict=True):
        top, bottom, left, right = box
        patch, rest = image[:, top:bottom, left:right], torch.ones_like(image, dtype=torch.bool)
        rest[:, top:bottom, left:right] = False
        assert torch.equal(image[rest], before[rest])
        if mode == "rand":
            assert (patch == patch[:, :1, :1]).all()
            patch = patch[:, :1, :1]
        values.append(patch.flatten())
    noise = torch.cat(values)
    if mode == "const":
        assert (noise == 0).all()
    else:
        assert abs(float(noise.mean())) < 0.2 and abs(float(noise.std()) - 1) < 0.2
        assert torch.isfinite(noise).all() and len(noise.unique()) > 0.9 * len(noise)


def test_nothing_is_drawn_where_nothing_is_asked_for() -> None:
    assert set(drawn([config(), config(1)], 3)) == {Mixing()}
    images, targets = batch_of(1)
    found = mix([config()], images, targets, step_of([config()]))
    assert found[0] is images and found[1] is targets
    assert EMPTY == (0, 0, 0, 0)


class TestDraws:
    def test_timm_draws_what_it_would_after_a_seed(self) -> None:
        ours = timm_module("timm.data.mixup")
        for seed in range(20):
            with drawing_from(seed):
                found = ours.cutmix_bbox_and_lam((3, 32, 32), 0.4)
            random.seed(seed)
            np.random.seed(random.getrandbits(32))
            assert found == timm.data.mixup.cutmix_bbox_and_lam((3, 32, 32), 0.4)

    def test_generators_of_the_process_stay_where_they_are(self) -> None:
        random.seed(1)
        np.random.seed(1)
        before = random.getstate(), np.random.get_state()[1].copy()
        with drawing_from(0):
            timm_module("timm.data.mixup").cutmix_bbox_and_lam((3, 32, 32), 0.4)
        assert random.getstate() == before[0]
        assert (np.random.get_state()[1] == before[1]).all()

    def test_timms_own_modules_are_left_alone(self) -> None:
        assert timm_module("timm.data.mixup") is not timm.data.mixup
        assert timm.data.mixup.np is np

    def test_nothing_is_drawn_by_accident(self) -> None:
        with pytest.raises(RuntimeError, match="outside of drawing_from"):
            timm_module("timm.data.mixup").cutmix_bbox_and_lam((3, 32, 32), 0.4)
