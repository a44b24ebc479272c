"""What a weights file is, its content says: damage is named, layouts are known, statistics too."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from tcpa_core.errors import ConfigError, WeightsError
from tcpa_core.model.backbone import Backbone
from tcpa_core.model.load_backbone import (
    NANO_GEOMETRY,
    backbone_names,
    load_backbone,
    weights_fingerprint,
)
from tcpa_core.model.preprocessing import NAMED
from tcpa_core.model.timm_names import published, same_shape
from tcpa_core.settings import BackboneConfig, DataConfig
from tests.tcpa_core.test_backbone import DEIT, nano_state, to_jax

State = dict[str, Tensor]
TINY = "test_vit"
"""timm's smallest: width 64, 6 blocks, patch 16, 160 px."""


def state_of(name: str = TINY, num_classes: int = 1000) -> State:
    """Random weights, all of them."""
    return {k: v.clone() for k, v in _state_of(name, num_classes).items()}


@cache
def _state_of(name: str, num_classes: int) -> State:
    with torch.device("meta"):
        state = timm.create_model(name, num_classes=num_classes).state_dict()
    generator = torch.Generator().manual_seed(5)
    return {k: torch.randn(v.shape, generator=generator) for k, v in state.items()}


def write(state: State, path: Path) -> str:
    if path.suffix == ".safetensors":
        save_file({k: v.contiguous() for k, v in state.items()}, path)
    elif path.suffix == ".npz":
        np.savez(path, **{k: np.asarray(v) for k, v in state.items()})
    else:
        torch.save(state, path)
    return str(path)


def load(path: Path, name: str = TINY, **settings: Any) -> Backbone:
    return load_backbone(BackboneConfig(name=name, weights=str(path), **settings))


# Read strictly


def drop(name: str) -> Callable[[State], None]:
    def change(state: State) -> None:
        del state[name]

    return change


def put(name: str, value: float | Tensor) -> Callable[[State], None]:
    def change(state: State) -> None:
        if isinstance(value, Tensor):
            state[name] = value
        else:
            state[name].flatten()[3] = value

    return change


