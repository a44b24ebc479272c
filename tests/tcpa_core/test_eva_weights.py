"""Weights of timm's Eva family: files, image sizes, mean and std, classifiers, names."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from tcpa_core.errors import ConfigError, WeightsError
from tcpa_core.model.backbone import Backbone
from tcpa_core.model.load_backbone import backbone_names, load_backbone
from tcpa_core.settings import BackboneConfig

IN_SMALL = {
    "vit_tiny_patch16_dinov3_qkvb": (64, 96),
    "eva02_tiny_patch14_224": (56, 84),
    "eva02_base_patch16_clip_224": (32, 48),
    "vit_pe_core_tiny_patch16_384": (64, 96),
    "vit_small_patch16_rope_mixed_ape_224": (32, 48),
    "vit_small_patch16_rope_224": (32, 48),
}
"""Models with two image sizes."""


def timms(name: str, **changes: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        vit = timm.create_model(name, depth=2, **changes).eval()
        for parameter in vit.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    return vit


@pytest.fixture(autouse=True)
def two_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models of two blocks, so that files are small."""
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: create(*a, **{"depth": 2, **k}))


def features(backbone: Backbone, x: Tensor) -> Tensor:
    tokens = backbone.embed(x)
    for block in backbone.blocks:
        tokens = block(tokens, rope=block.rotation[..., backbone.layout.num_prefix :, :])
    return backbone.read(tokens)


@pytest.mark.parametrize("name", IN_SMALL)
def test_a_file_in_timms_names_gives_timms_features(name: str, tmp_path: Path) -> None:
    own, other = IN_SMALL[name]
    vit, path = timms(name, img_size=own, num_classes=7), tmp_path / "w.safetensors"
    save_file(vit.state_dict(), path)
    x = torch.randn(2, 3, own, own, generator=torch.Generator().manual_seed(0))
    cfg = BackboneConfig(name=name, weights=str(path), img_size=own, norm_stats="imagenet")
    ours = load_backbone(cfg)
    assert not any(buffer.is_meta for buffer in ours.buffers())
    assert torch.equal(
        features(ours, x), vit.forward_head(vit.forward_features(x), pre_logits=True)
    )
    assert ours.num_source_classes == 7
    larger = load_backbone(cfg.model_copy(update={"img_size": other}))
    overlay = {"file": str(path), "num_classes": 7}
    resized = timm.create_model(name, True, pretrained_cfg_overlay=overlay, img_size=other).eval()
    x = torch.randn(2, 3, other, other, generator=torch.Generator().manual_seed(0))
    expected = resized.forward_head(resized.forward_features(x), pre_logits=True)
    torch.testing.assert_close(features(larger, x), expected, rtol=0, atol=1e-5)


def test_half_precision_files_train_in_float32(tmp_path: Path) -> None:
    vit = timms("eva02_tiny_patch14_224", img_size=56, num_classes=0)
    save_file({k: v.half() for k, v in vit.state_dict().items()}, tmp_path / "w.safetensors")
    cfg = BackboneConfig(
        name="eva02_tiny_patch14_224", weights=str(tmp_path / "w.safetensors"), img_size=56
    )
    ours = load_backbone(cfg)
    assert {p.dtype for p in ours.parameters()} == {torch.float32}
    assert ours.norm_stats("checkpoint")[0][0] == pytest.approx(0.48145466), (
        "all EVA-02 have CLIP's"
    )


def test_a_file_of_another_model_is_refused_by_its_tensors(tmp_path: Path) -> None:
    vit = timms("vit_tiny_patch16_dinov3_qkvb", img_size=64, num_classes=0)
    save_file(vit.state_dict(), tmp_path / "w.safetensors")
    cfg = BackboneConfig(
        name="eva02_tiny_patch14_224", weights=str(tmp_path / "w.safetensors"), img_size=56
    )
    with pytest.raises(WeightsError, match="does not fit 'eva02_tiny_patch14_224': .* missing"):
        load_backbone(cfg)


def as_meta_writes_it(vit: Any, biases: float) -> dict[str, Tensor]:
    """DINOv3's own names."""
    state: dict[str, Tensor] = {}
    for key, value in vit.state_dict().items():
        key = key.replace("reg_token", "storage_tokens")
        key = key.replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma")
        state[key] = value
    for i in range(len(vit.blocks)):
        attn, width = f"blocks.{i}.attn", vit.embed_dim
        q, v = (state.pop(f"{attn}.{p}_bias", torch.full((width,), biases)) for p in "qv")
        state[f"{attn}.qkv.bias"] = torch.cat([q, torch.zeros(width), v])
        state[f"{attn}.qkv.bias_mask"] = torch.full((3 * width,), float("nan"))
    state["mask_token"] = torch.zeros(1, vit.embed_dim)
    state["rope_embed.periods"] = torch.ones(16)
    return state


