"""Files of weights in circulation: each is read as its program means it, or refused by name."""

import argparse
import contextlib
import copy
import datetime
import decimal
import functools
import gzip
import io
import json
import pathlib
import pickle
import random
import re
import sys
import tarfile
import types
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torchvision.models.vision_transformer import VisionTransformer as TorchvisionViT

from tcpa_core.errors import ConfigError, WeightsError
from tcpa_core.model.backbone import Backbone
from tcpa_core.model.layouts import EVA_LAYOUTS, LAYOUTS
from tcpa_core.model.layouts import PLAIN as PLAIN_LAYOUT
from tcpa_core.model.load_backbone import load_backbone, weights_fingerprint
from tcpa_core.model.preprocessing import NAMED
from tcpa_core.model.which_model import model_of_file
from tcpa_core.settings import BackboneConfig, DataConfig
from tests.tcpa_core import checkpoints as of

State = dict[str, Tensor]
CHECKOUT = Path(__file__).parents[2]
REGISTERS = torch.linspace(-1, 1, 4 * of.WIDTH).reshape(4, of.WIDTH)


def ones(*names: str) -> State:
    """Parts that nothing is read from."""
    return {name: torch.ones(3) for name in names}


def under(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": value for name, value in state.items()}


def head(name: str = "head") -> State:
    return {f"{name}.weight": torch.ones(5, of.WIDTH), f"{name}.bias": torch.zeros(5)}


PLAIN, SCALED = of.roles(), of.roles(scale=True)
TIMM = of.timm_names(PLAIN)
CLIP = of.roles(bias=False, pre_norm=True)
SIGLIP = of.roles(num_prefix=0, pool=True)
SWIGLU = of.roles(scale=True, swiglu=True)
DISTILLED = of.roles(num_prefix=2)
VIDEO = {**TIMM, "patch_embed.proj.weight": torch.ones(of.WIDTH, 3, 2, 8, 8)}


@dataclass(frozen=True)
class Case:
    """A file that is read."""

    content: Any
    net: of.Roles = field(default_factory=lambda: PLAIN)
    model: str = "layouts_plain_vit"
    stats: str | None = None
    """Mean and std that it implies; None: the plan asks."""
    classes: int = 0
    said: tuple[str, ...] = ()
    ending: str = ".pth"
    computed: dict[str, Any] = field(default_factory=dict)
    """Of `features`."""


MEAN = {"read": "mean"}
QUICK = {"eps": 1e-5, "act": "quick_gelu"}
HF = {"eps": 1e-12}
OPTIMISER = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}
MOCO = {
    **under("module.base_encoder.", TIMM),
    **ones("module.base_encoder.head.0.weight", "module.predictor.0.weight"),
    **under("module.momentum_encoder.", {k: torch.zeros_like(v) for k, v in TIMM.items()}),
}
DINO_TEACHER = {
    **under("backbone.", TIMM), **ones("head.mlp.0.weight", "head.last_layer.weight_v"),
}  # fmt: skip
DINO_STUDENT = under("module.", {k: torch.zeros_like(v) for k, v in DINO_TEACHER.items()})
DINOV2 = of.timm_names(SCALED) | {"mask_token": torch.ones(1, of.WIDTH)}
DINOV2_REGISTERS = DINOV2 | {"register_tokens": REGISTERS[None]}
CHUNKED = {
    name.replace("blocks.0.", "blocks.0.0.").replace("blocks.1.", "blocks.1.1."): value
    for name, value in DINOV2.items()
}
MAE_DECODER = ones("mask_token", "decoder_embed.weight", "decoder_pos_embed", "decoder_pred.bias")
HF_DECODER = ones("decoder.decoder_embed.weight", "decoder.decoder_layers.0.layernorm_after.bias")
OPENAI = {
    **of.clip_names(CLIP), **of.clip_texts(),
    "input_resolution": torch.tensor(32), "context_length": torch.tensor(77),
    "vocab_size": torch.tensor(49408),
}  # fmt: skip
SIGLIP_TEXTS = ones("text_model.embeddings.token_embedding.weight", "logit_scale", "logit_bias")

