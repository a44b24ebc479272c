"""Loading weights, refusing wrong ones, and the geometry of real models."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from tcpa_core.errors import ConfigError, WeightsError
from tcpa_core.model.backbone import Backbone
from tcpa_core.model.load_backbone import NANO_GEOMETRY, load_backbone, weights_fingerprint
from tcpa_core.settings import BackboneConfig

DEIT = "deit-tiny/deit_tiny_patch16_224.fp16.safetensors"


def nano_state() -> dict[str, Tensor]:
    """Weights of a vit_nano that are easy to recognise."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return VisionTransformer(**NANO_GEOMETRY, num_classes=11).state_dict()


def nano_at(path: Path, **changes: Any) -> BackboneConfig:
    return BackboneConfig(name="vit_nano", weights=str(path), **changes)


def test_the_shipped_backbone_loads() -> None:
    ours = load_backbone(BackboneConfig())
    layout = ours.layout
    assert (layout.num_prefix, layout.num_image, layout.depth) == (1, 16, 6)
    assert ours.img_size == 32
    assert ours.fingerprint.startswith("sha256:")
    assert ours.fingerprint == weights_fingerprint(BackboneConfig())
    assert not ours.warnings
    assert not any(p.requires_grad for p in ours.parameters())
    assert ours.dtype == torch.float32
    assert ours.norm_stats("checkpoint") == (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)


def test_the_backbone_stays_in_evaluation_mode() -> None:
    ours = load_backbone(BackboneConfig())
    assert not ours.train().training
    assert not any(m.training for m in ours.modules())


