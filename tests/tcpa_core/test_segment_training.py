"""Segmentations from losses to files: against literal loops, alone, in packs and after a resume."""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.numpy import load_file
from torch import Tensor

from tcpa_core.config import TrialConfig
from tcpa_core.errors import ConfigError
from tcpa_core.methods.base import Step
from tcpa_core.model.backbone import Backbone
from tcpa_core.model.load_backbone import load_backbone
from tcpa_core.model.pack_model import ModelOutput, PackModel
from tcpa_core.record.files import REGIONS
from tcpa_core.record.regions import IGNORED, SIDE, MapScores, Shown, picture_iou, read_regions
from tcpa_core.record.values import EpochReport
from tcpa_core.settings import BackboneConfig
from tcpa_core.streams import Stream
from tcpa_core.training import commands, segment_evaluation, worst_pictures
from tcpa_core.training.by_rows import ByRows
from tcpa_core.training.confusion import confusion
from tcpa_core.training.estimate import memory, num_scored
from tcpa_core.training.image_source import ImageSource
from tcpa_core.training.loss import num_labelled, segmentation_loss
from tcpa_core.training.masked_source import MaskedSource
from tcpa_core.training.member import Member
from tcpa_core.training.pack import Pack
from tcpa_core.training.run_trial import run_trial
from tcpa_core.training.saved_member import restore_member, save_member
from tcpa_core.training.sliding import Grid, PictureLogits
from tcpa_core.training.trial_data import TrialData, load_trial_data
from tcpa_core.training.worker import Worker
from tests.tcpa_core.maps import confusion as slow_confusion
from tests.tcpa_core.maps import counted, slow_scores
from tests.tcpa_core.tiny import trained