READ: dict[str, Case] = {
    # timm's names, whatever stands around them
    "timm": Case({**TIMM, **head()}, classes=5),
    "timm, safetensors": Case({**TIMM, **head()}, classes=5, ending=".safetensors"),
    "model": Case({"model": TIMM, "epoch": 3}),
    "state_dict of Lightning": Case(
        {
            "state_dict": {**under("model.backbone.", TIMM), **head("model.head")},
            "hyper_parameters": argparse.Namespace(lr=0.1),
            "pytorch-lightning_version": "2.1",
        },
        classes=5,
        said=("prefix 'model.backbone.' taken off",),
    ),
    "DDP": Case({"state_dict": under("module.", TIMM)}),
    "torch.compile": Case(under("_orig_mod.", TIMM)),
    "torch.compile of blocks": Case(
        {k.replace("blocks.0.", "blocks.0._orig_mod."): v for k, v in TIMM.items()}
    ),
    "FSDP": Case(
        {
            "_fsdp_wrapped_module."
            + k.replace("blocks.1.", "blocks.1._checkpoint_wrapped_module."): v
            for k, v in TIMM.items()
        }
    ),
    "DeepSpeed": Case({"module": TIMM, "optimizer": OPTIMISER, "ds_version": "0.9"}),
    "state_dict_ema": Case({"state_dict_ema": TIMM, "arch": "vit"}),
    "model beside model_ema": Case(
        {"model": TIMM, "model_ema": {k: torch.zeros_like(v) for k, v in TIMM.items()}},
        said=("'model' read, not model_ema",),
    ),
    "ema": Case({"ema": {"module": TIMM}}),
    "net": Case({"net": TIMM, "acc": 0.9}),
    "params": Case({"params": TIMM}),
    "backbone beside a neck": Case(
        {**under("backbone.", TIMM), **ones("neck.fc.weight")}, said=("dropped neck",)
    ),
    "encoder": Case(under("encoder.", TIMM)),
    "prefixes in each other": Case(under("module.model.encoder.backbone.", TIMM)),
    "net and student": Case(under("student.net.", TIMM), stats="imagenet"),
    "teacher beside student": Case(
        {**under("student.", {k: 0 * v for k, v in TIMM.items()}), **under("teacher.", TIMM)},
        stats="imagenet",
        said=("dropped student",),
    ),
    "image_encoder": Case({**under("image_encoder.", TIMM), **ones("text_encoder.norm.bias")}),
    "open_clip around timm": Case(
        {**under("visual.trunk.", TIMM), **of.clip_texts(), **ones("visual.head.proj.weight")},
        said=("dropped text tower, logit_scale, head",),
    ),
    "options in argparse.Namespace": Case(
        {"model": TIMM, "args": argparse.Namespace(out=pathlib.PurePosixPath("x"), lr=0.1)}
    ),
    "counters of NumPy": Case({"model": TIMM, "best": np.float64(0.9), "log": np.arange(3.0)}),
    "optimiser beside": Case({"model": TIMM, "optimizer": OPTIMISER, "scaler": {"scale": 1.0}}),
    "float16": Case({k: v.half() for k, v in TIMM.items()}),
    "bfloat16": Case({k: v.bfloat16() for k, v in TIMM.items()}, ending=".safetensors"),
    "float64": Case({k: v.double() for k, v in TIMM.items()}),
    "parameters": Case({k: nn.Parameter(v) for k, v in TIMM.items()}),
    ".ckpt": Case({"state_dict": TIMM}, ending=".ckpt"),
    ".bin": Case(TIMM, ending=".bin"),
    ".pth.tar": Case({"state_dict": TIMM, "epoch": 1}, ending=".pth.tar"),
    "timm, npz": Case(TIMM, ending=".npz"),
    # programs with timm's names
    "MAE encoder": Case({"model": TIMM}),
    "MAE": Case(
        {"model": {**TIMM, **MAE_DECODER}}, stats="imagenet", said=("dropped mask_token, decoder",)
    ),
    "MAE fine-tuned": Case(
        {"model": {**of.timm_names(PLAIN, norm="fc_norm"), **head()}},
        stats="imagenet",
        classes=5,
        said=("MAE fine-tuned names", "pool avg"),
        computed=MEAN,
    ),
    "MoCo v3": Case(
        {"state_dict": MOCO, "epoch": 300, "arch": "vit_base"},
        stats="imagenet",
        said=("MoCo v3 names", "dropped head, predictor, momentum_encoder"),
    ),
    "MoCo v3 with a linear head": Case(
        {"state_dict": under("module.", {**TIMM, **head()})}, classes=5
    ),
    "DINO": Case(
        {"teacher": DINO_TEACHER, "student": DINO_STUDENT, "args": argparse.Namespace()},
        stats="imagenet",
        said=("'teacher' read, not student", "DINO names", "dropped head"),
    ),
    "DINO backbone": Case(TIMM),
    "iBOT": Case(
        {"state_dict": {**DINO_TEACHER, "backbone.masked_embed": torch.ones(1, of.WIDTH)}},
        stats="imagenet",
        said=("masked_embed",),
    ),
    "I-JEPA": Case(
        {"encoder": under("module.", TIMM), "predictor": ones("module.x"), "target_encoder": TIMM},
        said=("'encoder' read, not target_encoder",),
    ),
    "DINOv2": Case(DINOV2, SCALED, "layouts_scaled_vit", "imagenet", said=("DINOv2 names",)),
    "DINOv2 in training": Case(
        {
            "teacher": {
                **under("backbone.", CHUNKED),
                **ones("dino_head.mlp.0.bias", "ibot_head.mlp.0.bias"),
            }
        },
        SCALED,
        "layouts_scaled_vit",
        "imagenet",
        said=("dropped dino_head, ibot_head",),
    ),
    "DINOv2 with registers": Case(
        DINOV2_REGISTERS, SCALED, "layouts_registers_vit", "imagenet",
        computed={"registers": REGISTERS},
    ),
    "DINOv2 with gated MLPs": Case(
        {k.replace("fc1", "w12").replace("fc2", "w3"): v for k, v in of.timm_names(SWIGLU).items()}
        | {"mask_token": torch.ones(1, of.WIDTH)},
        SWIGLU, "layouts_swiglu_vit", "imagenet", computed={"act": "swiglu"},
    ),
    "DeiT III": Case(
        of.timm_names(SCALED, scale="gamma_{}"), SCALED, "layouts_scaled_vit", "imagenet"
    ),
    "DeiT distilled": Case(
        {"model": {**of.timm_names(DISTILLED), **head(), **head("head_dist")}},
        DISTILLED, "layouts_distilled_vit", "imagenet", 5, computed={"read": "both"},
    ),
    # CLIP
    "OpenAI CLIP, state dict": Case(
        {k: v.half() if v.is_floating_point() else v for k, v in OPENAI.items()},
        CLIP, "layouts_clip_quickgelu_vit", "clip", computed=QUICK,
        said=("OpenAI CLIP names", "dropped text tower, logit_scale, input_resolution"),
    ),
    "OpenAI CLIP in a model with GELU": Case(
        OPENAI, CLIP, "layouts_openai_vit", "clip", computed=QUICK, said=("MLPs with quick GELU",)
    ),
    "open_clip": Case(
        {**of.clip_names(CLIP), **of.clip_texts()}, CLIP, "layouts_clip_vit",
        computed={"eps": 1e-5}, said=("CLIP names", "GELU as layouts_clip_vit has it"),
    ),
    "open_clip in training": Case(
        {"state_dict": under("module.", {**of.clip_names(CLIP), **of.clip_texts()}), "name": "x"},
        CLIP, "layouts_clip_quickgelu_vit", computed=QUICK, said=("quick GELU as",),
    ),
    "CLIP's picture tower": Case(
        of.clip_names(CLIP, ""), CLIP, "layouts_clip_vit", computed={"eps": 1e-5}
    ),
    # transformers
    "HF ViT": Case(
        {**of.hf_vit(PLAIN, ""), **head("pooler.dense")},
        said=("HF ViT names", "dropped pooler", "layer norms with eps 1e-12"),
        computed=HF, ending=".safetensors",
    ),
    "HF ViT with a classifier": Case(
        {**of.hf_vit(PLAIN), **head("classifier")}, classes=5, computed=HF
    ),
    "HF ViT-MSN": Case(
        {**of.hf_vit(PLAIN, ""), **ones("embeddings.mask_token")}, computed=HF
    ),
    "HF ViTMAE": Case(
        {**of.hf_vit(PLAIN), **HF_DECODER}, stats="imagenet", computed=HF,
        said=("HF MAE names", "dropped decoder"),
    ),
    "HF DeiT distilled": Case(
        {**of.hf_vit(DISTILLED, "deit."), **head("cls_classifier"),
         **head("distillation_classifier")},
        DISTILLED, "layouts_distilled_vit", "imagenet", 5, computed={**HF, "read": "both"},
    ),
    "HF CLIP": Case(
        {**of.hf_tower(CLIP), **ones("text_model.x.bias", "visual_projection.weight")},
        CLIP, "layouts_clip_quickgelu_vit", "clip", computed=QUICK,
        said=("HF CLIP names", "dropped position_ids, text tower, visual_projection"),
    ),
    "HF CLIP in a model with GELU": Case(
        of.hf_tower(CLIP), CLIP, "layouts_openai_vit", "clip", computed=QUICK
    ),
    "HF SigLIP": Case(
        {**of.hf_tower(SIGLIP), **SIGLIP_TEXTS}, SIGLIP, "layouts_siglip_vit", "inception",
        computed={"act": "gelu_tanh", "read": "pool"},
        said=("HF SigLIP names", "MLPs with GELU by tanh"),
    ),
    "HF DINOv2": Case(
        of.hf_dinov2(SCALED), SCALED, "layouts_scaled_vit", "imagenet", ending=".safetensors"
    ),
    "HF DINOv2 with a classifier": Case(
        {**of.hf_dinov2(SCALED, prefix="dinov2."), "classifier.weight": torch.ones(5, 64),
         "classifier.bias": torch.ones(5)},
        SCALED, "layouts_scaled_vit", "imagenet", said=("dropped classifier",),
    ),
    "HF DINOv2 with registers": Case(
        of.hf_dinov2(SCALED, REGISTERS), SCALED, "layouts_registers_vit", "imagenet",
        computed={"registers": REGISTERS},
    ),
    "HF DINOv2 with gated MLPs": Case(
        of.hf_dinov2(SWIGLU), SWIGLU, "layouts_swiglu_vit", "imagenet",
        computed={"act": "swiglu"},
    ),
    # torchvision, OpenMMLab, JAX
    "torchvision": Case(
        of.torchvision_names(PLAIN), stats="imagenet", classes=5, said=("torchvision names",)
    ),
    "torchvision before 0.13": Case(
        {k.replace("mlp.0", "mlp.linear_1").replace("mlp.3", "mlp.linear_2"): v
         for k, v in of.torchvision_names(PLAIN).items()},
        stats="imagenet", classes=5,
    ),
    "ViT-pytorch": Case(
        {**of.vit_pytorch(PLAIN), **head()}, classes=5, said=("ViT-pytorch, VPT names",)
    ),
    "VPT": Case(
        {"model": {**of.vit_pytorch(PLAIN, "enc.transformer."),
                   **ones("enc.transformer.prompt_embeddings", "head.last_layer.weight")}},
        said=("dropped prompt_embeddings, head",),
    ),
    "mmpretrain": Case(
        {"meta": {"epoch": 1}, "state_dict": {**of.mm_names(PLAIN), **head("head.layers.head")}},
        classes=5, said=("OpenMMLab names",),
    ),
    "mmpretrain, MAE": Case(
        {"state_dict": {**of.mm_names(PLAIN), **ones("backbone.mask_token", "neck.ln1.weight")}},
        said=("dropped mask_token, neck",),
    ),
    "mmpretrain, layer scale": Case(of.mm_names(SCALED), SCALED, "layouts_scaled_vit"),
    "mmpretrain, fine-tuned": Case(
        of.mm_names(PLAIN, norm="ln2"), computed=MEAN, said=("pool avg",)
    ),
    "mmseg": Case({"state_dict": of.mm_names(PLAIN, is_segmenter=True)}),
    "JAX": Case(of.jax_names(PLAIN), stats="inception", said=("JAX names",), ending=".npz"),
    "JAX, params/": Case(of.jax_names(PLAIN, "params/"), stats="inception", ending=".npz"),
    "JAX, opt/target/": Case(
        {**of.jax_names(PLAIN, "opt/target/"), **ones("opt/state/embedding/kernel/grad_ema")},
        stats="inception", said=("dropped state",), ending=".npz",
    ),
    "JAX, stacked": Case(
        of.jax_names(PLAIN, "params/", is_stacked=True), stats="inception", ending=".npz"
    ),
    "big_vision SigLIP": Case(
        {**of.jax_names(SIGLIP, "params/img/"), **ones("params/txt/head/kernel", "params/t")},
        SIGLIP, "layouts_siglip_vit", "inception", ending=".npz",
        computed={"act": "gelu_tanh", "read": "pool"},
        said=("big_vision SigLIP names", "dropped text tower, t;"),
    ),
}  # fmt: skip


