"""Frozen timm vision transformers: loading, geometry, and the two ends around the blocks.

Weights are read strictly: a file that does not cover the model, or covers another one, is an error.
Heads belong to the trials (`tcpa_core.model`). The classifier that came with the weights is kept
apart, for methods that map its classes to those of the data (`Backbone.source_logits`).
"""

# Axes: B samples (all members of a pack flattened), S tokens (T prefix + N image), D width.

import hashlib
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib.resources import files
from pathlib import Path

import numpy as np
import timm
import torch
from safetensors.torch import load_file
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import Attention
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block, VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from tcpa_core.config import BackboneConfig
from tcpa_core.errors import ConfigError, WeightsError, nearest

NANO = "vit_nano"
NANO_GEOMETRY = {
    "img_size": 32,
    "patch_size": 8,
    "embed_dim": 128,
    "depth": 6,
    "num_heads": 4,
    "mlp_ratio": 4,
}

Triple = tuple[float, float, float]
State = dict[str, Tensor]
Change = Callable[[Tensor], Tensor]
Classifier = Sequence[tuple[Tensor, Tensor]]
"""Weight and bias of the classifier that came with the weights, one pair per vector it reads;
empty where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLayout:
    """Geometry of a backbone's token sequence: prefix tokens first, then image tokens."""

    grid: tuple[int, int]
    """Rows and columns of image tokens."""
    embed_dim: int
    depth: int
    num_heads: int
    patch_size: tuple[int, int]
    has_cls: bool
    has_dist: bool
    num_registers: int
    pool: str
    """How timm pools the tokens: token, avg, avgmax, max, map or prr."""
    num_readouts: int
    """Vectors that the classifier reads: 2 for distilled models, else 1."""

    @property
    def num_prefix(self) -> int:
        """CLS, distillation and register tokens."""
        return self.has_cls + self.has_dist + self.num_registers

    @property
    def num_image(self) -> int:
        """Image tokens at the backbone's own image size."""
        return self.grid[0] * self.grid[1]

    @property
    def feature_dim(self) -> int:
        """Width of a feature vector."""
        return self.num_readouts * self.embed_dim


class Site(nn.Module):
    """A place of dropout or drop path inside the network: the identity, but in passes of trials
    that train with them (`tcpa_core.noise`)."""

    change: Change | None = None

    def forward(self, x: Tensor) -> Tensor:
        """What the pass makes of `x`."""
        return x if self.change is None else self.change(x)