DAMAGE: dict[str, tuple[Callable[[State], None], str]] = {
    "missing": (drop("blocks.3.mlp.fc2.bias"), r"1 tensors missing \(blocks.3.mlp.fc2.bias\)"),
    "missing norm": (drop("norm.weight"), r"missing \(norm.weight\)"),
    "missing positions": (drop("pos_embed"), r"missing \(pos_embed\)"),
    "not known": (put("neck.weight", torch.ones(3)), r"1 not known \(neck.weight\)"),
    "one more block": (put("blocks.6.norm1.bias", torch.ones(64)), r"known \(blocks.6.norm1.bias"),
    "layer scale": (put("blocks.0.ls1.gamma", torch.ones(64)), r"known \(blocks.0.ls1.gamma\)"),
    "layer scale, DeiT III": (put("blocks.0.gamma_1", torch.ones(64)), r"blocks.0.ls1.gamma"),
    "another patch": (
        put("patch_embed.proj.weight", torch.ones(64, 3, 8, 8)),
        r"patch_embed.proj.weight has shape \(64, 3, 8, 8\), the model needs \(64, 3, 16, 16\)",
    ),
    "grey images": (
        put("patch_embed.proj.weight", torch.ones(64, 1, 16, 16)),
        r"shape \(64, 1, 16, 16\), .* \(64, 3, 16, 16\)",
    ),
    "flat patches of another size": (
        put("patch_embed.proj.weight", torch.ones(64, 3 * 32 * 32)),
        r"patch_embed.proj.weight has shape",
    ),
    "a bias to spread": (put("norm.bias", torch.ones(1)), r"norm.bias has shape \(1,\).*\(64,\)"),
    "another width": (
        put("blocks.0.attn.qkv.weight", torch.ones(192, 32)),
        r"blocks.0.attn.qkv.weight has shape \(192, 32\), the model needs \(192, 64\)",
    ),
    "positions without CLS": (
        put("pos_embed", torch.ones(1, 100, 64)),
        r"pos_embed has shape \(1, 100, 64\), the model needs \(1, 101, 64\).* 1 before a grid of "
        "10 x 10 .*choose a model with the file's tokens before its grid",
    ),
    "positions of another width": (
        put("pos_embed", torch.ones(1, 50, 32)),
        r"pos_embed has shape \(1, 50, 32\)",
    ),
    "positions as a picture": (put("pos_embed", torch.ones(1, 10, 10, 64)), r"pos_embed has shape"),
    "no positions": (put("pos_embed", torch.ones(1, 1, 64)), r"pos_embed has shape \(1, 1, 64\)"),
    "another head": (
        put("head.weight", torch.ones(1000, 128)),
        r"head.weight has shape \(1000, 128\), the model needs \(1000, 64\)",
    ),
    "a head's bias": (put("head.bias", torch.ones(7)), r"head.bias has shape \(7,\).*\(1000,\)"),
    "a head of one number": (put("head.weight", torch.tensor(1.0)), r"head.weight has shape \(\)"),
    "NaN": (
        put("blocks.3.mlp.fc1.weight", float("nan")),
        r"1 of \d+ tensors \(blocks.3.mlp.fc1.weight; 1 of 12288 values",
    ),
    "infinity": (put("pos_embed", float("inf")), r"NaN or infinite .*\(pos_embed;"),
    "NaN in the head": (put("head.bias", float("-inf")), r"\(head.bias;"),
    "DINO's CLS": (put("dist_token", torch.ones(1, 1, 64)), r"not known \(dist_token\)"),
    "RADIO": (put("radio_model.model.x", torch.ones(3)), r"RADIO's own files"),
}


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_refused_by_name_and_shape(kind: str, ending: str, tmp_path: Path) -> None:
    change, message = DAMAGE[kind]
    state = state_of()
    change(state)
    write(state, tmp_path / f"w.{ending}")
    with pytest.raises(WeightsError, match=rf"w.{ending} .*{message}"):
        load(tmp_path / f"w.{ending}")


@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
@pytest.mark.parametrize("kind", ["float8_e4m3fn", "int8", "int64", "bool"])
def test_codes_are_no_weights(kind: str, ending: str, tmp_path: Path) -> None:
    state = {k: v.to(getattr(torch, kind)) for k, v in state_of().items()}
    write(state, tmp_path / f"w{ending}")
    with pytest.raises(WeightsError, match=f"as {kind} .*blocks.0.attn.proj.bias.* scales"):
        load(tmp_path / f"w{ending}")


def test_numbers_beyond_float32_are_named(tmp_path: Path) -> None:
    huge = torch.full((64,), 1e300, dtype=torch.float64)
    write(state_of() | {"norm.bias": huge}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"infinite values in 1 of .* \(norm.bias; 64 of 64"):
        load(tmp_path / "w.pth")