def write(content: Any, path: Path) -> None:
    if path.suffix == ".safetensors":
        content, metadata = content if isinstance(content, tuple) else (content, None)
        save_file({k: v.contiguous() for k, v in content.items()}, path, metadata)
    elif path.suffix == ".npz":
        np.savez(path, **{k: v.numpy() for k, v in content.items()})
    else:
        torch.save(content, path)


def load(path: Path, name: str = "layouts_plain_vit", **settings: Any) -> Backbone:
    return load_backbone(BackboneConfig(name=name, weights=str(path), **settings))


def images() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, of.SIDE, of.SIDE, generator=generator)


def read(ours: Backbone, x: Tensor) -> Tensor:
    tokens = ours.embed(x)
    for block in ours.blocks:
        tokens = block(tokens)
    return ours.read(tokens)


def file_of(ours: Backbone) -> str:
    """What is said of the file."""
    told = ours.preprocessing(DataConfig(norm_stats="imagenet"))
    assert told.as_dict().get("file", "") == told.file
    assert told.file in str(told)
    return told.file


@pytest.mark.parametrize("kind", READ)
def test_a_file_is_read_as_its_program_means_it(kind: str, tmp_path: Path) -> None:
    case = READ[kind]
    write(case.content, tmp_path / f"w{case.ending}")
    ours = load(tmp_path / f"w{case.ending}", case.model)
    expected = of.features(case.net, images(), **case.computed)
    rough = "16" in kind or "state dict" in kind  # half-precision files
    bounds = {"rtol": 0.1, "atol": 0.05} if rough else {"rtol": 1e-4, "atol": 2e-5}
    torch.testing.assert_close(read(ours, images()), expected, **bounds)
    assert ours.num_source_classes == case.classes
    for part in case.said:
        assert part in file_of(ours)
    if case.stats is None:
        with pytest.raises(ConfigError, match="backbone.norm_stats: neither the file"):
            ours.norm_stats("checkpoint")
    else:
        assert ours.norm_stats("checkpoint") == NAMED[case.stats]


