"""A trained trial classifies pictures as its own test did, whatever they are and whoever has it."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional as F

from tcpa_core import export_trial, load_trained, plugins
from tcpa_core.config import METHODS, TrialConfig
from tcpa_core.data.base import load_dataset, raw_images
from tcpa_core.errors import CheckpointError, ConfigError, DataError, TcpaError, WeightsError
from tcpa_core.exports.card import Facts, Measured
from tcpa_core.methods.base import MemberState
from tcpa_core.model.load_backbone import load_backbone
from tcpa_core.model.transform import Transform
from tcpa_core.training.checkpoint import load_checkpoint, save_checkpoint
from tcpa_core.training.member import Member, Selected
from tcpa_core.training.pack import Pack
from tcpa_core.training.run_trial import run_trial
from tcpa_core.training.saved_member import save_member
from tcpa_core.training.trial_data import load_trial_data
from tests.tcpa_core.test_methods_contract import SMALL

CHAINS = [[name] for name in plugins.names(METHODS)] + [["vpt", "tcpa"], ["vp", "tcpa"]]
LARGER: Mapping[str, Any] = {"data.resize": "short_side", "data.resize_to": 41}
KINDS: dict[str, Mapping[str, Any]] = {
    "squash": {},
    "short side": LARGER,
    "bilinear": {"data.interpolation": "bilinear"},
    "aliased": {**LARGER, "data.antialias": False},
    "own statistics": {"data.norm_stats": "half"},
}


def draw(folder: Path, shade: int) -> None:
    """Pictures of every kind that is read: modes, sizes, depths and file formats."""
    random = np.random.default_rng(shade)

    def noise(*shape: int) -> np.ndarray[Any, Any]:
        return random.integers(shade, shade + 120, shape).astype(np.uint8)

    folder.mkdir(parents=True)
    Image.fromarray(noise(8, 8)).save(folder / "grey.png")
    Image.fromarray(noise(50, 31, 3)).save(folder / "wide.jpg")
    Image.fromarray(noise(20, 70, 3)).save(folder / "tall.webp", lossless=True)
    Image.fromarray(noise(40, 40, 4)).save(folder / "alpha.png")
    palette = Image.fromarray(noise(33, 45, 3)).convert("P", palette=Image.Palette.ADAPTIVE)
    palette.save(folder / "palette.png", transparency=3)
    palette.save(folder / "palette.gif")
    Image.fromarray(noise(24, 24, 3)).convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(noise(32, 32) > shade + 60).save(folder / "bits.png")
    deep = random.integers(0, 4000, (30, 36)).astype(np.uint16)
    Image.fromarray(deep).save(folder / "deep.png")
    Image.fromarray(deep[:9]).save(folder / "deep.tif")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of two classes; its 16-bit pictures use 12 bits."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, split in enumerate(("train", "val", "test")):
        for label, name in enumerate(("dark", "light")):
            draw(folder / split / name, shade=10 + 40 * number + 15 * label)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TCPA_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def shaken(state: MemberState) -> MemberState:
    """Tensors as a training may leave them: away from where they begin."""
    generator = torch.Generator().manual_seed(3)
    return {
        name: t + 0.1 * torch.randn(t.shape, generator=generator) if t.is_floating_point() else t
        for name, t in state.items()
    }


def left_behind(config: TrialConfig, folder: Path) -> tuple[float, float]:
    """Write a trial's checkpoint without training it; loss and accuracy of its test."""
    backbone = load_backbone(config.backbone)
    data = load_trial_data(config, backbone)
    pack = Pack(backbone, data)
    fresh = pack.new_member("00003", config)
    state = shaken(fresh.state)
    best = Selected(epoch=1, val_accuracy=0.5, val_loss=1.0, test_accuracy=None, state=state)
    member: Member = replace(
        fresh, state=state, selected=best, epoch=config.train.epochs, reports=()
    )
    save_member(member, folder, backbone, data)
    (scored,) = pack.test([member])
    return scored.loss, scored.accuracy


def settings(root: Path, methods: list[str], **more: Any) -> TrialConfig:
    small = {k.replace("__", "."): v for m in methods for k, v in SMALL.get(m, {}).items()}
    flat = {"methods": methods, "data.name": "folder", "data.root": str(root), "train.epochs": 1}
    return TrialConfig.from_flat({**flat, **small, **more})