def test_deit_gives_its_reference_features(shared: Path) -> None:
    path = shared / "data" / DEIT
    ours = load_backbone(BackboneConfig(name="deit_tiny_patch16_224", weights=str(path)))
    with np.load(shared / "data" / "deit-tiny" / "reference.npz") as reference:
        expected = torch.from_numpy(reference["sin_cls_feature"])
    x = np.sin(0.01 * np.arange(2 * 3 * 224 * 224)).astype(np.float32).reshape(2, 3, 224, 224)
    features = ours.read(ours.vit.blocks(ours.embed(torch.from_numpy(x))))
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-4)
    assert ours.norm_stats("checkpoint") == (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    assert ours.norm_stats("half") == ((0.5,) * 3, (0.5,) * 3)


def test_positions_are_resized_to_the_image(shared: Path) -> None:
    path = str(shared / "data" / DEIT)
    cfg = BackboneConfig(name="deit_tiny_patch16_224", weights=path, img_size=112)
    ours = load_backbone(cfg)
    assert ours.layout.grid == (7, 7)
    assert ours.embed(torch.zeros(1, 3, 112, 112)).shape == (1, 50, 192)


@pytest.mark.parametrize("kind", ["plain", "model", "state_dict", "module", "half", "npz", "bare"])
def test_every_layout_of_a_file_gives_the_same_weights(kind: str, tmp_path: Path) -> None:
    state = nano_state()
    expected = state["blocks.5.mlp.fc2.weight"]
    path = tmp_path / {"plain": "w.safetensors", "npz": "w.npz"}.get(kind, "w.pth")
    if kind == "plain":
        save_file(state, path)
    elif kind == "npz":
        np.savez(path, **{k: v.numpy() for k, v in state.items()})
    elif kind == "half":
        torch.save({k: v.half() for k, v in state.items()}, path)
        expected = expected.half().float()
    elif kind == "module":
        torch.save({f"module.{k}": v for k, v in state.items()}, path)
    elif kind == "bare":
        torch.save({k: v for k, v in state.items() if not k.startswith("head.")}, path)
    else:
        torch.save({kind: state, "epoch": 3}, path)
    ours = load_backbone(nano_at(path))
    assert torch.equal(ours.vit.blocks[5].mlp.fc2.weight, expected)
    assert ours.vit.pos_embed.dtype == torch.float32


def classes_are(ours: Backbone, state: dict[str, Tensor]) -> None:
    """The backbone's own classifier is the state's head."""
    x = torch.randn(2, ours.layout.feature_dim, generator=torch.Generator().manual_seed(0))
    expected = x @ state["head.weight"].T + state["head.bias"]
    assert ours.num_source_classes == len(state["head.bias"])
    torch.testing.assert_close(ours.source_logits(x), expected)
    assert isinstance(ours.vit.head, nn.Identity)


def test_the_classifier_of_a_file_is_kept_apart(tmp_path: Path) -> None:
    state = nano_state()
    save_file(state, tmp_path / "w.safetensors")
    ours = load_backbone(nano_at(tmp_path / "w.safetensors"))
    classes_are(ours, state)
    assert ours.source_flops == 2 * 11 * 128
    averaged = load_backbone(nano_at(tmp_path / "w.safetensors", pool="avg"))
    assert averaged.num_source_classes == 0, "it was trained on CLS"


def to_jax(state: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """The names and layouts of the official JAX files."""
    width, heads = state["cls_token"].shape[-1], NANO_GEOMETRY["num_heads"]
    arrays = {
        "embedding/kernel": state["patch_embed.proj.weight"].permute(2, 3, 1, 0),
        "embedding/bias": state["patch_embed.proj.bias"],
        "cls": state["cls_token"],
        "Transformer/posembed_input/pos_embedding": state["pos_embed"],
        "Transformer/encoder_norm/scale": state["norm.weight"],
        "Transformer/encoder_norm/bias": state["norm.bias"],
        "head/kernel": state["head.weight"].T,
        "head/bias": state["head.bias"],
    }
    for i in range(NANO_GEOMETRY["depth"]):
        ours, theirs = f"blocks.{i}", f"Transformer/encoderblock_{i}"
        for norm, name in (("norm1", "LayerNorm_0"), ("norm2", "LayerNorm_2")):
            arrays[f"{theirs}/{name}/scale"] = state[f"{ours}.{norm}.weight"]
            arrays[f"{theirs}/{name}/bias"] = state[f"{ours}.{norm}.bias"]
        attn = f"{theirs}/MultiHeadDotProductAttention_1"
        weights = state[f"{ours}.attn.qkv.weight"].chunk(3)
        biases = state[f"{ours}.attn.qkv.bias"].chunk(3)
        for part, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
            arrays[f"{attn}/{part}/kernel"] = weight.T.reshape(width, heads, -1)
            arrays[f"{attn}/{part}/bias"] = bias.reshape(heads, -1)
        out = state[f"{ours}.attn.proj.weight"].T
        arrays[f"{attn}/out/kernel"] = out.reshape(heads, -1, width)
        arrays[f"{attn}/out/bias"] = state[f"{ours}.attn.proj.bias"]
        for layer, name in (("fc1", "Dense_0"), ("fc2", "Dense_1")):
            arrays[f"{theirs}/MlpBlock_3/{name}/kernel"] = state[f"{ours}.mlp.{layer}.weight"].T
            arrays[f"{theirs}/MlpBlock_3/{name}/bias"] = state[f"{ours}.mlp.{layer}.bias"]
    return {name: value.numpy() for name, value in arrays.items()}


def test_an_official_jax_file_gives_weights_and_classifier(tmp_path: Path) -> None:
    state = nano_state()
    np.savez(tmp_path / "w.npz", **to_jax(state))
    ours = load_backbone(nano_at(tmp_path / "w.npz"))
    for name, value in ours.vit.state_dict().items():
        assert torch.equal(value, state[name]), name
    classes_are(ours, state)
    hidden = {"pre_logits/kernel": np.zeros((128, 128)), "pre_logits/bias": np.zeros(128)}
    np.savez(tmp_path / "pre.npz", **to_jax(state), **hidden)
    assert load_backbone(nano_at(tmp_path / "pre.npz")).num_source_classes == 0


@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"])
def test_the_classifier_of_the_hub_is_kept_apart(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = []

    def fetched(*args: object, pretrained: bool, **kwargs: object) -> nn.Module:
        assert pretrained
        built.append(VisionTransformer(**NANO_GEOMETRY, num_classes=1000))
        if "distilled" in name:
            built[-1] = VisionTransformerDistilled(**NANO_GEOMETRY, num_classes=1000)
        built[-1].state = {k: v.clone() for k, v in built[-1].state_dict().items()}
        return built[-1]

    monkeypatch.setattr(timm, "create_model", fetched)
    ours = load_backbone(BackboneConfig(name=name))
    state: dict[str, Tensor] = built[0].state
    if "distilled" not in name:
        classes_are(ours, state)
        return
    x = torch.randn(2, 256, generator=torch.Generator().manual_seed(0))
    first = x[:, :128] @ state["head.weight"].T + state["head.bias"]
    second = x[:, 128:] @ state["head_dist.weight"].T + state["head_dist.bias"]
    torch.testing.assert_close(ours.source_logits(x), (first + second) / 2)


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("vit_tiny_patch16_224", 1000),
        ("vit_tiny_patch16_224.augreg_in21k", 21843),
        ("vit_base_patch16_224.mae", 0),
    ],
)
def test_random_weights_have_the_hubs_classes(name: str, classes: int) -> None:
    """Plans use them in place of the hub's, without a network."""
    with torch.device("meta"):
        ours = load_backbone(BackboneConfig(name=name, weights="random"), device="meta")
    assert ours.num_source_classes == classes


def test_the_fingerprint_follows_the_content_not_the_path(tmp_path: Path) -> None:
    state = nano_state()
    save_file(state, tmp_path / "a.safetensors")
    save_file(state, tmp_path / "b.safetensors")
    first, second = (
        weights_fingerprint(nano_at(tmp_path / f"{n}.safetensors")) for n in ("a", "b")
    )
    assert first == second
    state["norm.bias"] += 1
    save_file(state, tmp_path / "b.safetensors")
    assert weights_fingerprint(nano_at(tmp_path / "b.safetensors")) != first


def test_the_fingerprint_of_hub_weights_needs_no_network() -> None:
    cfg = BackboneConfig(name="vit_base_patch16_224")
    assert weights_fingerprint(cfg) == "hub:vit_base_patch16_224@augreg2_in21k_ft_in1k"
    other = BackboneConfig(name="vit_base_patch16_224.orig_in21k")
    assert weights_fingerprint(other) == "hub:vit_base_patch16_224@orig_in21k"


def test_random_weights_are_a_fixed_set_and_labelled() -> None:
    cfg = BackboneConfig(weights="random")
    before = torch.random.get_rng_state()
    first, second = load_backbone(cfg), load_backbone(cfg)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first.vit.blocks[0].attn.qkv.weight, second.vit.blocks[0].attn.qkv.weight)
    assert first.fingerprint == "random:vit_nano"
    assert first.warnings == ["Backbone vit_nano has random weights: accuracies mean nothing."]