def test_the_docs_name_every_layout() -> None:
    table = (CHECKOUT / "docs" / "backbones.md").read_text(encoding="utf-8")
    for layout in (*LAYOUTS, *EVA_LAYOUTS):
        assert layout is PLAIN_LAYOUT or layout.title in table, layout.title
    assert len(READ) >= 65
    assert len(REFUSED) >= 40


@pytest.mark.parametrize("kind", READ)
def test_damage_of_any_layout_is_an_error_in_words(kind: str, tmp_path: Path) -> None:
    """Whatever stands under a name: never what a parser or torch says of it."""
    case, draw = READ[kind], random.Random(kind)
    for turn in range(6):
        content = copy.deepcopy(case.content)
        state = draw.choice(list(states(content)))
        name = draw.choice(sorted(state))
        shape = draw.choice([(), (1,), (3,), (0, 3), (of.WIDTH, of.WIDTH), (1, 1, 1, 1, 1)])
        state[name] = torch.ones(shape)
        if turn % 2:
            del state[name]
        path = tmp_path / f"{turn}{case.ending}"
        write(content, path)
        with contextlib.suppress(ConfigError, WeightsError):
            load(path, case.model)


def states(content: dict[str, Any]) -> Iterator[State]:
    """Mappings of tensors in a file."""
    if any(isinstance(value, Tensor) for value in content.values()):
        yield content
    for value in content.values():
        if isinstance(value, dict):
            yield from states(value)


def test_torchvision_itself_agrees(tmp_path: Path) -> None:
    torch.manual_seed(2)
    theirs = TorchvisionViT(of.SIDE, of.PATCH, of.DEPTH, of.HEADS, of.WIDTH, of.HIDDEN).eval()
    with torch.no_grad():
        for weight in theirs.parameters():
            weight.normal_(0, 0.3)
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    ours = load(tmp_path / "w.pth")
    with torch.no_grad():
        logits = theirs(images())
    torch.testing.assert_close(
        ours.source_logits(read(ours, images())), logits, rtol=1e-4, atol=1e-4
    )


def test_torchs_old_format_is_read(tmp_path: Path) -> None:
    content = {"model": TIMM, "args": argparse.Namespace(lr=0.1)}
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    expected = of.features(PLAIN, images())
    torch.testing.assert_close(read(load(tmp_path / "w.pth"), images()), expected)


def test_options_of_any_class_are_passed_over(tmp_path: Path) -> None:
    """As DINOv2's and fairseq's files have them; nothing of the class is there to run."""
    module = types.ModuleType("options_of_somebody")
    kinds = {base: type(base.__name__, (base,), {"__module__": module.__name__})
             for base in (dict, object)}  # fmt: skip
    for kind in kinds.values():
        setattr(module, kind.__name__, kind)
    sys.modules[module.__name__] = module
    try:
        options = kinds[dict](lr=0.1)
        options.inner = kinds[object]()
        torch.save({"cfg": options, "model": TIMM}, tmp_path / "w.pth")
    finally:
        del sys.modules[module.__name__]
    assert load(tmp_path / "w.pth").img_size == of.SIDE


@pytest.mark.parametrize(
    "value",
    [torch.nn.GELU, torch.optim.AdamW, functools.partial(torch.optim.AdamW, lr=0.1),
     frozenset({1}), datetime.date(2026, 1, 2), decimal.Decimal(1)],
    ids=repr,
)  # fmt: skip
def test_classes_and_values_among_options_are_passed_over(value: object, tmp_path: Path) -> None:
    """As Lightning's files have them; a class of torch does not make a file a pickled network."""
    torch.save({"state_dict": TIMM, "hyper_parameters": {"x": value}}, tmp_path / "w.pth")
    expected = of.features(PLAIN, images())
    torch.testing.assert_close(read(load(tmp_path / "w.pth"), images()), expected)


@pytest.mark.parametrize("is_old", [False, True])
def test_a_torch_file_under_another_ending_is_read(is_old: bool, tmp_path: Path) -> None:
    for ending in (".safetensors", ".npz", ""):
        path = tmp_path / f"w{ending}"
        torch.save(TIMM, path, _use_new_zipfile_serialization=not is_old)
        expected = of.features(PLAIN, images())
        torch.testing.assert_close(read(load(path), images()), expected)