class Backbone(nn.Module):
    """A frozen timm ViT in evaluation mode, shared by every trial of a process.

    Args:
        vit: Model with plain pre-norm blocks; its own classifier is never called.
        fingerprint: Identity of the weights.
        warnings: Sentences every result of this backbone has to carry.
        stats: Mean and std of the pre-training images; None: those of the model's own settings.
        classifier: What the model was trained with.

    Raises:
        ConfigError: The model or one of its blocks is of a kind that is not supported.
    """

    def __init__(
        self,
        vit: VisionTransformer,
        *,
        fingerprint: str = "",
        warnings: tuple[str, ...] = (),
        stats: tuple[Triple, Triple] | None = None,
        classifier: Classifier = (),
    ) -> None:
        super().__init__()
        _check_supported(vit)
        self.vit = vit
        self.fingerprint = fingerprint
        self.warnings = list(warnings)
        cfg: Mapping[str, Triple] = getattr(vit, "pretrained_cfg", None) or {}
        self._stats = stats or (
            cfg.get("mean", IMAGENET_DEFAULT_MEAN),
            cfg.get("std", IMAGENET_DEFAULT_STD),
        )
        self.layout = _layout(vit)
        self._classifier = nn.ParameterList(t for pair in classifier for t in pair)
        _open_sites(vit)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "Backbone":
        """Stay in evaluation mode whatever is asked: a frozen network has no dropout."""
        return super().train(False)

    @property
    def img_size(self) -> int:
        """Side of the square input in pixels."""
        return int(self.vit.patch_embed.img_size[0])

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the residual stream."""
        return next(iter(self.vit.blocks)).norm1.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.vit.parameters()).device

    def norm_stats(self, kind: str) -> tuple[Triple, Triple]:
        """Mean and std per colour channel that normalise images in [0, 1].

        Args:
            kind: "checkpoint", "imagenet" or "half" (`data.norm_stats`).
        """
        known = {
            "checkpoint": self._stats,
            "imagenet": (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
            "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        }
        return known[kind]

    def flops_per_image(self) -> float:
        """Forward FLOPs of one image: matrix products over all tokens of all blocks."""
        layout, vit = self.layout, self.vit
        tokens = layout.num_prefix + layout.num_image
        per_token = sum(p.numel() for p in vit.blocks.parameters() if p.ndim == 2)
        patches = layout.num_image * vit.patch_embed.proj.weight.numel()
        pairs = 2 * layout.depth * tokens**2 * layout.embed_dim
        return 2.0 * (patches + tokens * per_token + pairs)

    @property
    def num_source_classes(self) -> int:
        """Classes of the classifier that came with the weights; 0: there is none."""
        return len(self._classifier[0]) if len(self._classifier) else 0

    @property
    def source_flops(self) -> float:
        """FLOPs of `source_logits` per image."""
        return 2.0 * self.num_source_classes * self.layout.feature_dim

    def source_logits(self, features: Tensor) -> Tensor:
        """Logits (..., num_source_classes) of features (..., feature_dim); distilled: the mean.

        At least in float32, as a trial's own head.
        """
        pairs = list(self._classifier)
        with torch.autocast(features.device.type, enabled=False):
            parts = features.to(pairs[0].dtype).chunk(self.layout.num_readouts, dim=-1)
            found = [
                nn.functional.linear(part, weight, bias)
                for part, weight, bias in zip(parts, pairs[::2], pairs[1::2], strict=True)
            ]
            return torch.stack(found).mean(0)

    @property
    def blocks(self) -> list[Block]:
        """The transformer blocks in order."""
        return list(self.vit.blocks)

    @property
    def rows_read(self) -> int | None:
        """How many leading tokens of the last block the classifier reads; None: any of them."""
        return self.layout.num_readouts if self.layout.pool == "token" else None

    def embed(self, images: Tensor, on_patches: Change | None = None) -> Tensor:
        """Tokens before the first block.

        Args:
            images: Normalised (B, 3, height, width).
            on_patches: Changes the patch embeddings before they get their positions.

        Returns:
            (B, S, D).
        """
        vit = self.vit
        patches = vit.patch_embed(images)
        if on_patches is not None:
            patches = on_patches(patches)
        return vit.norm_pre(vit.patch_drop(vit._pos_embed(patches)))

    def read(self, tokens: Tensor, on_norm: Change | None = None) -> Tensor:
        """Features that a classifier sees, from the tokens after the last block.

        Args:
            tokens: (B, S, D), or only the first `rows_read` tokens.
            on_norm: Changes the tokens behind the final norm.

        Returns:
            (B, feature_dim); distilled models give CLS and distillation features side by side.
        """
        tokens = self.vit.norm(tokens)
        if on_norm is not None:
            tokens = on_norm(tokens)
        if self.layout.has_dist:
            return tokens[:, :2].flatten(1)
        return self.vit.forward_head(tokens, pre_logits=True)


def load_backbone(cfg: BackboneConfig, *, device: str | torch.device = "cpu") -> Backbone:
    """Build a backbone with its weights.

    Args:
        cfg: Name, source of weights, image size.
        device: Where to put it.

    Raises:
        ConfigError: No such model, or one that is not supported.
        WeightsError: The weights cannot be fetched or read, or belong to another model.
    """
    warnings: tuple[str, ...] = ()
    classifier: Classifier = ()
    if cfg.weights == "random":
        vit = _create(cfg, seed=True)
        classifier = _random_classifier(vit, cfg.name)
        warnings = (f"Backbone {cfg.name} has random weights: accuracies mean nothing.",)
    elif _is_hub(cfg):
        vit = _create_from_hub(cfg)
        classifier = _take_classifier(vit)
    else:
        with torch.device("meta"):
            vit = _create(cfg)
        classifier = _load_file(vit, _weights_path(cfg), cfg.name)
    if cfg.pool == "avg":
        _pool_by_mean(vit, cfg.name)
        classifier = ()  # it was trained on what the model read before
    stats = (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD) if cfg.name == NANO else None
    backbone = Backbone(
        vit,
        fingerprint=weights_fingerprint(cfg),
        warnings=warnings,
        stats=stats,
        classifier=classifier,
    )
    return backbone.to(device)


def weights_fingerprint(cfg: BackboneConfig) -> str:
    """Identity of the weights, without building a model.

    Returns:
        "random:<name>", "hub:<name>@<tag>", or "sha256:<16 hex digits>" of the file's content.

    Raises:
        ConfigError: The model is not known.
        WeightsError: The file is missing.
    """
    if cfg.weights == "random":
        return f"random:{cfg.name}"
    if _is_hub(cfg):
        _check_name(cfg.name)
        pretrained = timm.get_pretrained_cfg(cfg.name)
        return f"hub:{cfg.name.split('.')[0]}@{pretrained.tag if pretrained else ''}"
    with _weights_path(cfg).open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"


def _pool_by_mean(vit: VisionTransformer, name: str) -> None:
    """Let a model that reads CLS read the mean of its image tokens, normalised after the mean."""
    if isinstance(vit, VisionTransformerDistilled) or vit.global_pool not in ("token", "avg"):
        raise ConfigError(
            f"backbone.pool: 'avg' needs a model that reads CLS, got {name!r} (pool "
            f"{vit.global_pool!r}{', distilled' if hasattr(vit, 'dist_token') else ''}); leave "
            "backbone.pool out."
        )
    if vit.global_pool == "token":
        vit.global_pool, vit.fc_norm, vit.norm = "avg", vit.norm, nn.Identity()


def _is_hub(cfg: BackboneConfig) -> bool:
    return cfg.weights is None and cfg.name != NANO


def _weights_path(cfg: BackboneConfig) -> Path:
    if cfg.weights is None:
        return Path(str(files("tcpa_core.weights") / f"{NANO}.safetensors"))
    path = Path(os.path.expanduser(cfg.weights))
    if not os.path.isfile(path):
        raise WeightsError(
            f"backbone.weights: no file {cfg.weights!r}; give the path of a .safetensors, .pth or "
            f".npz file of {cfg.name}, or 'random'."
        )
    return path


def _check_name(name: str) -> None:
    base = name.split(".")[0]
    if name != NANO and not timm.is_model(base):
        hint = nearest(base, timm.list_models())
        raise ConfigError(
            f"backbone.name must be {NANO!r} or a timm model, got {name!r}{hint}; "
            "'tcpa backbones' lists them."
        )


def _create(cfg: BackboneConfig, *, seed: bool = False, pretrained: bool = False) -> nn.Module:
    """Build the network, without a classifier unless it is pretrained.

    Args:
        seed: Make its random weights a fixed set.
        pretrained: Fetch the hub's weights.
    """
    _check_name(cfg.name)
    size = {} if cfg.img_size is None else {"img_size": cfg.img_size}
    classes = {} if pretrained else {"num_classes": 0}
    with torch.random.fork_rng(devices=[], enabled=seed):
        if seed:
            torch.manual_seed(int(hashlib.sha256(cfg.name.encode()).hexdigest()[:8], 16))
        if cfg.name == NANO:
            return VisionTransformer(**{**NANO_GEOMETRY, **size}, num_classes=0)
        try:
            vit = timm.create_model(cfg.name, pretrained=pretrained, **classes, **size)
        except (TypeError, AssertionError) as err:
            raise ConfigError(
                f"backbone.name: {cfg.name!r} cannot be built with img_size={cfg.img_size!r} "
                f"({err}); only timm VisionTransformer models are supported."
            ) from err
    if not isinstance(vit, VisionTransformer):
        raise ConfigError(
            f"backbone.name: {cfg.name!r} is a {type(vit).__name__}; only timm VisionTransformer "
            "models are supported."
        )
    return vit


def _create_from_hub(cfg: BackboneConfig) -> nn.Module:
    try:
        return _create(cfg, pretrained=True)
    except (OSError, RuntimeError) as err:
        raise WeightsError(
            f"backbone.weights: the pretrained weights of {cfg.name!r} could not be fetched "
            f"({type(err).__name__}); set backbone.weights to a local .safetensors, .pth or .npz "
            "file of this model, use backbone.name=vit_nano (shipped), or 'random'."
        ) from err


def _take_classifier(vit: VisionTransformer) -> Classifier:
    """Take the classifier off a model, if it has one."""
    heads = [vit.head, *([vit.head_dist] if isinstance(vit, VisionTransformerDistilled) else [])]
    pairs = [(h.weight.detach(), h.bias.detach()) for h in heads if isinstance(h, nn.Linear)]
    vit.reset_classifier(0)
    return pairs


def _random_classifier(vit: VisionTransformer, name: str) -> Classifier:
    """A classifier of the shape that the hub's weights of a model have; plans use it for them."""
    known = None if name == NANO else timm.get_pretrained_cfg(name)
    if known is None or not known.num_classes:
        return ()
    count = 2 if isinstance(vit, VisionTransformerDistilled) else 1
    generator = torch.Generator().manual_seed(0)
    shape = (known.num_classes, vit.embed_dim)
    with torch.device("cpu"):
        weights = [0.02 * torch.randn(shape, generator=generator) for _ in range(count)]
        return [(weight, torch.zeros(len(weight))) for weight in weights]