def test_missing_and_foreign_tensors_are_named(tmp_path: Path) -> None:
    state = nano_state()
    state["surplus.weight"] = state.pop("norm.weight")
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(
        WeightsError,
        match=r"1 tensors missing \(norm.weight\), 1 not known \(surplus.weight\)",
    ):
        load_backbone(nano_at(tmp_path / "w.safetensors"))


def test_a_tensor_of_another_shape_is_named(tmp_path: Path) -> None:
    state = nano_state()
    state["blocks.0.mlp.fc1.bias"] = torch.zeros(7)
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"blocks.0.mlp.fc1.bias has shape \(7,\), .* \(512,\)"):
        load_backbone(nano_at(tmp_path / "w.safetensors"))


@pytest.mark.parametrize("ending", ["safetensors", "pth", "npz"])
def test_a_torn_file_is_said_to_be_one(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"w.{ending}"
    path.write_bytes(b"no weights")
    with pytest.raises(WeightsError, match=rf"w.{ending} cannot be read as weights"):
        load_backbone(nano_at(path))


class Harmful:
    """What a pickle could carry."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("harm"),))  # type: ignore[return-value]


def test_code_in_a_file_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Harmful()}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="UnpicklingError"):
        load_backbone(nano_at(tmp_path / "w.pth"))
    assert not (tmp_path / "harm").exists()


def test_a_missing_file_is_an_error_before_anything_is_built(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="backbone.weights: no file .*give the path"):
        weights_fingerprint(nano_at(tmp_path / "absent.pth"))


def test_no_network_says_which_setting_to_give(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> nn.Module:
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(WeightsError, match="could not be fetched .*set backbone.weights to"):
        load_backbone(BackboneConfig(name="vit_tiny_patch16_224"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vit_tinny_patch16_224", "got 'vit_tinny_patch16_224'; closest name: 'vit_tiny_patch16"),
        ("resnet18", "'resnet18' is a ResNet; only timm VisionTransformer"),
        ("vit_small_patch16_18x2_224", "unsupported block type ParallelThingsBlock"),
        ("swin_tiny_patch4_window7_224", "'swin_tiny_patch4_window7_224' is a SwinTransformer"),
    ],
)
def test_models_that_cannot_be_taken_apart_are_refused(name: str, message: str) -> None:
    with torch.device("meta"), pytest.raises(ConfigError, match=message):
        load_backbone(BackboneConfig(name=name, weights="random"))


def test_other_attention_is_refused() -> None:
    vit = VisionTransformer(**{**NANO_GEOMETRY, "attn_layer": "diff"})
    with pytest.raises(ConfigError, match="unsupported block type DiffAttention"):
        Backbone(vit)


def test_layouts_of_real_models() -> None:
    with torch.device("meta"):
        registers = Backbone(timm.create_model("vit_small_patch14_reg4_dinov2", num_classes=0))
        distilled = Backbone(timm.create_model("deit_tiny_distilled_patch16_224", num_classes=0))
        pooled = Backbone(timm.create_model("vit_base_patch16_siglip_224", num_classes=0))
    assert registers.layout.num_prefix == 5
    assert registers.layout.num_registers == 4
    assert registers.rows_read == 1
    assert distilled.layout.has_dist
    assert (distilled.rows_read, distilled.layout.feature_dim) == (2, 384)
    assert (pooled.layout.num_prefix, pooled.layout.pool, pooled.rows_read) == (0, "map", None)


def test_a_model_that_reads_cls_can_be_averaged() -> None:
    """As timm's own model with average pooling and the same weights."""
    cls, mean = (
        load_backbone(BackboneConfig(name="vit_nano", pool=pool)) for pool in (None, "avg")
    )
    assert (cls.layout.pool, mean.layout.pool, mean.rows_read) == ("token", "avg", None)
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    tokens = cls.embed(x)
    for block in cls.blocks:
        tokens = block(tokens)
    assert torch.equal(mean.read(tokens), cls.vit.norm(tokens[:, 1:].mean(1)))
    with pytest.raises(ConfigError, match="backbone.pool: 'avg' needs a model that reads CLS"):
        load_backbone(
            BackboneConfig(name="deit_tiny_distilled_patch16_224", weights="random", pool="avg")
        )