@pytest.mark.parametrize("counter", ["n_averaged", "step", "initted"])
def test_counters_of_averaged_weights_are_passed_over(counter: str, tmp_path: Path) -> None:
    """As torch.optim.swa_utils.AveragedModel writes them beside its `module.`"""
    content = {counter: torch.tensor(counter == "initted" or 5), **under("module.", TIMM)}
    torch.save(content, tmp_path / "w.pth")
    expected = of.features(PLAIN, images())
    torch.testing.assert_close(read(load(tmp_path / "w.pth"), images()), expected)


def script(state: State, path: Path) -> None:
    """A TorchScript archive with these tensors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch no longer recommends it
        torch.jit.save(torch.jit.trace(of.Tree(state), torch.ones(1)), str(path))


def test_openais_own_archive_is_read_without_its_code(tmp_path: Path) -> None:
    script({k: v.half() if v.is_floating_point() else v for k, v in OPENAI.items()},
           tmp_path / "ViT-B-16.pt")  # fmt: skip
    with zipfile.ZipFile(tmp_path / "ViT-B-16.pt") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "ViT-B-16.pt", "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, b"raise SystemExit" if name.endswith(".py") else content)
    ours = load(tmp_path / "ViT-B-16.pt", "layouts_clip_quickgelu_vit")
    expected = of.features(CLIP, images(), **QUICK)
    torch.testing.assert_close(read(ours, images()), expected, rtol=0.1, atol=0.05)
    assert ours.norm_stats("checkpoint") == NAMED["clip"]
    script(TIMM, tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "plain.pt") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "plain.pt", "w") as archive:
        for name, content in parts.items():  # where newer torch keeps the version
            archive.writestr(re.sub(r"/version$", "/.data/version", name), content)
    expected = of.features(PLAIN, images())
    torch.testing.assert_close(read(load(tmp_path / "plain.pt"), images()), expected)


# timm's Eva family


def eva_names(name: str) -> State:
    """timm's names, with random weights."""
    with torch.device("meta"):
        shapes = timm.create_model(name).state_dict()
    generator = torch.Generator().manual_seed(3)
    return {k: torch.randn(v.shape, generator=generator) for k, v in shapes.items()}


def dinov3_names(state: State) -> State:
    """Meta's own: biases that are all 0, parts of the training."""
    found = ones("mask_token", "rope_embed.periods", "local_cls_norm.weight")
    for name, value in state.items():
        own = name.replace("reg_token", "storage_tokens").replace("gamma_", "ls")
        found[f"{own}.gamma" if ".ls" in own else own] = value
        if name.endswith("qkv.weight"):
            found[name.replace("weight", "bias")] = torch.zeros(len(value))
            found[name.replace("weight", "bias_mask")] = torch.ones(len(value))
    return found


PERCEPTION = (
    ("patch_embed.proj", "conv1"), ("pos_embed", "positional_embedding"),
    ("blocks.", "transformer.resblocks."), ("norm_pre", "ln_pre"), ("norm1", "ln_1"),
    ("norm2", "ln_2"), ("attn.qkv.", "attn.in_proj_"), ("attn.proj", "attn.out_proj"),
    ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj"), ("cls_token", "class_embedding"),
    ("attn_pool.proj", "attn_pool.attn.out_proj"), ("attn_pool.norm", "attn_pool.layernorm"),
    ("attn_pool.latent", "attn_pool.probe"), ("attn_pool.kv.", "attn_pool.attn.in_proj_"),
    ("gamma_1", "ls_1.gamma"), ("gamma_2", "ls_2.gamma"),
)  # fmt: skip


def perception_names(state: State) -> State:
    """Meta's own."""
    found = ones("text_projection", "logit_scale")
    for name, value in state.items():
        own = f"ln_post.{name.removeprefix('norm.')}" if name.startswith("norm.") else name
        for ours, theirs in PERCEPTION:
            own = own.replace(ours, theirs)
        if "attn_pool.kv." in name:
            value = torch.cat([state[name.replace("kv", "q")], value])
        if "attn_pool.q." not in name:
            found[f"visual.{own}"] = value
    found["visual.class_embedding"] = state["cls_token"].flatten()
    found["visual.positional_embedding"] = state["pos_embed"][0]
    return found


@pytest.mark.parametrize("prefix", ["", "module.", "backbone."])
@pytest.mark.parametrize(
    ("name", "rename"),
    [
        ("layouts_eva02_vit", dict),
        ("layouts_dinov3_vit", dict),
        ("layouts_pe_vit", dict),
        ("layouts_dinov3_vit", dinov3_names),
        ("layouts_pe_vit", perception_names),
    ],
)
def test_files_of_the_eva_family_are_read_as_timm_reads_them(
    name: str, rename: Callable[[State], State], prefix: str, tmp_path: Path
) -> None:
    state = eva_names(name)
    torch.save(under(prefix, rename(state)), tmp_path / "w.pth")
    found = load(tmp_path / "w.pth", name).vit.state_dict()
    assert found.keys() == state.keys()
    for key, value in found.items():
        assert torch.equal(value, state[key]), key


# The kind of GELU


def test_a_model_with_the_files_gelu_is_named_where_timm_has_it(tmp_path: Path) -> None:
    torch.save(OPENAI, tmp_path / "w.pth")
    cfg = BackboneConfig(name="layouts_clip_vit", weights=str(tmp_path / "w.pth"))
    better = "quick GELU, 'layouts_clip_vit' has .* backbone.name=layouts_clip_quickgelu_vit"
    with pytest.raises(ConfigError, match=better):
        load_backbone(cfg)
    before = load_backbone(cfg, recorded=True)
    expected = of.features(CLIP, images(), eps=1e-5, act="gelu")
    torch.testing.assert_close(read(before, images()), expected, rtol=1e-4, atol=2e-5)
    assert "Computed as before" in before.warnings[0]