def scored(model: Any, root: Path) -> tuple[float, float]:
    """Loss and accuracy on the files of the test split, in the split's order."""
    files = [
        path for name in model.class_names for path in sorted((root / "test" / name).iterdir())
    ]
    labels = torch.tensor([model.class_names.index(path.parent.name) for path in files])
    found = model.predict(files)
    loss = F.cross_entropy(model.logits(torch.stack([model.transform(p) for p in files])), labels)
    return float(loss), float((found.labels == labels).double().mean())


@pytest.mark.parametrize("chain", CHAINS, ids="+".join)
def test_every_method_predicts_as_it_was_tested_here_and_exported(
    chain: list[str], root: Path, tmp_path: Path
) -> None:
    config = settings(root, chain)
    loss, accuracy = left_behind(config, tmp_path / "00003")
    model = load_trained(tmp_path / "00003")
    assert scored(model, root) == (pytest.approx(loss, rel=1e-6), accuracy)
    exported = export_trial(tmp_path / "00003", tmp_path / "out")
    again = load_trained(tmp_path / "out")
    assert exported.difference == 0.0 and again.transform == model.transform
    images = torch.stack([model.transform(image) for image in raw_images(config.data, "test")])
    assert torch.equal(again.logits(images), model.logits(images))
    assert torch.equal(again(images), model(images))


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_becomes_the_numbers_that_the_trial_saw(kind: str, root: Path) -> None:
    """To the bit, from its file, its content, and as Pillow opens it."""
    config = settings(root, ["linear"], **KINDS[kind])
    backbone = load_backbone(config.backbone)
    data = load_trial_data(config, backbone)
    assert data.grey_bits == 12
    stats = backbone.norm_stats(config.data.norm_stats)
    transform = Transform.of(config.data, backbone.img_size, stats, data.grey_bits)
    paths = load_dataset(config.data, backbone.img_size).splits["test"].paths
    seen, contents = data.test.batch(slice(None)), raw_images(config.data, "test")
    assert len(seen) == len(paths) == 20
    for expected, path, content in zip(seen, paths, contents, strict=True):
        assert torch.equal(transform(root / path), expected), path
        assert torch.equal(transform(content), expected), path
        with Image.open(root / path) as image:
            assert torch.equal(transform(image), expected), path


def test_a_trial_of_digits_predicts_its_test_accuracy(tmp_path: Path) -> None:
    flat = {"methods": ["tcpa"], "data.name": "digits", "train.epochs": 1}
    config = TrialConfig.from_flat({**flat, **{"data.size_per_class": 20}})
    result = run_trial(config, folder=tmp_path / "00003")
    model = load_trained(tmp_path / "00003" / "last.safetensors")
    split = load_dataset(config.data, 32).splits["test"]
    found = model.predict(raw_images(config.data, "test"), top=3)
    assert float((found.labels.numpy() == split.labels).mean()) == result.test_accuracy
    assert len(found) == len(split) and found.class_names == tuple("0123456789")
    assert [names[0][0] for names in found.top] == found.names
    assert all(len(names) == 3 for names in found.top)
    one = model.predict(raw_images(config.data, "test")[0])
    assert one.names == found.names[:1]
    torch.testing.assert_close(one.probabilities[0], found.probabilities[0])


def test_no_picture_is_no_error(root: Path, tmp_path: Path) -> None:
    left_behind(settings(root, ["linear"]), tmp_path / "t")
    found = load_trained(tmp_path / "t").predict([])
    assert len(found) == 0 and found.names == [] and found.top == []


def test_what_cannot_be_read_is_named(root: Path, tmp_path: Path) -> None:
    left_behind(settings(root, ["linear"]), tmp_path / "t")
    model = load_trained(tmp_path / "t")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"broken\.png"):
        model.predict([root / "test" / "dark" / "grey.png", broken])
    with pytest.raises(DataError, match=r"absent\.png cannot be read: No such file"):
        model.predict(tmp_path / "absent.png")
    with pytest.raises(DataError, match="got a Tensor; of normalised tensors"):
        model.predict(torch.zeros(1, 3, 32, 32))
    with pytest.raises(DataError, match=r"uint8 \[H, W, 3\] or \[H, W\], got float64 \[4, 4\]"):
        model.predict(np.zeros((4, 4)))