@pytest.mark.parametrize("key", ["averages", "networks", "optimizer"])
def test_a_file_without_tensors_where_they_are_read_names_its_keys(
    key: str, tmp_path: Path
) -> None:
    torch.save({key: state_of(), "epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=f"no tensors .*{key}.* under model, state_dict"):
        load(tmp_path / "w.pth")


@pytest.mark.parametrize("ending", [".safetensors", ".npz", ".pth"])
def test_the_prefix_of_distributed_training_is_taken_off(ending: str, tmp_path: Path) -> None:
    state = state_of()
    write({f"module.{name}": value for name, value in state.items()}, tmp_path / f"w{ending}")
    found = load(tmp_path / f"w{ending}").vit.state_dict()
    assert torch.equal(found["blocks.1.mlp.fc1.weight"], state["blocks.1.mlp.fc1.weight"])


def jax_block(to: int) -> Callable[[dict[str, Any]], None]:
    """Move the last block."""

    def change(arrays: dict[str, Any]) -> None:
        for name in [name for name in arrays if "encoderblock_5/" in name]:
            arrays[name.replace("block_5/", f"block_{to}/")] = arrays[name]
            if to < 5:
                del arrays[name]

    return change


def jax_put(name: str, shape: tuple[int, ...]) -> Callable[[dict[str, Any]], None]:
    def change(arrays: dict[str, Any]) -> None:
        arrays[name] = np.ones(shape, np.float32)

    return change


def jax_nan(arrays: dict[str, Any]) -> None:
    name = "Transformer/encoderblock_2/LayerNorm_0/scale"
    arrays[name] = arrays[name] * np.float32("nan")


def jax_no_key(arrays: dict[str, Any]) -> None:
    del arrays["Transformer/encoderblock_1/MultiHeadDotProductAttention_1/key/kernel"]


JAX_DAMAGE: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "deeper": (jax_block(6), r"0 tensors missing .* 12 not known \(blocks.6"),
    "shallower": (jax_block(4), r"12 tensors missing \(blocks.5"),
    "another patch": (
        jax_put("embedding/kernel", (16, 16, 3, 128)),
        r"patch_embed.proj.weight has shape \(128, 3, 16, 16\), the model needs \(128, 3, 8, 8\)",
    ),
    "a bias to spread": (
        jax_put("Transformer/encoder_norm/bias", (1,)),
        r"norm.bias has shape \(1,\), the model needs \(128,\)",
    ),
    "another width": (
        jax_put("Transformer/encoderblock_0/MlpBlock_3/Dense_0/kernel", (64, 512)),
        r"blocks.0.mlp.fc1.weight has shape \(512, 64\)",
    ),
    "no keys": (jax_no_key, r"missing \(blocks.1.attn.qkv.weight\), 2 not known"),
    "another tower": (jax_put("txt/head/kernel", (4, 4)), r"1 not known \(txt/head/kernel\)"),
    "NaN": (jax_nan, r"encoderblock_2/LayerNorm_0/scale; 128 of 128"),
}


@pytest.mark.parametrize("kind", JAX_DAMAGE)
def test_damage_of_a_jax_file_is_refused_by_name_and_shape(kind: str, tmp_path: Path) -> None:
    change, message = JAX_DAMAGE[kind]
    arrays = to_jax(nano_state())
    change(arrays)
    np.savez(tmp_path / "w.npz", **arrays)
    with pytest.raises(WeightsError, match=rf"w.npz .*{message}"):
        load(tmp_path / "w.npz", "vit_nano")


@pytest.mark.parametrize("form", ["jax", "plain"])
def test_layer_scale_that_a_file_lacks_is_not_made_up(form: str, tmp_path: Path) -> None:
    """Such memory was not initialised."""
    vit = VisionTransformer(**NANO_GEOMETRY)
    state = vit.state_dict()
    arrays = to_jax(state) if form == "jax" else {k: v.numpy() for k, v in state.items()}
    name = "vit_small_patch14_dinov2"
    np.savez(tmp_path / "w.npz", **arrays)
    with pytest.raises(WeightsError, match=r"missing \(blocks.0.ls1.gamma"):
        load(tmp_path / "w.npz", name)


def test_blocks_kept_in_one_array_are_read(tmp_path: Path) -> None:
    state = nano_state()
    arrays = to_jax(state)
    for name in [name for name in arrays if "encoderblock_0/" in name]:
        parts = [arrays.pop(name.replace("_0/", f"_{i}/", 1)) for i in range(6)]
        arrays[name.replace("encoderblock_0", "encoderblock")] = np.stack(parts)
    np.savez(tmp_path / "w.npz", **arrays)
    ours = load(tmp_path / "w.npz", "vit_nano")
    for name, value in ours.vit.state_dict().items():
        assert torch.equal(value, state[name]), name


@pytest.mark.parametrize("form", ["jax", "plain"])
def test_positions_are_resampled_as_timm_does_and_it_is_stated(form: str, tmp_path: Path) -> None:
    state = nano_state()
    path = tmp_path / "w.npz"
    np.savez(path, **(to_jax(state) if form == "jax" else {k: v for k, v in state.items()}))
    theirs = VisionTransformer(**{**NANO_GEOMETRY, "img_size": 48}, num_classes=0)
    if form == "jax":
        theirs.load_pretrained(str(path))
    else:
        kept = {k: v for k, v in state.items() if not k.startswith("head")}
        theirs.load_state_dict(timm.models.vision_transformer.checkpoint_filter_fn(kept, theirs))
    ours = load(path, "vit_nano", img_size=48)
    assert torch.equal(ours.vit.pos_embed, theirs.pos_embed)
    stated = ours.preprocessing(DataConfig()).positions
    assert stated == "resampled from 4 x 4 to 6 x 6"
    assert load(path, "vit_nano").preprocessing(DataConfig()).positions == "as trained"


def test_resampling_of_the_hubs_positions_is_stated_without_them() -> None:
    cfg = BackboneConfig(name=TINY, img_size=80)
    ours = load_backbone(cfg, device="meta").preprocessing(DataConfig())
    assert ours.positions == "resampled from 10 x 10 to 5 x 5"
    assert ours.source == "the model's tag r160_in1k"


# Layouts


def mae(state: State) -> dict[str, Any]:
    extra = {k: torch.ones(3) for k in ("mask_token", "decoder_embed.weight", "decoder_pos_embed")}
    return {"model": {**state, **extra, "decoder_blocks.0.norm1.weight": torch.ones(3)}}


def moco(state: State) -> dict[str, Any]:
    ours = {f"module.base_encoder.{k}": v for k, v in state.items()}
    others = ("momentum_encoder.norm.weight", "predictor.0.weight", "base_encoder.head.0.weight")
    return {"state_dict": ours | {f"module.{k}": torch.ones(3) for k in others}, "epoch": 300}


def dino(state: State) -> dict[str, Any]:
    teacher = {f"backbone.{k}": v for k, v in state.items()}
    teacher |= {"head.mlp.0.weight": torch.ones(3), "head.last_layer.weight_v": torch.ones(3)}
    student = {f"module.{k}": torch.zeros_like(v) for k, v in teacher.items()}
    return {"student": student, "teacher": teacher, "epoch": 100}


def dinov2(state: State) -> dict[str, Any]:
    heads = {f"{head}.mlp.0.weight": torch.ones(3) for head in ("dino_head", "ibot_head")}
    return {"teacher": heads | {f"backbone.{k}": v for k, v in state.items()}}


def no_wrapper(state: State) -> dict[str, Any]:
    return {f"backbone.{k}": v for k, v in state.items()}


def ijepa(state: State) -> dict[str, Any]:
    return {"encoder": {f"module.{k}": v for k, v in state.items()}, "predictor": {}}


@pytest.mark.parametrize(
    ("wrap", "stats"),
    [(mae, "imagenet"), (moco, "imagenet"), (dino, "imagenet"), (dinov2, "imagenet"),
     (no_wrapper, None), (ijepa, None)],
)  # fmt: skip
def test_layouts_of_other_programs_are_read_and_tell_their_statistics(
    wrap: Callable[[State], dict[str, Any]], stats: str | None, tmp_path: Path
) -> None:
    state = state_of("vit_tiny_patch16_224", num_classes=0)
    torch.save(wrap(state), tmp_path / "w.pth")
    ours = load(tmp_path / "w.pth", "vit_tiny_patch16_224")
    for name, value in ours.vit.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert ours.num_source_classes == 0
    if stats is None:
        with pytest.raises(ConfigError, match="backbone.norm_stats"):
            ours.norm_stats("checkpoint")
    else:
        assert ours.norm_stats("checkpoint") == NAMED[stats]
        assert "layout" in ours.preprocessing(DataConfig()).source


def test_a_part_that_a_layout_does_not_have_is_refused_by_name(tmp_path: Path) -> None:
    found = moco(state_of())
    found["state_dict"]["module.base_encoder.adapter"] = torch.ones(3)
    torch.save(found, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"1 not known \(adapter\)"):
        load(tmp_path / "w.pth")


def test_a_jax_file_under_any_name_has_the_statistics_of_its_kind(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", **to_jax(nano_state()))
    ours = load(tmp_path / "w.npz", "vit_nano")
    assert ours.norm_stats("checkpoint") == NAMED["inception"]
    assert ours.preprocessing(DataConfig()).source == "the file's layout (JAX)"


def clip_state(state: State, width: int) -> State:
    """The names of CLIP's program."""
    swaps = (
        ("patch_embed.proj", "conv1"), ("pos_embed", "positional_embedding"),
        ("blocks.", "transformer.resblocks."), ("norm_pre", "ln_pre"), ("norm1", "ln_1"),
        ("norm2", "ln_2"), ("norm.", "ln_post."), ("qkv.", "in_proj_"),
        ("attn.proj", "attn.out_proj"),
        ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj"), ("cls_token", "class_embedding"),
    )  # fmt: skip
    found = {"logit_scale": torch.tensor(1.0), "visual.proj": torch.randn(width, 512)}
    for name, value in state.items():
        theirs = name
        for ours, other in swaps:
            theirs = theirs.replace(ours, other)
        single = theirs in ("positional_embedding", "class_embedding")
        found[f"visual.{theirs}"] = value.squeeze() if single else value
    return found


CLIP = "vit_xsmall_patch16_clip_224"


def test_clips_projection_is_no_classifier(tmp_path: Path) -> None:
    state = state_of(CLIP, num_classes=0)
    torch.save(clip_state(state, 256), tmp_path / "raw.pt")
    raw = load(tmp_path / "raw.pt", CLIP)
    for name, value in raw.vit.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert raw.num_source_classes == 0
    assert raw.norm_stats("checkpoint") == NAMED["clip"]
    projection = {"head.weight": torch.randn(512, 256), "head.bias": torch.zeros(512)}
    write({**state, **projection}, tmp_path / "timm.safetensors")
    assert load(tmp_path / "timm.safetensors", CLIP).num_source_classes == 0
    write({**state, **projection, "head.bias": torch.ones(512)}, tmp_path / "tuned.pth")
    assert load(tmp_path / "tuned.pth", CLIP).num_source_classes == 512
    assert load_backbone(BackboneConfig(name=CLIP), device="meta").num_source_classes == 0
    tuned = BackboneConfig(name="vit_base_patch32_clip_224.laion2b_ft_in1k", img_size=32)
    assert load_backbone(tuned, device="meta").num_source_classes == 1000


def test_a_layer_before_the_classifier_is_named_by_having_none(tmp_path: Path) -> None:
    state = state_of()
    hidden = {"pre_logits.fc.weight": torch.ones(64, 64), "pre_logits.fc.bias": torch.ones(64)}
    write({**state, **hidden}, tmp_path / "w.pth")
    assert load(tmp_path / "w.pth").num_source_classes == 0
    write({k: v for k, v in state.items() if k != "head.bias"}, tmp_path / "v.pth")
    assert load(tmp_path / "v.pth").num_source_classes == 0


# Mean and std


def test_the_deit_file_under_a_shape_asks(shared: Path) -> None:
    path = shared / "data" / DEIT
    ours = load(path, "vit_tiny_patch16_224")
    with pytest.raises(ConfigError) as caught:
        ours.norm_stats("checkpoint")
    for part in ("backbone.norm_stats", path.name, "imagenet (deit_tiny_patch16_224.fb_in1k)",
                 "inception (vit_tiny", "[[mean], [std]]"):  # fmt: skip
        assert part in str(caught.value)
    assert ours.norm_stats("imagenet") == NAMED["imagenet"], "data.norm_stats decides as well"
    told = load(path, "vit_tiny_patch16_224", norm_stats="imagenet")
    assert told.norm_stats("checkpoint") == NAMED["imagenet"]
    assert told.preprocessing(DataConfig()).source == "backbone.norm_stats"
    family = load(path, "deit_tiny_patch16_224")
    assert family.norm_stats("checkpoint") == NAMED["imagenet"]


@pytest.mark.parametrize(
    ("name", "classes", "stats"),
    [
        ("vit_tiny_patch16_224", 1000, None),
        ("vit_tiny_patch16_224", 0, None),
        ("vit_tiny_patch16_224", 37, None),
        ("vit_tiny_patch16_384", 1000, None),
        ("vit_tiny_patch16_224", 21843, "inception"),
        ("deit_tiny_patch16_224", 21843, "inception"),
        ("deit_tiny_patch16_224", 1000, "imagenet"),
        ("deit_tiny_patch16_224", 0, "imagenet"),
        ("deit_tiny_patch16_224", 37, "imagenet"),
        ("vit_tiny_patch16_224.augreg_in21k", 21843, "inception"),
        ("vit_tiny_patch16_224.augreg_in21k_ft_in1k", 1000, "inception"),
        ("vit_tiny_patch16_224.augreg_in21k_ft_in1k", 0, None),
        ("vit_tiny_patch16_224.augreg_in21k", 1000, None),
    ],
)
def test_a_name_decides_as_far_as_the_file_bears_it_out(
    name: str, classes: int, stats: str | None, tmp_path: Path
) -> None:
    """Headless files are MAE's, DINO's, MoCo's; 21,843 classes had only Google."""
    small = state_of("vit_tiny_patch16_224", num_classes=0)
    if classes:
        small |= {"head.weight": torch.ones(classes, 192), "head.bias": torch.ones(classes)}
    ours = load(Path(write(small, tmp_path / "w.safetensors")), name)
    if stats is None:
        with pytest.raises(ConfigError, match="backbone.norm_stats: neither the file"):
            ours.norm_stats("checkpoint")
        warned = load_backbone(
            BackboneConfig(name=name, weights=str(tmp_path / "w.safetensors")), recorded=True
        )
        assert warned.norm_stats("checkpoint") == NAMED["inception"], "as before the plan asked"
        assert "which nothing proves" in warned.warnings[0]
    else:
        assert ours.norm_stats("checkpoint") == NAMED[stats]


def test_weights_of_one_shape_are_found_by_their_tensors() -> None:
    assert {name.partition(".")[0] for name in same_shape("vit_tiny_patch16_224")} == {
        "deit_tiny_patch16_224", "vit_tiny_patch16_224", "vit_tiny_patch16_384",
    }  # fmt: skip
    assert {name.partition(".")[0] for name in same_shape("deit_tiny_distilled_patch16_224")} == {
        "deit_tiny_distilled_patch16_224"
    }
    assert list(published("vit_tiny_patch16_224.augreg_in21k")) == [
        "vit_tiny_patch16_224.augreg_in21k"
    ]


MEAN, STD = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
OWN = (tuple(MEAN), tuple(STD))


@pytest.mark.parametrize(
    ("file", "document"),
    [
        ("config.json", {"architecture": "deit_tiny_patch16_224",
                         "pretrained_cfg": {"mean": MEAN, "std": STD}}),
        ("config.json", {"architecture": "vit_tiny_patch16_224", "mean": MEAN, "std": STD}),
        ("open_clip_config.json", {"preprocess_cfg": {"mean": MEAN, "std": STD}}),
        ("preprocessor_config.json", {"image_mean": MEAN, "image_std": STD, "size": 224}),
    ],
)  # fmt: skip
def test_a_description_beside_the_file_decides(
    file: str, document: dict[str, Any], tmp_path: Path
) -> None:
    name, path = "vit_tiny_patch16_224", tmp_path / "model.safetensors"
    write(state_of(name, num_classes=0), path)
    cfg = BackboneConfig(name=name, weights=str(path))
    bare = weights_fingerprint(cfg)
    (tmp_path / file).write_text(json.dumps(document))
    ours = load_backbone(cfg)
    assert ours.norm_stats("checkpoint") == OWN
    assert ours.preprocessing(DataConfig()).source == f"{file} beside the weights"
    assert weights_fingerprint(cfg) not in ("", bare), "it changes results"
    told = cfg.model_copy(update={"norm_stats": "clip"})
    assert load_backbone(told).norm_stats("checkpoint") == NAMED["clip"]
    assert weights_fingerprint(told) == bare


def test_a_description_of_other_weights_says_nothing(tmp_path: Path) -> None:
    name, path = "vit_tiny_patch16_224", tmp_path / "mine.pth"
    cfg = BackboneConfig(name=name, weights=write(state_of(name, num_classes=0), path))
    described = {"architecture": "vit_base_patch32_224", "mean": MEAN, "std": STD}
    (tmp_path / "config.json").write_text(json.dumps(described))
    with pytest.raises(ConfigError, match="neither the file"):
        load_backbone(cfg).norm_stats("checkpoint")
    (tmp_path / "config.json").write_text(json.dumps({"mean": MEAN, "std": STD}))
    assert load_backbone(cfg).norm_stats("checkpoint") == OWN
    (tmp_path / "model.safetensors").touch()  # of two files it may be the other's
    with pytest.raises(ConfigError, match="neither the file"):
        load_backbone(cfg).norm_stats("checkpoint")
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "config.json").write_text(json.dumps({"mean": [0.5], "std": STD}))
    with pytest.raises(ConfigError, match="config.json beside the weights cannot be"):
        load_backbone(cfg)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="neither the file"):
        load_backbone(cfg).norm_stats("checkpoint")