def _jax_classifier(state: State) -> Classifier:
    """The classifier of an official JAX file; with a layer before it, it reads no features."""
    names = ("head/kernel", "head/bias")
    if "pre_logits/kernel" in state or not all(name in state for name in names):
        return ()
    kernel, bias = (state[name].float() for name in names)
    return [(kernel.T.contiguous(), bias)]


def _load_file(vit: VisionTransformer, path: Path, name: str) -> Classifier:
    """Put the file's weights into a model that may still be on the meta device.

    Returns:
        The file's classifier.
    """
    state = _read_state(path)
    try:
        if "Transformer/encoder_norm/scale" in state:  # official JAX layout; converted in place
            vit.to_empty(device="cpu")
            vit.load_pretrained(str(path))
            return _jax_classifier(state)
        state = checkpoint_filter_fn(state, vit, adapt_layer_scale=True)
    except (
        AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError,
    ) as err:  # fmt: skip
        raise WeightsError(
            f"backbone.weights: {path.name} has no layout that fits {name!r} "
            f"({type(err).__name__}: {err}); first names: {_some(state)}."
        ) from err
    heads = ("head", "head_dist")
    classifier = [
        (state[f"{head}.weight"].float(), state[f"{head}.bias"].float())
        for head in heads
        if f"{head}.weight" in state and f"{head}.bias" in state
    ]
    state = {k: v.float() for k, v in state.items() if k.split(".")[0] not in heads}
    wanted = vit.state_dict()
    missing, foreign = wanted.keys() - state.keys(), state.keys() - wanted.keys()
    if missing or foreign:
        raise WeightsError(
            f"backbone.weights: {path.name} does not fit {name!r}: {len(missing)} tensors missing "
            f"({_some(missing)}), {len(foreign)} not known ({_some(foreign)}); choose the file of "
            "this model or the backbone.name of this file."
        )
    for key, value in state.items():
        if value.shape != wanted[key].shape:
            raise WeightsError(
                f"backbone.weights: {path.name} does not fit {name!r}: {key} has shape "
                f"{tuple(value.shape)}, the model needs {tuple(wanted[key].shape)}."
            )
    vit.load_state_dict(state, assign=True)
    readouts = 2 if isinstance(vit, VisionTransformerDistilled) else 1
    return classifier if len(classifier) == readouts else ()