CLASSES = ("a", "b", "c", "d")
SIZES = ((40, 56), (52, 36), (37, 45))
"""Heights and widths of the pictures' files."""
PACKS: dict[str, list[dict[str, Any]]] = {
    "linear": [{"seed": 0}, {"seed": 1, "optim.lr": 0.02}],
    "vpt": [{"vpt.num_prompts": 2, "seed": 2}, {"vpt.num_prompts": 5, "seed": 3}],
    "cvpt": [
        {"segment.head": "setr_pup", "segment.auxiliary_blocks": [1], "seed": s} for s in (4, 5)
    ],
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures whose colours tell the classes of large areas; some pixels have none."""
    root = tmp_path_factory.mktemp("masks")
    rng = np.random.default_rng(0)
    for split, count in (("train", 10), ("val", 4), ("test", 5)):
        for folder in (split, f"{split}annot"):
            (root / folder).mkdir()
        for i in range(count):
            height, width = SIZES[i % len(SIZES)]
            coarse = rng.choice([0, 1, 2, 3, IGNORED], (3, 3)).astype(np.uint8)
            rows, columns = np.arange(height) * 3 // height, np.arange(width) * 3 // width
            classes = coarse[rows[:, None], columns]
            shade = np.where(classes == IGNORED, 0, 1 + classes) * 50
            noise = rng.integers(0, 50, (height, width, 3))
            picture = (np.stack([shade, 255 - shade, shade // 2], -1) + noise).clip(0, 255)
            Image.fromarray(picture.astype(np.uint8)).save(root / split / f"{i}.png")
            Image.fromarray(classes).save(root / f"{split}annot" / f"{i}.png")
    (root / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    return root


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone(BackboneConfig(name="vit_nano", weights="random"))


def config(root: Path, method: str = "linear", **settings: Any) -> TrialConfig:
    paths = {key.replace("__", "."): value for key, value in settings.items()}
    return TrialConfig.from_flat(
        {
            "task.name": "segment", "segment.channels": 8, "methods": [method],
            "data.name": "segfolder", "data.root": str(root), "data.resize": "short_side",
            "data.resize_to": 36, "data.random_crop": True, "data.flip": True,
            "backbone.name": "vit_nano", "backbone.weights": "random",
            "train.batch_size": 5, "train.epochs": 2, "optim.lr": 0.01, **paths,
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def data(root: Path, cache: Path, backbone: Backbone) -> TrialData:
    return load_trial_data(config(root), backbone, cache_dir=cache)


def model_of(backbone: Backbone, *configs: TrialConfig) -> PackModel:
    return PackModel(backbone, configs, len(CLASSES)).eval()


# Losses.


def _output(*sizes: tuple[int, int], members: int = 2, batch: int = 3) -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.randn(members, batch, 4, *size) for size in sizes]


def _masks(members: int = 2, batch: int = 3, side: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    found = torch.randint(0, 5, (members, batch, side, side), generator=generator)
    return torch.where(found == 4, IGNORED, found).to(torch.uint8)


def _literal_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Mean over labelled pixels of each member's batch, pixel by pixel."""
    found = []
    for of_member, mask in zip(logits, masks, strict=True):
        whole = F.interpolate(of_member, mask.shape[-2:], mode="bilinear", align_corners=False)
        shares = whole.softmax(1)
        values = [
            -shares[n, int(mask[n, i, j]), i, j].log()
            for n, i, j in (mask != IGNORED).nonzero().tolist()
        ]
        found.append(torch.stack(values).mean())
    return torch.stack(found)


def test_the_loss_is_the_mean_over_labelled_pixels_and_auxiliary_ones_are_added() -> None:
    main, side = _output((4, 4), (2, 2))
    masks = _masks()
    out = ModelOutput(main, torch.zeros(2), [(0.4, side)], {})
    wanted = _literal_loss(main, masks) + 0.4 * _literal_loss(side, masks)
    torch.testing.assert_close(segmentation_loss(out, masks, num_labelled(masks)), wanted)


def test_losses_of_parts_add_up_whatever_is_labelled_in_them() -> None:
    (main,) = _output((4, 4))
    masks = _masks()
    masks[0, 0] = IGNORED
    whole = segmentation_loss(ModelOutput(main, main, [], {}), masks, num_labelled(masks))
    parts = [
        segmentation_loss(
            ModelOutput(main[:, rows], main, [], {}), masks[:, rows], num_labelled(masks)
        )
        for rows in (slice(0, 1), slice(1, 3))
    ]
    torch.testing.assert_close(parts[0] + parts[1], whole)


def test_a_batch_without_a_label_teaches_nothing() -> None:
    main = _output((4, 4))[0].requires_grad_()
    masks = torch.full((2, 3, 8, 8), IGNORED, dtype=torch.uint8)
    loss = segmentation_loss(ModelOutput(main, main, [], {}), masks, num_labelled(masks))
    assert loss.tolist() == [0.0, 0.0]
    loss.sum().backward()
    assert main.grad is not None and not main.grad.any()


# Counts and measures.


def _drawn(seed: int) -> tuple[Tensor, Tensor]:
    """Predictions of two members and a truth with ignored pixels."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(0, 5, (9, 7), generator=generator)
    predicted = torch.randint(0, 4, (2, 9, 7), generator=generator)
    return predicted, torch.where(truth == 4, IGNORED, truth).to(torch.uint8)


@pytest.mark.parametrize("seed", [0, 1])
def test_confusion_counts_as_a_literal_loop(seed: int) -> None:
    predicted, truth = _drawn(seed)
    found = confusion(predicted, truth, 4)
    for m in range(2):
        wanted = slow_confusion([truth.numpy()], [predicted[m].numpy()], 4)
        assert np.array_equal(found[m].numpy(), wanted)


def test_measures_equal_those_of_segmentation_models_pytorch() -> None:
    predicted, truth = _drawn(3)
    table = confusion(predicted, truth, 4)[1].numpy()
    counts = smp.metrics.get_stats(
        predicted[1][None], truth[None].long(), mode="multiclass", num_classes=4,
        ignore_index=IGNORED,
    )  # fmt: skip
    totals = [part.sum(0, keepdim=True) for part in counts]
    scores = MapScores.of(table)
    assert picture_iou(table) == pytest.approx(
        float(smp.metrics.iou_score(*totals, reduction="macro"))
    )
    assert scores.miou == picture_iou(table)
    assert scores.mean_accuracy == pytest.approx(
        float(smp.metrics.recall(*totals, reduction="macro"))
    )
    assert scores.accuracy == pytest.approx(float(smp.metrics.recall(*totals, reduction="micro")))


# Windows and scales.


def literal_logits(model: PackModel, picture: Tensor, window: int | None, stride: int) -> Tensor:
    """Logits (M, C, h, w) of a picture (3, h, w), window by window."""
    members, (height, width) = model.num_members, picture.shape[-2:]
    high, wide = window or height, window or width
    sums = torch.zeros(members, len(CLASSES), height, width)
    counts = torch.zeros(height, width)
    for i in range(max(height - high + stride - 1, 0) // stride + 1):
        for j in range(max(width - wide + stride - 1, 0) // stride + 1):
            bottom, right = min(i * stride + high, height), min(j * stride + wide, width)
            top, left = max(bottom - high, 0), max(right - wide, 0)
            cut = picture[:, top:bottom, left:right]
            patch = model.backbone.layout.patch_size[0]
            size = [-(-side // patch) * patch for side in cut.shape[-2:]]
            filled = torch.zeros(3, *size)
            filled[:, : cut.shape[1], : cut.shape[2]] = cut
            for m in range(members):
                alone = filled.expand(members, 1, *filled.shape)
                logits = model.predict(alone, Step.evaluation(members))[m]
                whole = F.interpolate(logits, size, mode="bilinear", align_corners=False)[0]
                sums[m, :, top:bottom, left:right] += whole[:, : bottom - top, : right - left]
            counts[top:bottom, left:right] += 1
    return sums / counts


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ({"segment__stride": 20}, (36, 50)),
        ({}, (33, 90)),
        ({}, (20, 70)),  # lower than a window
        ({"segment__window": "whole"}, (36, 50)),
    ],
)
def test_windows_equal_a_literal_loop(
    settings: dict[str, Any], shape: tuple[int, int], root: Path, backbone: Backbone
) -> None:
    configs = [config(root, "vpt", seed=m, **settings) for m in range(2)]
    model = model_of(backbone, *configs)
    pictures = [torch.randn(3, *shape) for _ in range(2)]
    grid = Grid.of_trial(configs[0], backbone.img_size)
    assert grid.stride == settings.get("segment__stride", backbone.img_size * 2 // 3)
    with torch.no_grad():
        found = PictureLogits(model)(pictures, 3)
        for one, picture in zip(found, pictures, strict=True):
            wanted = literal_logits(model, picture, grid.window, grid.stride)
            torch.testing.assert_close(one, wanted, atol=1e-5, rtol=1e-5)


def _enlarged(logits: Tensor, shape: Sequence[int]) -> Tensor:
    return F.interpolate(logits, tuple(shape), mode="bilinear", align_corners=False)


def test_scores_equal_literal_loops_at_the_size_of_the_masks(
    root: Path, backbone: Backbone, data: TrialData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on several scales, mirrored: softmax is averaged, as mmsegmentation's aug_test does."""
    monkeypatch.setattr(worst_pictures, "WORST", 3)
    scales = [0.5, 1.25]
    configs = [config(root, "vpt", seed=m, segment__test_scales=scales) for m in range(2)]
    model, source = model_of(backbone, *configs), data.masked("test")
    found = segment_evaluation.SegmentEvaluation(data, ByRows(lambda: None)).test(model)
    truths, side = [source.truth(n).numpy() for n in range(len(source))], backbone.img_size
    plain: list[Tensor] = []
    several: list[Tensor] = []
    for n, truth in enumerate(truths):
        picture = source.picture(n)
        plain.append(_enlarged(_literal(model, picture, side), truth.shape))
        several.append(torch.zeros_like(plain[-1]))
        for scale in scales:
            size = [int(length * scale + 0.5) for length in picture.shape[-2:]]
            scaled = _enlarged(picture[None], size)[0]
            several[-1] += _enlarged(_literal(model, scaled, side), truth.shape).softmax(1)
            turned = _literal(model, scaled.flip(2), side)
            several[-1] += _enlarged(turned, truth.shape).softmax(1).flip(3)
    for m, one in enumerate(found):
        classes, averaged = (
            [x[m].argmax(0).numpy() for x in logits] for logits in (plain, several)
        )
        scores = slow_scores(truths, classes, len(CLASSES))
        assert (one.miou, one.mean_accuracy, one.accuracy) == pytest.approx(scores)
        assert one.miou_multiscale == pytest.approx(slow_scores(truths, averaged, len(CLASSES))[0])
        losses = [_literal_losses(x[m], truth) for x, truth in zip(plain, truths, strict=True)]
        assert one.loss == pytest.approx(float(torch.cat(losses).mean()), rel=1e-4)
        assert one.counts is not None
        wanted = counted(truths, classes, len(CLASSES))
        for part in ("hits", "labelled", "predicted", "confusion"):
            assert np.array_equal(getattr(one.counts, part).numpy(), getattr(wanted, part))
        assert list(one.pictures) == np.argsort(wanted.picture_iou, kind="stable")[:3].tolist()
        _check_shown(one.pictures, source, classes)


def _literal(model: PackModel, picture: Tensor, side: int) -> Tensor:
    with torch.no_grad():
        return literal_logits(model, picture, side, side * 2 // 3)


def _literal_losses(logits: Tensor, truth: np.ndarray) -> Tensor:
    """Cross-entropy of the labelled pixels of a picture."""
    labelled = torch.from_numpy(truth != IGNORED)
    target = torch.from_numpy(truth).long()[labelled]
    return F.cross_entropy(logits[:, labelled].T, target, reduction="none")


def _check_shown(shown: Mapping[int, Shown], source: MaskedSource, found: list[np.ndarray]) -> None:
    for n, files in shown.items():
        picture, truth, prediction = (Image.open(io.BytesIO(file)) for file in files)
        assert picture.format == "JPEG" and truth.format == prediction.format == "PNG"
        assert truth.mode == prediction.mode == "P" and max(picture.size) <= SIDE
        # As they are, since they are smaller than SIDE.
        assert np.array_equal(np.asarray(truth), source.truth(n).numpy())
        assert np.array_equal(np.asarray(prediction), found[n])
        pixels = source.unnormalised(source.picture(n)).permute(1, 2, 0).numpy()
        assert picture.size == truth.size  # side by side, whatever shape trials see pictures in
        seen = np.asarray(picture.resize((pixels.shape[1], pixels.shape[0])))
        assert np.abs(seen.astype(int) - pixels).mean() < 20


def test_every_pass_over_windows_gives_a_sign_of_life(
    root: Path, backbone: Backbone, data: TrialData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A watchdog takes a worker for hung that gives none, and many scales take long."""
    signs: list[str] = []
    predict = PackModel.predict

    def told(self: PackModel, *args: Any) -> Tensor:
        signs.append("pass")
        return predict(self, *args)

    monkeypatch.setattr(PackModel, "predict", told)
    evaluation = segment_evaluation.SegmentEvaluation(data, ByRows(lambda: signs.append("sign")))
    evaluation.test(model_of(backbone, config(root, segment__test_scales=[0.5, 1.0])))
    after = [two for one, two in zip(signs, signs[1:], strict=False) if one == "pass"]
    assert signs[0] == "sign" and len(after) > 4 * len(data.test) and set(after) == {"sign"}


def test_large_masks_are_shown_small() -> None:
    mask = torch.zeros(400, 1000, dtype=torch.uint8)
    mask[200:, 500:] = 7
    found = np.asarray(Image.open(io.BytesIO(worst_pictures.png(worst_pictures.small(mask)))))
    assert found.shape == (64, SIDE) and set(np.unique(found)) == {0, 7}
    assert (found[32:, 80:] == 7).all() and not found[:32].any()


def test_how_much_is_computed_at_a_time_changes_no_count(
    root: Path, backbone: Backbone, data: TrialData, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(backbone, *(config(root, "vpt", seed=m) for m in range(3)))

    def counts() -> list[Tensor]:
        evaluation = segment_evaluation.SegmentEvaluation(data, ByRows(lambda: None))
        return [of_member.confusion for of_member in evaluation.score(model, "val").counts]

    wanted = counts()
    monkeypatch.setattr(segment_evaluation, "VALUES", 1)
    for one, two in zip(counts(), wanted, strict=True):
        assert int((one - two).abs().sum()) <= 2  # a pixel on the edge of two classes


# Packs, resumes, trials.


def _run(pack: Pack, members: list[Member], epochs: int) -> list[Member]:
    for _ in range(epochs):
        members = trained(pack.run_epoch(members))
    return members


@pytest.mark.parametrize("name", PACKS)
def test_members_equal_their_solo_runs(
    name: str, root: Path, backbone: Backbone, data: TrialData
) -> None:
    configs = [config(root, name).replace_paths(settings) for settings in PACKS[name]]
    pack = Pack(backbone, data)
    members = [pack.new_member(str(m), one) for m, one in enumerate(configs)]
    together = _run(pack, members, 2)
    for one, packed in zip(configs, together, strict=True):
        (alone,) = _run(Pack(backbone, data), [pack.new_member("alone", one)], 2)
        for mine, other in zip(alone.reports, packed.reports, strict=True):
            _check_same(mine, other)
        for key, tensor in alone.state.items():
            torch.testing.assert_close(packed.state[key], tensor, rtol=1e-3, atol=1e-4)


def _check_same(solo: EpochReport, packed: EpochReport) -> None:
    for name in ("train_loss", "ce_loss", "val_loss"):
        assert getattr(packed, name) == pytest.approx(getattr(solo, name), rel=1e-4)
    for name in ("val_miou", "val_mean_accuracy", "val_accuracy"):
        assert getattr(packed, name) == pytest.approx(getattr(solo, name), abs=2e-3)


@pytest.mark.parametrize("name", PACKS)
def test_resume_is_bit_exact(
    name: str, root: Path, backbone: Backbone, data: TrialData, tmp_path: Path
) -> None:
    one = config(root, name).replace_paths(PACKS[name][-1])
    straight = Pack(backbone, data)
    (member,) = _run(straight, [straight.new_member("t", one)], 2)
    first = Pack(backbone, data)
    (halted,) = _run(first, [first.new_member("t", one)], 1)
    save_member(halted, tmp_path, backbone, data)
    (resumed,) = _run(Pack(backbone, data), [restore_member(tmp_path, "t", one)], 1)
    for key, tensor in member.state.items():
        assert torch.equal(tensor, resumed.state[key]), key
    assert member.selected and resumed.selected
    assert member.selected.val_miou == resumed.selected.val_miou
    assert [r.val_miou for r in member.reports] == [r.val_miou for r in resumed.reports]
    assert resumed.selected.val_counts is not None and member.selected.val_counts is not None
    for mine, other in zip(member.selected.val_counts, resumed.selected.val_counts, strict=True):
        assert torch.equal(mine, other)


def test_a_member_taken_up_after_its_last_epoch_is_what_it_was(
    root: Path, backbone: Backbone, data: TrialData, tmp_path: Path
) -> None:
    pack = Pack(backbone, data)
    (member,) = _run(pack, [pack.new_member("t", config(root, train__epochs=1))], 1)
    save_member(member, tmp_path, backbone, data)
    found = restore_member(tmp_path, "t", member.config).selected
    assert found and member.selected and found.val_counts and member.selected.val_counts
    for field in ("epoch", "val_miou", "val_mean_accuracy", "val_accuracy", "val_loss"):
        assert getattr(found, field) == getattr(member.selected, field)
    for mine, other in zip(found.val_counts, member.selected.val_counts, strict=True):
        assert torch.equal(mine, other)


def test_a_trial_learns_is_selected_by_miou_and_leaves_its_regions(
    root: Path, cache: Path, tmp_path: Path
) -> None:
    one = config(root, "vpt", train__epochs=6, optim__lr=0.02, segment__test_scales=[1.0])
    reports: list[EpochReport] = []
    result = run_trial(one, on_epoch=reports.append, folder=tmp_path, cache_dir=cache)
    assert result.status == "completed" and result.best_epoch is not None
    mious = [report.val_miou or 0.0 for report in reports]
    assert result.val_miou == mious[result.best_epoch - 1] == max(mious) > mious[0]
    found = read_regions(tmp_path / REGIONS)
    assert found.class_names == CLASSES
    for name, split in found.splits.items():
        scores = split.scores
        assert scores.miou == getattr(result, f"{name}_miou")
        assert scores.mean_accuracy == getattr(result, f"{name}_mean_accuracy")
        assert scores.accuracy == getattr(result, f"{name}_accuracy")
    assert found.splits.keys() == {"val", "test"} and len(found.pictures) == 5
    assert result.test_miou_multiscale is not None
    assert result.train_flops_per_image and result.activation_bytes_per_image
    assert result.train_flops_per_image > (result.flops_per_image or 0)


def test_a_worker_tells_and_tests_as_a_run_alone_does(
    root: Path, cache: Path, tmp_path: Path
) -> None:
    one = config(root, "vpt")
    alone = run_trial(one, cache_dir=cache)
    worker = Worker(tmp_path, cache, "cpu")
    worker.take(commands.Submit(trial="t", params=one.flat(), until_epoch=2, test_at_end=True))
    events = [event.as_dict() for event in _drained(worker)]
    (ended,) = (event for event in events if event["kind"] == "completed")
    epochs = [event["val_miou"] for event in events if event["kind"] == "epoch"]
    assert ended["val_miou"] == alone.val_miou == max(epochs)
    assert ended["test_miou"] == alone.test_miou
    assert ended["test_mean_accuracy"] == alone.test_mean_accuracy
    assert "test_miou_multiscale" not in ended
    folder = tmp_path / "checkpoints" / "t"
    first = _tensors(folder / REGIONS)
    (folder / REGIONS).unlink()
    worker.take(commands.Test(trial="t", params=one.flat()))
    (tested,) = (event.as_dict() for event in _drained(worker))
    assert tested["test_miou"] == alone.test_miou and _tensors(folder / REGIONS) == first


def _tensors(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """What a file holds: safetensors writes the pairs about it in no order of their own."""
    return {
        name: (tensor.dtype.str, tensor.shape, tensor.tobytes())
        for name, tensor in load_file(path).items()
    }


def _drained(worker: Worker) -> list[Any]:
    events: list[Any] = []
    while not worker.idle:
        events += worker.work()
    return events


def test_the_best_epoch_on_test_is_found_where_it_is_asked_for(
    root: Path, backbone: Backbone, data: TrialData
) -> None:
    pack = Pack(backbone, data)
    one = config(root, train__selection="best_test_epoch", train__epochs=1)
    (member,) = _run(pack, [pack.new_member("t", one)], 1)
    assert member.selected and member.selected.test_accuracy == pack.test([member])[0].miou


def test_kept_maps_change_nothing(
    root: Path, cache: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without augmentation frozen maps are made once, where memory holds them."""
    one = config(root, data__random_crop=False, data__flip=False)
    data = load_trial_data(one, backbone, cache_dir=cache)
    loads: list[int] = []
    load = ImageSource.load

    def counted(self: ImageSource, *args: Any) -> Callable[[], Tensor]:
        loads.append(1)
        return load(self, *args)

    monkeypatch.setattr(ImageSource, "load", counted)
    found, asked = [], []
    for free in (2**40, 1):
        monkeypatch.setattr(
            "tcpa_core.training.kept_tokens.free_bytes", lambda device, free=free: free
        )
        pack = Pack(backbone, data)
        loads.clear()
        (member,) = _run(pack, [pack.new_member("t", one)], 2)
        asked.append(len(loads))
        found.append(member.reports)
    assert asked == [1, 4]  # all pictures at once; two batches in each of two epochs
    for mine, other in zip(*found, strict=True):
        _check_same(mine, other)


@pytest.mark.parametrize("head", ["linear", "setr_pup"])
def test_a_large_batch_in_parts_is_the_same_batch(
    head: str, root: Path, backbone: Backbone, data: TrialData
) -> None:
    one = config(root, "vpt", segment__head=head)
    pack = Pack(backbone, data)
    model = model_of(backbone, one)
    step = Step(training=False, epochs=(0,), steps=(0,), streams=(Stream(0),))
    batch = pack.step.batch(model, torch.arange(5)[None], step)
    sums = []
    for parts in (1, 3):
        pack.step.parts = parts
        losses = [loss for loss, _ in pack.step.losses(model, batch, step)]
        sums.append(torch.stack(losses).sum(0))
    torch.testing.assert_close(sums[0], sums[1])


def test_memory_is_estimated_with_the_masks(root: Path) -> None:
    wide = memory(config(root, segment__head="setr_pup"), len(CLASSES), bf16=False)
    plain = memory(config(root), len(CLASSES), bf16=False)
    assert wide and plain and wide.per_image > plain.per_image > 0


def test_validation_is_estimated_by_the_windows_that_it_passes(
    root: Path, backbone: Backbone, data: TrialData
) -> None:
    """Two windows of 32 px where a picture of 36 px is twice as wide, from 21 to 21 px."""
    pack, side = Pack(backbone, data), backbone.img_size
    for settings in ({}, {"segment__window": "whole"}, {"segment__stride": 4}):
        one = config(root, **settings)
        passed = 0
        for n in range(len(data.val)):
            height, width = data.masked("val").picture(n).shape[-2:]
            if settings.get("segment__window") == "whole":
                passed += height * width
                continue
            step = settings.get("segment__stride", side * 2 // 3)
            steps = [
                len(range(0, max(length - side, 0) + step, step)) for length in (height, width)
            ]
            passed += steps[0] * steps[1] * side**2
        assert num_scored(pack, one) == pytest.approx(passed / side**2)


@pytest.mark.parametrize(
    ("path", "value"),
    [("train.mixup_alpha", 0.2), ("train.cutmix_alpha", 1.0), ("train.label_smoothing", 0.1)],
)
def test_what_needs_labels_of_pictures_is_refused(
    path: str, value: float, root: Path, backbone: Backbone
) -> None:
    with pytest.raises(ConfigError, match=rf"{path}={value:g} .*task\.name=segment"):
        model_of(backbone, config(root).replace_paths({path: value}))