@pytest.mark.parametrize(
    "metadata",
    [
        {"mean": json.dumps(MEAN), "std": json.dumps(STD)},
        {"pretrained_cfg": json.dumps({"mean": MEAN, "std": STD}), "format": "pt"},
    ],
)
def test_metadata_of_the_file_decides(metadata: dict[str, str], tmp_path: Path) -> None:
    name = "vit_tiny_patch16_224"
    save_file(state_of(name, num_classes=0), tmp_path / "w.safetensors", metadata=metadata)
    ours = load(tmp_path / "w.safetensors", name)
    assert ours.norm_stats("checkpoint") == OWN
    assert ours.preprocessing(DataConfig()).source == "the file's metadata"


@pytest.mark.parametrize(
    "value",
    ["imagenett", 0.5, [0.5, 0.5], [[0.5] * 3, [0.0] * 3], [[1.5] * 3, [1.0] * 3], [[0.5] * 3],
     [[0.5] * 4, [0.5] * 4], [["a"] * 3, [0.5] * 3], True, [[float("nan")] * 3, [1.0] * 3]],
)  # fmt: skip
def test_statistics_that_cannot_be_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="imagenet, inception, clip, or"):
        BackboneConfig(norm_stats=value)


def test_numbers_are_taken_as_they_are() -> None:
    ours = load_backbone(BackboneConfig(norm_stats=[MEAN, STD]))
    assert ours.norm_stats("checkpoint") == OWN