def _read_state(path: Path) -> State:
    """Read tensors by name from .safetensors, .npz, or a torch file without running its code."""
    try:
        if zipfile.is_zipfile(path):
            _refuse_bomb(path)
        if path.suffix == ".safetensors":
            return load_file(path)
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return {k: torch.from_numpy(v) for k, v in arrays.items() if v.dtype.kind == "f"}
        state = torch.load(path, map_location="cpu", weights_only=True)
        for key in ("model", "state_dict"):
            state = state.get(key, state)
        tensors = {k: v for k, v in state.items() if isinstance(v, Tensor)}
        return {name.removeprefix("module."): _plain(v) for name, v in tensors.items()}
    except Exception as err:  # what parsers raise on foreign bytes is of every kind
        raise WeightsError(
            f"backbone.weights: {path.name} cannot be read as weights ({type(err).__name__}); "
            "give a whole .safetensors, .pth (tensors only) or .npz file."
        ) from err


def _refuse_bomb(path: Path) -> None:
    """Weights hardly shrink: an archive that grows a hundredfold is meant to fill the memory."""
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > 100 * path.stat().st_size:
        raise ValueError(f"{unpacked} bytes packed into {path.stat().st_size}")


def _plain(tensor: Tensor) -> Tensor:
    """The tensor, if its numbers stand in the file: not sparse, and not a few shown as many."""
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        raise ValueError(f"a {tensor.layout} tensor on {tensor.device}")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError(f"shape {tuple(tensor.shape)} of fewer numbers")
    return tensor