def test_dinov3_as_its_authors_write_it(tmp_path: Path) -> None:
    name = "vit_tiny_patch16_dinov3_qkvb"
    vit = timms(name, img_size=64, num_classes=0)
    torch.save(as_meta_writes_it(vit, 0.0), tmp_path / "w.pth")
    ours = load_backbone(BackboneConfig(name=name, weights=str(tmp_path / "w.pth"), img_size=64))
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(features(ours, x), vit(x))


@pytest.mark.parametrize("biases", [0.0, 0.1])
def test_biases_are_left_out_only_where_they_are_0(
    biases: float, tmp_path: Path, capsys: Any
) -> None:
    """timm has the sizes with and without them."""
    name = "vit_small_patch16_dinov3"
    vit = timms(name, img_size=32, num_classes=0)
    torch.save(as_meta_writes_it(vit, biases), tmp_path / "w.pth")
    cfg = BackboneConfig(name=name, weights=str(tmp_path / "w.pth"), img_size=32)
    if biases:
        with pytest.raises(WeightsError, match="biases that are not 0; choose the ..._qkvb"):
            load_backbone(cfg)
    else:
        x = torch.randn(1, 3, 32, 32)
        assert torch.equal(features(load_backbone(cfg), x), vit(x))
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "mean", "classes"),
    [
        ("vit_large_patch16_dinov3.sat493m", 0.43, 0),
        ("vit_large_patch16_dinov3.lvd1689m", 0.485, 0),
        ("vit_pe_core_base_patch16_224.fb", 0.5, 0),
        ("vit_pe_spatial_tiny_patch16_512.fb", 0.5, 0),
        ("eva02_base_patch14_448.mim_in22k_ft_in1k", 0.48145466, 1000),
        ("eva02_base_patch16_clip_224.merged2b", 0.48145466, 0),
        ("vit_base_patch16_rope_224.naver_in1k", 0.485, 1000),
    ],
)
def test_the_tag_tells_mean_and_classes(name: str, mean: float, classes: int) -> None:
    """The head of CLIP's family is a projection."""
    ours = load_backbone(BackboneConfig(name=name), device="meta")
    assert ours.norm_stats("checkpoint")[0][0] == pytest.approx(mean)
    assert ours.num_source_classes == classes


def test_names_are_listed_but_for_those_that_cannot_be_taken_apart() -> None:
    known = set(timm.list_models(module="eva"))
    refused = {name for name in known if "sapiens2" in name or "enormous" in name}
    assert known - set(backbone_names()) == refused


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("eva02_enormous_patch14_clip_224.laion2b", None, "EvaBlockPostNorm; only .*pre-norm"),
        ("vit_base_patch16_sapiens2", None, "1024 x 768 pixels.*set backbone.img_size.* 768"),
    ],
)
def test_what_cannot_be_taken_apart_says_why(
    name: str, size: int | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # all blocks: they are not alike
    with pytest.raises(ConfigError, match=message):
        load_backbone(BackboneConfig(name=name, img_size=size), device="meta")


def test_grouped_queries_are_refused_and_models_without_them_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    with pytest.raises(ConfigError, match="block 8 has .* grouped-query Attention"):
        load_backbone(
            BackboneConfig(name="vit_large_patch16_sapiens2", img_size=256), device="meta"
        )
    cfg = BackboneConfig(name="vit_base_patch16_sapiens2", img_size=256)
    assert load_backbone(cfg, device="meta").layout.num_prefix == 9


@pytest.mark.parametrize(
    "name",
    ["vit_tiny_patch16_dinov3_qkvb", "eva02_tiny_patch14_224", "vit_pe_core_tiny_patch16_384"],
)
def test_cls_can_be_read_where_timm_reads_the_mean(name: str, tmp_path: Path) -> None:
    side = IN_SMALL[name][0]
    vit = timms(name, img_size=side, num_classes=3)
    save_file(vit.state_dict(), tmp_path / "w.safetensors")
    cfg = BackboneConfig(
        name=name, weights=str(tmp_path / "w.safetensors"), img_size=side, pool="token",
        norm_stats="imagenet",
    )  # fmt: skip
    if "pe_core" in name:
        with pytest.raises(ConfigError, match="'token' needs a model with CLS .*pool 'map'"):
            load_backbone(cfg)
        return
    ours, x = load_backbone(cfg), torch.randn(2, 3, side, side)
    expected = vit.fc_norm(vit.norm(_last(vit, x)))
    assert torch.equal(features(ours, x), expected[:, 0])
    assert (ours.rows_read, ours.layout.pool, ours.num_source_classes) == (1, "token", 0)


def _last(vit: Any, x: Tensor) -> Tensor:
    """Tokens behind the last block."""
    tokens, rope = vit._pos_embed(vit.patch_embed(x))
    for block in vit.blocks:
        tokens = block(tokens, rope=rope)
    return tokens
