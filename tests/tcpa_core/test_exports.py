"""A trained trial in forms that other programs read: each computes what the trial does."""

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from tcpa_core import export_trial, load_trained, plugins
from tcpa_core.config import METHODS, TrialConfig
from tcpa_core.errors import CheckpointError, ConfigError
from tcpa_core.exports import base, onnx_model, plain, program, timm_model
from tcpa_core.exports.forms import FORMS
from tcpa_core.exports.timm_model import _preprocessing
from tcpa_core.model.backbone import Backbone
from tcpa_core.model.transform import Transform
from tcpa_core.settings import DataConfig
from tcpa_core.training import export
from tcpa_core.training.trained import TrainedModel, trained_model
from tcpa_core.training.trained_state import TrainedState
from tests.tcpa_core.test_methods_contract import build, small
from tests.tcpa_core.test_trained import shaken
from tests.tcpa_core.tiny import NUM_CLASSES, images, tiny_backbone

MERGED = ("linear", "full", "partial", "bias", "ssf", "lora")
TRACED = ("tcpa", "damvp", "sa2vp")


def tiny(chain: Sequence[str], kind: str = "cls", **more: Any) -> TrainedModel:
    """A trained model over a tiny network, its tensors away from where they begin."""
    backbone = tiny_backbone(kind, dtype=torch.float32)
    config = small(list(chain), **more)
    return over(backbone, config)


def over(backbone: Backbone, config: TrialConfig) -> TrainedModel:
    source = TrainedState(
        path=Path("best.safetensors"),
        tensors=shaken(build(backbone, [config]).tensors.state(0)),
        settings=config.flat(),
        classes=tuple("abcde"),
        grey_bits=16,
        info={"grey_bits": 16, "trial": "00003", "selected": {"epoch": 1, "val_accuracy": 0.5}},
    )
    return trained_model(source, config, backbone)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["cls", "no_cls", "distilled", "dinov3", "eva02"])
@pytest.mark.parametrize("method", MERGED)
def test_what_can_be_merged_is_in_the_plain_network(method: str, kind: str) -> None:
    more = {"lora__targets": "q,v,o", "lora__alpha": 4.0} if method == "lora" else {}
    if (method, kind) == ("ssf", "eva02"):  # refused before any training
        return
    model = tiny([method], kind, **more)
    assert plain.why_not_plain(model) is None
    network = plain.with_head(plain.merged(model), model.source.tensors)
    x = images(model.pack.backbone)[0]
    with torch.no_grad():
        close(network(x), model.logits(x))
    assert torch.equal(model.logits(x), tiny([method], kind, **more).logits(x)), "it was changed"


def test_methods_beside_the_blocks_are_refused_with_what_is_possible(tmp_path: Path) -> None:
    others = set(plugins.names(METHODS)) - set(MERGED)
    for method in sorted(others):
        reason = plain.why_not_plain(tiny([method]))
        assert reason is not None and repr(method) in reason
    assert plain.why_not_plain(tiny(["lora"])) is None


@pytest.mark.parametrize(
    ("method", "format", "said"),
    [
        ("vpt", "timm", "'vpt' computes beside .*; possible: tcpa, onnx, torch.export"),
        ("linear", "peft", r"methods are \['linear'\]; possible: tcpa, timm, onnx, torch.export"),
        ("lion", "onnx", "solver of 'lion' .*; possible: tcpa"),
    ],
)
def test_a_form_that_cannot_be_is_said_with_those_that_can(
    method: str, format: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "load_trained", lambda *_, **__: tiny([method]))
    with pytest.raises(ConfigError, match=rf"--format {format}: .*{said}\.$"):
        export_trial("best.safetensors", tmp_path / "out", format=format)
    assert not list(tmp_path.iterdir())


def test_a_package_that_is_absent_is_named_with_the_line_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "load_trained", lambda *_, **__: tiny(["linear"]))
    monkeypatch.setattr(base, "find_spec", lambda name: None if name == "onnxscript" else find_spec)
    with pytest.raises(ConfigError, match=r"here: onnxscript; install with pip install 'tcpa-se"):
        export_trial("best.safetensors", tmp_path / "out", format="onnx")


@pytest.mark.parametrize("method", TRACED)
def test_a_program_takes_batches_of_any_size(method: str, tmp_path: Path) -> None:
    model = tiny([method])
    program.FORM.write(model, tmp_path)
    logits = program.FORM.read(model, tmp_path)
    for count in (1, 2, 30):
        x = images(model.pack.backbone, samples=count)[0]
        close(logits(x), model.logits(x))