def _some(names: object) -> str:
    listed = sorted(names)  # type: ignore[call-overload]
    return ", ".join(listed[:3]) + (", ..." if len(listed) > 3 else "") if listed else "none"


def _check_supported(vit: nn.Module) -> None:
    """Refuse models whose blocks the methods cannot take apart."""
    if not isinstance(vit, VisionTransformer):
        raise ConfigError(
            f"backbone is a {type(vit).__name__}; only timm VisionTransformer models are supported."
        )
    for index, block in enumerate(vit.blocks):
        for kind, part in ((Block, block), (Attention, getattr(block, "attn", None))):
            if type(part) is not kind:
                raise ConfigError(
                    f"backbone: block {index} has unsupported block type {type(part).__name__}; "
                    f"only timm's {kind.__name__} (pre-norm, absolute positions) is supported."
                )
        if getattr(block.attn, "gate", None) is not None:
            raise ConfigError(
                f"backbone: block {index} has unsupported block type gated Attention; only "
                "attention without an output gate is supported."
            )


def _open_sites(vit: VisionTransformer) -> None:
    """Put our own modules where timm has its dropout and drop path."""
    vit.pos_drop = Site()
    for block in vit.blocks:
        block.drop_path1, block.drop_path2 = Site(), Site()
        for name in ("drop1", "drop2"):
            if hasattr(block.mlp, name):
                setattr(block.mlp, name, Site())


def _layout(vit: VisionTransformer) -> TokenLayout:
    attn = vit.blocks[0].attn
    has_dist = isinstance(vit, VisionTransformerDistilled)
    return TokenLayout(
        grid=tuple(vit.patch_embed.grid_size),
        embed_dim=vit.embed_dim,
        depth=len(vit.blocks),
        num_heads=attn.num_heads,
        patch_size=tuple(vit.patch_embed.patch_size),
        has_cls=vit.cls_token is not None,
        has_dist=has_dist,
        num_registers=vit.num_prefix_tokens - (vit.cls_token is not None) - has_dist,
        pool=vit.global_pool if vit.attn_pool is None else "map",
        num_readouts=2 if has_dist else 1,
    )


def backbone_names(pattern: str = "*") -> list[str]:
    """Names that `backbone.name` can take: vit_nano and timm's plain vision transformers."""
    filters = pattern if "*" in pattern else f"*{pattern}*"
    names = timm.list_models(filters, module="vision_transformer")
    names += timm.list_models(filters, module="deit")
    return [n for n in (NANO,) if fnmatch(n, filters)] + sorted(names)