def test_what_happens_to_images_is_one_value() -> None:
    ours = load_backbone(BackboneConfig())
    squashed = ours.preprocessing(DataConfig())
    assert (squashed.crop_mode, squashed.crop_pct, squashed.pool) == ("squash", 1.0, "token")
    cut = ours.preprocessing(
        DataConfig(resize="short_side", resize_to=40, interpolation="bilinear", norm_stats="half")
    )
    assert (cut.crop_mode, cut.crop_pct, cut.interpolation) == ("center", 0.8, "bilinear")
    assert (cut.mean, cut.source) == ((0.5, 0.5, 0.5), "data.norm_stats=half")
    assert json.loads(json.dumps(cut.as_dict()))["std"] == [0.5, 0.5, 0.5]
    assert str(cut).startswith("mean (0.5, 0.5, 0.5), std (0.5, 0.5, 0.5) from data.norm_stats")


# Names, tags, sizes


@pytest.mark.parametrize("weights", [None, "random", "file"])
@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("vit_base_patch16_224.mocov3", "augreg2_in21k_ft_in1k.*, dino, mae"),
        ("vit_tiny_patch16_224.augreg_in22k", "closest name: 'augreg_in21k'"),
        ("deit_tiny_patch16_224.fb", "known tags: fb_in1k"),
        ("vit_small_patch14_dinov2.", "known tags: lvd142m"),
        ("vit_nano.mine", "must be 'vit_nano'"),
    ],
)
def test_an_unknown_tag_lists_the_known_ones(
    name: str, known: str, weights: str | None, tmp_path: Path
) -> None:
    if weights == "file":
        weights = write(state_of(), tmp_path / "w.pth")
    with pytest.raises(ConfigError, match=known):
        cfg = BackboneConfig(name=name, weights=weights)
        weights_fingerprint(cfg)
        load_backbone(cfg, device="meta")