@pytest.mark.parametrize("method", ["tcpa"])
def test_onnxruntime_computes_the_same_on_batches_of_any_size(method: str, tmp_path: Path) -> None:
    model = tiny([method])
    onnx_model.FORM.write(model, tmp_path)
    logits = onnx_model.FORM.read(model, tmp_path)
    for count in (1, 2, 30):
        x = images(model.pack.backbone, samples=count)[0]
        close(logits(x), model.logits(x))


NANO = {"backbone.name": "vit_nano", "data.name": "digits"}


def test_timm_loads_a_folder_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tcpa_core.model.load_backbone import load_backbone

    config = TrialConfig.from_flat({**NANO, "methods": ["lora"]})
    model = over(load_backbone(config.backbone), config)
    monkeypatch.setattr(export, "load_trained", lambda *_, **__: model)
    found = export_trial("best.safetensors", tmp_path / "out", format="timm")
    network = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    assert network.num_classes == NUM_CLASSES and found.difference < 1e-4
    assert network.pretrained_cfg["label_names"] == list("abcde")
    # and by its parts, strictly
    about = json.loads((tmp_path / "out" / "config.json").read_text())
    again = timm.create_model(about["architecture"], num_classes=5, **about["model_args"])
    again.load_state_dict(load_file(tmp_path / "out" / "model.safetensors"), strict=True)
    picture = Image.effect_noise((70, 50), 90).convert("RGB")
    x = model.transform(picture)[None]
    with torch.no_grad():
        close(network(x), model.logits(x))
        assert torch.equal(again.eval()(x), network(x))
    settings = timm.data.resolve_model_data_config(network)
    close(timm.data.create_transform(**settings)(picture)[None], x)
    with pytest.raises(CheckpointError, match="export of format 'timm'.*load_trained reads format"):
        load_trained(tmp_path / "out")


@pytest.mark.parametrize("side", [16, 32, 224, 384])
@pytest.mark.parametrize(
    "data",
    [{}, {"resize": "short_side"}, {"resize": "short_side", "interpolation": "bilinear"}],
    ids=["squash", "short side", "bilinear"],
)
def test_timms_transform_of_an_export_sees_what_the_trial_saw(
    data: dict[str, Any], side: int
) -> None:
    cfg = DataConfig(**data)
    transform = Transform.of(cfg, side, ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)), 16)
    told = _preprocessing(transform)
    settings = timm.data.resolve_data_config({}, pretrained_cfg=told)
    for size in ((side * 2 + 31, side * 2 + 7), (side // 2, side // 2 + 3)):
        picture = Image.effect_noise(size, 90).convert("RGB")
        theirs = timm.data.create_transform(**settings)(picture)
        torch.testing.assert_close(theirs, transform(picture), atol=2e-6, rtol=0)


def peft_logits(folder: Path, backbone: Backbone, x: Tensor) -> Tensor:
    """As PEFT's documents say how an adapter is read: W + alpha / r B A by the layers' names."""
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    heads = {k: t for k, t in tensors.items() if ".head" in k}
    network = plain.with_head(
        backbone, {k.removeprefix("base_model.model."): t for k, t in heads.items()}
    )
    for name in config["target_modules"]:
        a, b = (tensors[f"base_model.model.{name}.lora_{part}.weight"] for part in "AB")
        scale = config["alpha_pattern"][name] / config["rank_pattern"][name]
        assert len(a) == config["rank_pattern"][name]
        network.get_submodule(name).weight.data += scale * (b @ a)
    with torch.no_grad():
        found: Tensor = network(x)
    return found


@pytest.mark.parametrize("kind", ["cls", "distilled", "eva02"])
def test_an_adapter_is_what_peft_reads(kind: str, tmp_path: Path) -> None:
    targets = "k,v,o" if kind == "eva02" else "q,v,fc1"
    model = tiny(["lora"], kind, lora__targets=targets, lora__alpha=3.0, lora__rank=5)
    assert FORMS["peft"].why_not(model) is None
    FORMS["peft"].write(model, tmp_path)
    x = images(model.pack.backbone)[0]
    close(peft_logits(tmp_path, model.pack.backbone, x), model.logits(x))
    if find_spec("peft") is not None:
        close(FORMS["peft"].read(model, tmp_path)(x), model.logits(x))


def test_a_network_that_timm_does_not_build_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny(["linear"])
    timm_model.FORM.write(model, tmp_path)
    config = {**timm_model.FORM.write(model, tmp_path).config}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="'vit_tiny_patch16_224' is not built as this backbone"):
        timm_model.FORM.read(model, tmp_path)