@pytest.mark.parametrize(
    ("file", "document", "act"),
    [
        ("config.json", {"vision_config": {"hidden_act": "gelu", "layer_norm_eps": 1e-3}}, "gelu"),
        ("config.json", {"hidden_act": "gelu_new", "layer_norm_eps": 1e-3}, "gelu_tanh"),
    ],
)
def test_a_description_of_transformers_tells_gelu_and_eps(
    file: str, document: dict[str, Any], act: str, tmp_path: Path
) -> None:
    torch.save(of.hf_tower(CLIP), tmp_path / "pytorch_model.bin")
    (tmp_path / file).write_text(json.dumps(document))
    ours = load(tmp_path / "pytorch_model.bin", "layouts_openai_vit")
    expected = of.features(CLIP, images(), eps=1e-3, act=act)
    torch.testing.assert_close(read(ours, images()), expected, rtol=1e-4, atol=2e-5)
    assert "layer norms with eps 0.001" in file_of(ours)
    (tmp_path / file).write_text(json.dumps({"hidden_act": "silu"}))
    with pytest.raises(WeightsError, match="config.json .* hidden_act='silu'"):
        load(tmp_path / "pytorch_model.bin", "layouts_openai_vit")


@pytest.mark.parametrize("is_quick", [True, False])
def test_a_description_of_open_clip_tells_gelu(is_quick: bool, tmp_path: Path) -> None:
    torch.save(of.clip_names(CLIP), tmp_path / "open_clip_pytorch_model.bin")
    document = {"model_cfg": {"quick_gelu": True} if is_quick else {"embed_dim": 16}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(document))
    ours = load(tmp_path / "open_clip_pytorch_model.bin", "layouts_openai_vit")
    act = "quick_gelu" if is_quick else "gelu"
    expected = of.features(CLIP, images(), eps=1e-5, act=act)
    torch.testing.assert_close(read(ours, images()), expected, rtol=1e-4, atol=2e-5)


# Heads


def test_another_number_of_heads_is_no_match(tmp_path: Path) -> None:
    kernels = of.jax_names(PLAIN)
    for name, value in kernels.items():
        if "/MultiHead" in name and "/out/" not in name:
            shape = (*value.shape[:-2], 4, 8)
            kernels[name] = value.reshape(shape)
        elif name.endswith("/out/kernel"):
            kernels[name] = value.reshape(4, 8, of.WIDTH)
    write(kernels, tmp_path / "w.npz")
    with pytest.raises(ConfigError, match=r"w.npz \(JAX\) has 4 heads, 'layouts_plain_vit' has 2"):
        load(tmp_path / "w.npz")


def test_moco_v3s_small_model_has_heads_of_its_own(tmp_path: Path) -> None:
    with torch.device("meta"):
        shapes = timm.create_model("vit_small_patch16_224", num_classes=0).state_dict()
    state = {f"module.base_encoder.{k}": torch.ones(v.shape) for k, v in shapes.items()}
    torch.save({"state_dict": state}, tmp_path / "vit-s-300ep.pth.tar")
    with pytest.raises(ConfigError, match=r"\(MoCo v3\) has 12 heads, .*small_patch16_224' has 6"):
        load(tmp_path / "vit-s-300ep.pth.tar", "vit_small_patch16_224")
    cfg = BackboneConfig(
        name="vit_small_patch16_224", weights=str(tmp_path / "vit-s-300ep.pth.tar")
    )
    assert "Computed as before" in load_backbone(cfg, recorded=True).warnings[0]


def test_a_description_of_transformers_tells_heads(tmp_path: Path) -> None:
    """It belongs to the identity of the weights."""
    torch.save(of.hf_vit(PLAIN), tmp_path / "pytorch_model.bin")
    cfg = BackboneConfig(name="layouts_plain_vit", weights=str(tmp_path / "pytorch_model.bin"))
    bare, before = weights_fingerprint(cfg), read(load_backbone(cfg), images())
    document = {"model_type": "vit", "hidden_size": of.WIDTH, "num_attention_heads": 4}
    (tmp_path / "config.json").write_text(json.dumps(document))
    ours = load_backbone(cfg)
    assert ours.layout.num_heads == 4
    assert "; 4 heads" in file_of(ours)
    assert not torch.allclose(read(ours, images()), before)
    assert weights_fingerprint(cfg) not in ("", bare)


# Refused


@dataclass(frozen=True)
class Refusal:
    """A file that is refused, and what is said."""

    content: Any
    message: str
    ending: str = ".pth"
    model: str = "layouts_plain_vit"


class Harmful:
    """What a pickle could carry."""

    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit",))


DEEPER = {**TIMM, **{k.replace("blocks.1", "blocks.2"): v for k, v in TIMM.items()}}
TWO = {**under("left.", TIMM), **under("right.", TIMM)}
LORA = ones("base_model.model.blocks.0.attn.qkv.lora_A.weight")
BEIT = ones("blocks.0.attn.relative_position_bias_table", "blocks.0.attn.q_bias")
SHARDS = b'{"metadata": {"total_size": 9}, "weight_map": {"a": "model-00001-of-00002.safetensors"}}'
PLAIN_ONLY = "only plain vision transformers can be a backbone"

_BYTES = io.BytesIO()
np.savez(_BYTES, **{"embedding/kernel": np.zeros((8, 8, 3, 32), "V2")})
BFLOAT16 = _BYTES.getvalue()