def test_names_without_published_weights_need_a_file(tmp_path: Path) -> None:
    name = "test_vit4"
    with pytest.raises(ConfigError, match="no weights of 'test_vit4' are published"):
        load_backbone(BackboneConfig(name=name), device="meta")
    path = write(state_of(name, num_classes=0), tmp_path / "w.pth")
    assert load_backbone(BackboneConfig(name=name, weights=path, norm_stats="clip"))


@pytest.mark.parametrize(
    ("name", "size", "near"),
    [
        ("vit_nano", 33, "32 and 40"),
        ("vit_tiny_patch16_224", 225, "224 and 240"),
        ("vit_tiny_patch16_224", 223, "208 and 224"),
        ("vit_tiny_patch16_224", 3, "16 and 32"),
        ("vit_small_patch14_dinov2", 224 + 1, "224 and 238"),
        ("vit_small_patch32_224", 48, "32 and 64"),
    ],
)
@pytest.mark.parametrize("weights", [None, "random"])
def test_an_image_that_patches_do_not_fill_is_refused(
    name: str, size: int, near: str, weights: str | None
) -> None:
    cfg = BackboneConfig(name=name, img_size=size, weights=weights)
    with (
        torch.device("meta"),
        pytest.raises(ConfigError, match=rf"got {size}; the nearest .*{near}"),
    ):
        load_backbone(cfg, device="meta")