def test_an_older_checkpoint_refuses_to_guess_the_depth_of_grey(root: Path, tmp_path: Path) -> None:
    left_behind(settings(root, ["linear"]), tmp_path / "t")
    expected = load_trained(tmp_path / "t").transform(root / "test" / "dark" / "deep.png")
    path = tmp_path / "t" / "best.safetensors"
    state, info = load_checkpoint(path)
    del info["grey_bits"], info["schema"]
    save_checkpoint(path, state, info)
    old = load_trained(tmp_path / "t")
    for picture in (root / "test" / "dark" / "deep.png", Image.open(root / "test/dark/deep.tif")):
        with pytest.raises(DataError, match=r"deep.* is 16-bit grey.*grey_bits=16"):
            old.predict(picture)
    assert old.predict(root / "test" / "dark" / "grey.png").names
    told = load_trained(tmp_path / "t", grey_bits=12)
    assert torch.equal(told.transform(root / "test" / "dark" / "deep.png"), expected)
    with pytest.raises(ConfigError, match="grey_bits must be one of 8, 10, 12, 14, 16, got 11"):
        load_trained(tmp_path / "t", grey_bits=11)


@pytest.fixture
def moved(root: Path, tmp_path: Path) -> Path:
    """An exported folder whose backbone came from a file."""
    from tests.tcpa_core.test_backbone import nano_state

    weights = tmp_path / "project" / "weights" / "own.safetensors"
    weights.parent.mkdir(parents=True)
    save_file(nano_state(), weights)
    more = {"backbone.weights": str(weights)}
    left_behind(settings(root, ["vpt"], **more), tmp_path / "project" / "t")
    export_trial(tmp_path / "project" / "t", tmp_path / "out")
    return tmp_path / "out"