REFUSED: dict[str, Refusal] = {
    # other networks
    "BEiT": Refusal({**TIMM, **BEIT}, f"relative positions .*{PLAIN_ONLY}"),
    "HF BEiT": Refusal(
        ones("beit.encoder.layer.0.attention.attention.relative_position_bias."
             "relative_position_bias_table", "beit.embeddings.cls_token"),
        "with relative positions"),
    "Swin": Refusal({**TIMM, **ones("layers.0.blocks.0.attn.qkv.weight")}, "Swin"),
    "HF Swin": Refusal(
        ones("swin.encoder.layers.0.blocks.0.attention.self.query.weight"), "Swin"),
    "OpenMMLab Swin": Refusal(ones("backbone.stages.0.blocks.0.attn.w_msa.qkv.weight"), "Swin"),
    "ConvNeXt": Refusal(ones("downsample_layers.0.0.weight", "stages.0.0.dwconv.weight"), "ConvN"),
    "timm ConvNeXt": Refusal(ones("stem.0.weight", "stages.0.blocks.0.conv_dw.weight"), "ConvNeXt"),
    "ResNet": Refusal(ones("conv1.weight", "layer1.0.conv1.weight"), "a ResNet"),
    "CLIP ResNet": Refusal(
        {**ones("visual.conv1.weight", "visual.layer1.0.conv1.weight"), **of.clip_texts()}, "ResN"),
    "BiT": Refusal(
        ones("resnet/block1/unit01/a/standardized_conv2d/kernel"), "a ResNet", ".npz"),
    "LeViT": Refusal(ones("stem.conv1.bn.running_mean"), "a network with batch normalisation"),
    "gMLP": Refusal(
        ones("stem.proj.weight", "blocks.0.mlp_channels.fc1.weight", "head.weight"),
        "no layout that is known"),
    "VGG": Refusal(ones("features.0.weight", "classifier.0.weight"), "convolutional"),
    "EfficientNet": Refusal(ones("blocks.0.0.conv_pw.weight"), "an EfficientNet"),
    "MLP-Mixer": Refusal(ones("MixerBlock_0/LayerNorm_0/scale"), "MLP-Mixer", ".npz"),
    "SAM": Refusal(
        {**under("image_encoder.", TIMM), **ones("image_encoder.blocks.0.attn.rel_pos_h")}, "SAM"),
    "a ViT of videos": Refusal(VIDEO, "a model of videos cannot"),
    "BERT": Refusal(ones("bert.embeddings.word_embeddings.weight"), "a text encoder"),
    "CLIP's texts": Refusal(of.clip_texts(), "a text encoder"),
    "Llama": Refusal(ones("model.embed_tokens.weight"), "a text encoder", ".safetensors"),
    "vit-pytorch": Refusal(ones("to_patch_embedding.1.weight", "pos_embedding"), "lucidrains"),
    "HF DINOv3": Refusal(ones("layer.0.attention.o_proj.weight"), "DINOv3 .*take timm's file"),
    "HF SigLIP, NaFlex": Refusal(
        {**of.hf_tower(SIGLIP), "vision_model.embeddings.patch_embedding.weight":
         torch.ones(of.WIDTH, 192)}, "no layout that fits .*NaFlex", model="layouts_siglip_vit"),
    "a trial's checkpoint": Refusal(
        (TIMM, {"tcpa": "{}"}), "checkpoint of a trial", ".safetensors"),
    "MAE's decoder": Refusal(ones("decoder_embed.weight"), "a decoder without its encoder"),
    # parts
    "LoRA": Refusal(LORA, "LoRA weights alone .*merge", ".safetensors"),
    "LoRA beside": Refusal(
        {**TIMM, **ones("blocks.0.attn.qkv.lora_B.default.weight")}, "LoRA weights beside .*merge"),
    "prompts": Refusal(ones("prompt_embeddings", "deep_prompt_embeddings"), "prompts or adapters"),
    "a linear probe": Refusal(head("linear"), "a classifier alone"),
    "a probe without a name": Refusal(ones("weight", "bias"), "a classifier alone"),
    "optimiser": Refusal(OPTIMISER, "holds the state of an optimiser"),
    "one more block": Refusal(DEEPER, "not known .*width 32, 3 blocks, patch 8"),
    "two encoders": Refusal(TWO, "2 encoders, under left., right."),
    "twice": Refusal({**TIMM, **under("module.", TIMM)}, "tensors twice"),
    "two chunks of one number": Refusal(
        {name.replace("blocks.1.1.", "blocks.1.0."): value for name, value in CHUNKED.items()},
        "not known .blocks.0.0.attn", model="layouts_scaled_vit"),
    "two final norms": Refusal(
        {**of.mm_names(PLAIN), **of.mm_names(PLAIN, norm="norm1")},
        "two of its names stand for one"),
    "another task's head": Refusal(
        {**TIMM, **ones("projector.0.weight")},
        "0 tensors missing .*projector.*do not depend on can be left out"),
    "CLS alone": Refusal({"cls_token": TIMM["cls_token"]}, r"missing \(blocks.0"),
    # number formats
    "int8": Refusal({k: v.to(torch.int8) for k, v in TIMM.items()}, "as int8 .*scales"),
    "quantised by torch": Refusal(
        {**TIMM, "blocks.0.mlp.fc1.weight": torch.quantize_per_tensor(
            TIMM["blocks.0.mlp.fc1.weight"], 0.1, 0, torch.qint8)}, "as int8 .*scales"),
    "bitsandbytes": Refusal({**TIMM, **ones("blocks.0.mlp.fc1.SCB")}, "quantised"),
    "GPTQ": Refusal(ones("blocks.0.mlp.fc1.qweight", "blocks.0.mlp.fc1.qzeros"), "quantised"),
    # pickles that are more than tensors
    "whole model": Refusal(of.Tree(TIMM), r"a pickled model .*state_dict\(\)"),
    "whole model under a key": Refusal({"model": of.Tree(TIMM)}, r"a pickled model .*state_dict"),
    "code": Refusal(
        {"model": TIMM, "args": Harmful()}, "UnpicklingError.*asks for builtins.exec to be run"),
    # other files
    "empty": Refusal(b"", r"empty \(0 bytes\); fetch it again"),
    "Git LFS": Refusal(b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
    "web page": Refusal(b"<!DOCTYPE html><html>Sign in</html>", "a web page"),
    "server's error": Refusal(b'<?xml version="1.0"?><Error>AccessDenied</Error>', "a web page"),
    "GGUF": Refusal(b"GGUF\x03\0\0\0" + bytes(64), "a GGUF file", ".gguf"),
    "ONNX": Refusal(b"\x08\x08\x12\x07pytorch\x1a\x052.1.0" + bytes(64), "an ONNX graph", ".onnx"),
    "ONNX under another name": Refusal(b"\x08\x08\x12\x07pytorch" + bytes(64), "an ONNX graph"),
    "TensorFlow": Refusal(b"\n\x05hello" + bytes(64), "a TensorFlow graph", ".pb"),
    "TensorFlow checkpoint": Refusal(bytes(64), "a TensorFlow checkpoint", ".data-00000-of-00001"),
    "TensorFlow Lite": Refusal(b"\x1c\0\0\0TFL3" + bytes(64), "a TensorFlow Lite graph"),
    "Keras": Refusal(b"\x89HDF\r\n\x1a\n" + bytes(64), "an HDF5 file", ".h5"),
    "Flax": Refusal(b"\x81\xa6params\x81" + bytes(64), "Flax's msgpack", ".msgpack"),
    "Flax under another name": Refusal(b"\x81\xa6params\x81" + bytes(64), "Flax's msgpack", ".bin"),
    "Paddle": Refusal(b"\x80\x02}" + bytes(64), "a PaddlePaddle file", ".pdparams"),
    "gzip": Refusal(gzip.compress(b"weights" * 99), "packed by gzip; unpack it", ".gz"),
    "NumPy array": Refusal(b"\x93NUMPY\x01\0" + bytes(64), "a single NumPy array", ".npy"),
    "torn archive": Refusal(b"PK\x03\x04" + bytes(64), "end is missing; the download broke off"),
    "parts": Refusal(SHARDS, "several files; join them into one", ".safetensors.index.json"),
    "JSON": Refusal(b'{"architecture": "vit"}', "JSON; give the weights file", ".json"),
    "plain pickle": Refusal(pickle.dumps({"a": 1}), "a pickle that torch.save did not", ".pkl"),
    "JAX in bfloat16": Refusal(
        BFLOAT16, "NumPy has no name for, such as bfloat16", ".npz"),
    "text": Refusal(b"Entry not found", r"it is text \('Entry not found'\)"),
    "OpenVINO": Refusal(b'<?xml version="1.0"?><net>', "an OpenVINO description", ".xml"),
    "noise": Refusal(bytes(range(7, 200)), "cannot be read as weights"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_a_file_that_is_not_read_is_named(kind: str, tmp_path: Path) -> None:
    case = REFUSED[kind]
    path = tmp_path / f"w{case.ending}"
    if isinstance(case.content, bytes):
        path.write_bytes(case.content)
    else:
        write(case.content, path)
    with pytest.raises(WeightsError, match=case.message) as caught:
        load(path, case.model)
    text = str(caught.value)
    assert text.startswith(f"backbone.weights: w{case.ending} ")
    assert text.endswith(".")
    assert text.count("Traceback") == 0
    assert len(text) < 500


def test_a_torn_or_partial_safetensors_is_named(tmp_path: Path) -> None:
    write(TIMM, tmp_path / "whole.safetensors")
    content = (tmp_path / "whole.safetensors").read_bytes()
    (tmp_path / "torn.safetensors").write_bytes(content[:-100])
    with pytest.raises(WeightsError, match=r"torn: it has [\d,]+ of [\d,]+ bytes; the download"):
        load(tmp_path / "torn.safetensors")
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match="one of several files; join them into one"):
        load(tmp_path / "model-00001-of-00002.safetensors")


def test_archives_and_folders_are_named(tmp_path: Path) -> None:
    write(TIMM, tmp_path / "w.pth")
    with tarfile.open(tmp_path / "w.tar", "w") as archive:
        archive.add(tmp_path / "w.pth", "w.pth")
    with pytest.raises(WeightsError, match="w.tar is a tar archive; unpack it"):
        load(tmp_path / "w.tar")
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as packed:
        packed.write(tmp_path / "w.pth", "w.pth")
    with pytest.raises(WeightsError, match="w.zip is a zip archive without weights"):
        load(tmp_path / "w.zip")
    with zipfile.ZipFile(tmp_path / "w.keras", "w") as packed:
        packed.writestr("model.weights.h5", b"")
    with pytest.raises(WeightsError, match="a Keras model"):
        load(tmp_path / "w.keras")
    with pytest.raises(WeightsError, match="is a folder; give a weights file in it: w.pth, w.tar"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("width", "patch", "depth", "said"),
    [
        (1024, 16, 24, "the file is ViT-L/16: set backbone.name=vit_large_patch16_224"),
        (192, 16, 12, "the file is ViT-Ti/16: set backbone.name=vit_tiny_patch16_224"),
        (768, 32, 12, "the file is ViT-B/32: set backbone.name=vit_base_patch32_224"),
        (1024, 24, 24, "the file is ViT-L/24, and no vision transformer of timm"),
        (40, 10, 3, "a ViT of width 40, 3 blocks, patch 10, and no vision"),
    ],
)
def test_the_model_that_would_fit_is_named(width: int, patch: int, depth: int, said: str) -> None:
    geometry = {"img_size": 224 // patch * patch, "patch_size": patch, "embed_dim": width}
    with torch.device("meta"):  # nothing but shapes counts
        vit = VisionTransformer(**{**of.GEOMETRY, **geometry, "depth": depth})
    assert said in model_of_file(vit.state_dict(), "vit_base_patch16_224", None)


def test_a_file_of_another_size_names_its_model(tmp_path: Path) -> None:
    with torch.device("meta"):
        shapes = timm.create_model("vit_tiny_patch16_224", num_classes=0).state_dict()
    write({name: torch.ones(v.shape) for name, v in shapes.items()}, tmp_path / "w.safetensors")
    advice = r"does not fit 'vit_base_patch16_224'.* set backbone.name=vit_tiny_patch16_224"
    with pytest.raises(WeightsError, match=advice):
        load(tmp_path / "w.safetensors", "vit_base_patch16_224")