def test_the_models_own_size_is_its_makers_affair() -> None:
    cfg = BackboneConfig(name="vit_so400m_patch14_siglip_384", img_size=384)
    with torch.device("meta"):
        assert load_backbone(cfg, device="meta").layout.grid == (27, 27)


def test_every_name_that_is_listed_passes_the_plans_checks() -> None:
    names = backbone_names()
    assert len(names) > 140
    assert not {"vit_small_patch16_18x2_224", "vit_base_patch16_xp_224", "test_vit4"} & set(names)
    for name in names[:: len(names) // 8]:
        with torch.device("meta"):
            ours = load_backbone(BackboneConfig(name=name), device="meta")
        assert ours.preprocessing(DataConfig()).mean
        for module in ours.vit.modules():
            left = {key for key, _ in module.named_buffers(recurse=False)} - {"rotation"}
            makes = hasattr(module, "init_non_persistent_buffers")
            assert makes or not left, "what no file holds would stay on the meta device"


def test_names_that_are_not_listed_are_refused() -> None:
    listed = set(backbone_names())
    for module in ("vision_transformer", "deit"):
        for name in set(timm.list_models(module=module)) - listed:
            with torch.device("meta"), pytest.raises(ConfigError):
                load_backbone(BackboneConfig(name=name), device="meta")


def test_a_network_before_the_patches_is_refused() -> None:
    cfg = BackboneConfig(name="vit_tiny_r_s16_p8_224")
    with torch.device("meta"), pytest.raises(ConfigError, match="HybridEmbed before its blocks"):
        load_backbone(cfg, device="meta")