def test_in_a_fresh_process_with_the_backbone_elsewhere(
    moved: Path, root: Path, tmp_path: Path
) -> None:
    """Under its name, under another one, and as it is told; another file is refused."""
    picture = root / "test" / "dark" / "wide.jpg"
    expected = load_trained(moved, weights=tmp_path / "project" / "weights")
    probability = expected.predict(picture).probabilities[0, 0].item()
    away = tmp_path / "away"
    (away / "weights").mkdir(parents=True)
    (tmp_path / "project").rename(away / "project")
    own = away / "project" / "weights" / "own.safetensors"
    renamed = away / "weights" / "renamed.safetensors"
    code = (
        "from tcpa_core import load_trained\n"
        "def show(**more):\n"
        f"    found = load_trained({str(moved)!r}, **more).predict({str(picture)!r})\n"
        "    print(repr(found.probabilities[0, 0].item()))\n"
        f"show(weights={str(own)!r})\n"
        f"import os; os.rename({str(own)!r}, {str(renamed)!r})\n"
        "show()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, cwd=away, env=environment, capture_output=True, text=True)
    assert found.stdout.split() == [repr(probability)] * 2, found.stderr


def test_an_export_without_its_backbone_says_what_it_needs(moved: Path, tmp_path: Path) -> None:
    own = tmp_path / "project" / "weights" / "own.safetensors"
    data = bytearray(own.read_bytes())
    data[-1] ^= 1
    own.unlink()
    with pytest.raises(WeightsError, match=r"trained with own\.safetensors \(sha256:\w{16}\), whi"):
        load_trained(moved)
    own.write_bytes(data)
    with pytest.raises(WeightsError, match=r"trained with the weights sha256:\w+, but .* are sha2"):
        load_trained(moved, weights=own)


def test_an_export_names_no_place_of_this_machine(moved: Path, tmp_path: Path) -> None:
    for file in moved.iterdir():
        assert str(tmp_path).encode() not in file.read_bytes(), file.name


def test_an_export_that_was_changed_is_refused(moved: Path) -> None:
    model = moved / "model.safetensors"
    data = bytearray(model.read_bytes())
    data[-1] ^= 1
    model.write_bytes(data)
    with pytest.raises(CheckpointError, match="its SHA-256 differs"):
        load_trained(moved)
    (moved / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="not of an exported trial"):
        load_trained(moved)


def test_a_file_that_prompts_began_with_is_not_needed_again(root: Path, tmp_path: Path) -> None:
    meta = tmp_path / "meta.safetensors"
    save_file({"prompt": torch.zeros(3, 32, 32)}, meta)
    left_behind(settings(root, ["damvp"], **{"damvp.meta_init": str(meta)}), tmp_path / "t")
    before = load_trained(tmp_path / "t").predict(root / "test" / "dark" / "wide.jpg")
    meta.unlink()
    export_trial(tmp_path / "t", tmp_path / "out")
    after = load_trained(tmp_path / "out").predict(root / "test" / "dark" / "wide.jpg")
    assert torch.equal(after.probabilities, before.probabilities)


def test_an_export_of_an_export_says_the_same(root: Path, tmp_path: Path) -> None:
    left_behind(settings(root, ["vpt"]), tmp_path / "t")
    facts = Facts(study="mine", measured=(Measured(name="test accuracy", value=0.5),))
    export_trial(tmp_path / "t", tmp_path / "one", facts=facts)
    export_trial(tmp_path / "one", tmp_path / "two")
    cards = [(tmp_path / name / "README.md").read_text() for name in ("one", "two")]
    before, after = (text.partition("## Check")[0] for text in cards)
    assert before.replace('"one"', '"two"') == after and "- test accuracy 0.5000" in after
    config = tmp_path / "one" / "config.json"
    config.write_text(config.read_text().replace('"measured"', '"mesaured"'))
    with pytest.raises(CheckpointError, match=r"what its config\.json says .* cannot be read"):
        export_trial(tmp_path / "one", tmp_path / "three")


FORGED = {
    "config": (None, [], {"methods": 3}, {"methods": ["vpt"], "vpt.num_prompts": -1}),
    "classes": (None, "ab", ["a"], [1, 2, 3]),
    "weights": ([], 7, "sha256:0"),
    "norm_stats": ([], 3, [[2, 2, 2], [0, 0, 0]]),
    "sha256": (None, 3),
    "schema": (None, 2, "1"),
    "format": (None, "onnx", []),
}


@pytest.mark.parametrize("key", FORGED)
def test_a_forged_export_is_refused_in_a_sentence(key: str, root: Path, tmp_path: Path) -> None:
    left_behind(settings(root, ["vpt"]), tmp_path / "t")
    export_trial(tmp_path / "t", tmp_path / "out")
    path = tmp_path / "out" / "config.json"
    honest = json.loads(path.read_text())
    for value in FORGED[key]:
        path.write_text(json.dumps({"tcpa": {**honest["tcpa"], key: value}}))
        with pytest.raises(TcpaError):
            load_trained(tmp_path / "out")
    for text in ("[]", "{", '{"tcpa": 3}', "[" * 100_000):
        path.write_text(text)
        with pytest.raises(CheckpointError):
            load_trained(tmp_path / "out")


def test_nothing_is_overwritten_and_nothing_half_written(root: Path, tmp_path: Path) -> None:
    left_behind(settings(root, ["linear"]), tmp_path / "t")
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").touch()
    with pytest.raises(ConfigError, match=r"out has other things in it \(mine\.txt\)"):
        export_trial(tmp_path / "t", out)
    with pytest.raises(ConfigError, match=r"no export format 'tcp'; closest name: 'tcpa'"):
        export_trial(tmp_path / "t", tmp_path / "new", format="tcp")
    with pytest.raises(CheckpointError, match="holds no trained trial"):
        export_trial(out, tmp_path / "new")
    (out / "mine.txt").unlink()
    export_trial(tmp_path / "t", out)
    assert {one.name for one in out.iterdir()} == {"README.md", "config.json", "model.safetensors"}
    assert sorted(one.name for one in tmp_path.iterdir()) == ["out", "t"]


def test_an_export_that_computes_something_else_is_not_given_away(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tcpa_core.exports import own

    left_behind(settings(root, ["linear"]), tmp_path / "t")
    write = own.save_file
    monkeypatch.setattr(
        own,
        "save_file",
        lambda tensors, *a, **k: write({n: t * 2 for n, t in tensors.items()}, *a, **k),
    )
    with pytest.raises(CheckpointError, match="computes other logits than the trial"):
        export_trial(tmp_path / "t", tmp_path / "out")
    assert [one.name for one in tmp_path.iterdir()] == ["t"]
