"""Frozen timm vision transformers: loading, geometry, and the two ends around the blocks.

Weights are read strictly: a file that does not cover the model, or covers another one, is an error.
Heads belong to the trials (`tcpa_core.model.pack_model`). The classifier that came with the weights
is kept apart, for methods that map its classes to those of the data (`Backbone.source_logits`).
"""

# Axes: B samples (all members of a pack flattened), S tokens (T prefix + N image), D width.

import hashlib
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from importlib.resources import files
from pathlib import Path

import timm
import torch
from timm.layers import Attention, PatchEmbed, resample_abs_pos_embed
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from tcpa_core.config import BackboneConfig, DataConfig, Triple
from tcpa_core.errors import ConfigError, WeightsError
from tcpa_core.model.preprocessing import (
    NAMED,
    NormStats,
    Preprocessing,
    stats_beside,
    stats_of_file,
    stats_of_name,
    stats_of_setting,
)
from tcpa_core.model.timm_names import (
    MODULES,
    NANO,
    check_name,
    check_published,
    has_projection,
    is_clip,
)
from tcpa_core.model.weights_file import CLIP, JAX, State, WeightsFile, read_weights, some

NANO_GEOMETRY = {
    "img_size": 32,
    "patch_size": 8,
    "embed_dim": 128,
    "depth": 6,
    "num_heads": 4,
    "mlp_ratio": 4,
}

HEADS = ("head", "head_dist")
"""Names of classifiers; the second is a distilled model's."""
AS_TRAINED = "as trained"
"""Position embeddings that were not resampled."""

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
    that train with them (`tcpa_core.model.noise`)."""

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
        stats: Mean and std of the pre-training images, or the error to raise where they are asked
            for; None: those of the model's own settings.
        classifier: What the model was trained with.
        positions: How its position embeddings were resampled.

    Raises:
        ConfigError: The model or one of its blocks is of a kind that is not supported.
    """

    def __init__(
        self,
        vit: VisionTransformer,
        *,
        fingerprint: str = "",
        warnings: tuple[str, ...] = (),
        stats: NormStats | ConfigError | None = None,
        classifier: Classifier = (),
        positions: str = AS_TRAINED,
    ) -> None:
        super().__init__()
        _check_supported(vit)
        self.vit = vit
        self.fingerprint = fingerprint
        self.warnings = list(warnings)
        self._stats = stats or stats_of_name("", getattr(vit, "pretrained_cfg", None))
        self._positions = positions
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

        Raises:
            ConfigError: Nothing tells those of the checkpoint; `backbone.norm_stats` must.
        """
        stats = self._norm_stats(kind)
        return stats.mean, stats.std

    def _norm_stats(self, kind: str) -> NormStats:
        if kind != "checkpoint":
            known = NAMED["inception" if kind == "half" else kind]
            return NormStats(*known, f"data.norm_stats={kind}")
        if isinstance(self._stats, ConfigError):
            raise self._stats
        return self._stats

    def preprocessing(self, data: DataConfig) -> Preprocessing:
        """What becomes of a data set's images in front of this backbone.

        Raises:
            ConfigError: As `norm_stats`, or data.resize_to is smaller than the crop.
        """
        return Preprocessing.of(
            self._norm_stats(data.norm_stats),
            data,
            img_size=self.img_size,
            pool=self.layout.pool,
            positions=self._positions,
        )

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


def load_backbone(
    cfg: BackboneConfig,
    *,
    device: str | torch.device = "cpu",
    fetch: bool = True,
    recorded: bool = False,
) -> Backbone:
    """Build a backbone with its weights.

    Args:
        cfg: Name, source of weights, image size, mean and std.
        device: Where to put it.
        fetch: False: random numbers stand for weights of the hub, for plans.
        recorded: The settings are those of a study that was planned before. Where nothing tells
            mean and std, they are then those of the name, with a warning, as before the plan asked.

    Raises:
        ConfigError: No such model, or one that is not supported.
        WeightsError: The weights cannot be fetched or read, or belong to another model.
    """
    is_random = cfg.weights == "random"
    warnings = [f"Backbone {cfg.name} has random weights: accuracies mean nothing."] * is_random
    found = _of_hub(cfg, fetch) if is_random or _is_hub(cfg) else _of_file(cfg)
    vit, classifier, stats = found.vit, found.classifier, found.stats
    if cfg.pool == "avg":
        _pool_by_mean(vit, cfg.name)
        classifier = ()  # it was trained on what the model read before
    if recorded and isinstance(stats, ConfigError):
        named = stats_of_name(cfg.name, getattr(vit, "pretrained_cfg", None))
        warnings.append(f"Mean and std are those of {named.source}, which nothing proves: {stats}")
        stats = named
    backbone = Backbone(
        vit,
        fingerprint=weights_fingerprint(cfg),
        warnings=tuple(warnings),
        stats=stats_of_setting(cfg) or stats,
        classifier=classifier,
        positions=found.positions,
    )
    return backbone.to(device)


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A model with its weights, and what is known of these."""

    vit: VisionTransformer
    classifier: Classifier
    stats: NormStats | ConfigError
    positions: str


def _of_hub(cfg: BackboneConfig, fetch: bool) -> _Loaded:
    """A model with the hub's weights, or random ones in their place."""
    if _is_hub(cfg):
        check_name(cfg.name)
        check_published(cfg.name)
    if cfg.weights == "random" or not fetch:
        vit = _create(cfg, seed=True)
        classifier = _random_classifier(vit, cfg.name)
    else:
        vit = _create_from_hub(cfg)
        classifier = _take_classifier(vit, cfg.name)
    stats = stats_of_name(cfg.name, getattr(vit, "pretrained_cfg", None))
    return _Loaded(vit, classifier, stats, _resized_at_hub(vit) if _is_hub(cfg) else AS_TRAINED)


def _of_file(cfg: BackboneConfig) -> _Loaded:
    """A model with the weights of a file."""
    with torch.device("meta"):
        vit = _create(cfg)
    file = read_weights(_weights_path(cfg), vit, cfg.name)
    positions = _put(file, vit, cfg.name)
    classifier = _classifier(file, vit, cfg.name)
    stats = stats_of_file(cfg, file, len(classifier[0][0]) if classifier else 0)
    return _Loaded(vit, classifier, stats, positions)


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
        check_name(cfg.name)
        check_published(cfg.name)
        pretrained = timm.get_pretrained_cfg(cfg.name)
        return f"hub:{cfg.name.split('.')[0]}@{pretrained.tag if pretrained else ''}"
    path = _weights_path(cfg)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return f"sha256:{digest}{_described(path, cfg)}"


def _described(path: Path, cfg: BackboneConfig) -> str:
    """Mark of a description beside the weights that changes how images are normalised."""
    found = None if cfg.weights is None or cfg.norm_stats else stats_beside(path, cfg.name)
    if found is None:
        return ""
    known = None if cfg.name == NANO else timm.get_pretrained_cfg(cfg.name)
    usual = stats_of_name(cfg.name, known.to_dict() if known else None)
    pair = (found.mean, found.std)
    if pair == (usual.mean, usual.std):
        return ""
    return f"-{hashlib.sha256(repr(pair).encode()).hexdigest()[:8]}"


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


def _create(cfg: BackboneConfig, *, seed: bool = False, pretrained: bool = False) -> nn.Module:
    """Build the network, without a classifier unless it is pretrained.

    Args:
        seed: Make its random weights a fixed set.
        pretrained: Fetch the hub's weights.
    """
    check_name(cfg.name)
    size = {} if cfg.img_size is None else {"img_size": cfg.img_size}
    classes = {} if pretrained else {"num_classes": 0}
    with torch.random.fork_rng(devices=[], enabled=seed):
        if seed:
            torch.manual_seed(int(hashlib.sha256(cfg.name.encode()).hexdigest()[:8], 16))
        try:
            if cfg.name == NANO:
                vit = VisionTransformer(**{**NANO_GEOMETRY, **size}, num_classes=0)
            else:
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
    if cfg.img_size is not None:
        check_size(vit, cfg.name, cfg.img_size)
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


def check_size(vit: VisionTransformer, name: str, size: int) -> None:
    """Refuse a side of images of which the patches would leave a strip unseen.

    Raises:
        ConfigError: Naming the two nearest sides. The model's own one is as its makers want it.
    """
    own = (getattr(vit, "pretrained_cfg", None) or {}).get("input_size", (0,))[-1]
    patch = math.lcm(*vit.patch_embed.patch_size)
    if size != own and size % patch:
        lower = max(size // patch, 1) * patch
        raise ConfigError(
            f"backbone.img_size must be a multiple of the patch of {name!r}, {patch} pixels, got "
            f"{size}; the nearest are {lower} and {lower + patch}."
        )


def _take_classifier(vit: VisionTransformer, name: str) -> Classifier:
    """Take the head off a model; it is returned if it is a classifier."""
    heads = [vit.head, *([vit.head_dist] if isinstance(vit, VisionTransformerDistilled) else [])]
    pairs = [(h.weight.detach(), h.bias.detach()) for h in heads if isinstance(h, nn.Linear)]
    vit.reset_classifier(0)
    known = timm.get_pretrained_cfg(name)
    return () if known is not None and has_projection(name, known.tag or "") else pairs


def _random_classifier(vit: VisionTransformer, name: str) -> Classifier:
    """A classifier of the shape that the hub's weights of a model have; plans use it for them."""
    known = None if name == NANO else timm.get_pretrained_cfg(name)
    if known is None or not known.num_classes or has_projection(name, known.tag or ""):
        return ()
    count = 2 if isinstance(vit, VisionTransformerDistilled) else 1
    generator = torch.Generator().manual_seed(0)
    shape = (known.num_classes, vit.embed_dim)
    with torch.device("cpu"):
        weights = [0.02 * torch.randn(shape, generator=generator) for _ in range(count)]
        return [(weight, torch.zeros(len(weight))) for weight in weights]


def _resized_at_hub(vit: VisionTransformer) -> str:
    """Whether timm has resampled the position embeddings of the hub's weights."""
    own = (getattr(vit, "pretrained_cfg", None) or {}).get("input_size")
    if own is None:
        return AS_TRAINED
    grid = tuple(side // p for side, p in zip(own[-2:], vit.patch_embed.patch_size, strict=True))
    return _resampled(grid, tuple(vit.patch_embed.grid_size))


def _resampled(before: tuple[int, ...], after: tuple[int, ...]) -> str:
    if before == after:
        return AS_TRAINED
    return f"resampled from {before[0]} x {before[1]} to {after[0]} x {after[1]}"


def _put(file: WeightsFile, vit: VisionTransformer, name: str) -> str:
    """Put a file's weights into a model that may still be on the meta device.

    Returns:
        How the file's position embeddings were resampled.

    Raises:
        WeightsError: A tensor is missing, not known, or of another shape.
    """
    state = {k: v for k, v in file.state.items() if k.split(".")[0] not in HEADS}
    wanted = vit.state_dict()
    missing, foreign = wanted.keys() - state.keys(), state.keys() - wanted.keys()
    if missing or foreign:
        raise WeightsError(
            f"backbone.weights: {file.path.name} does not fit {name!r}: {len(missing)} tensors "
            f"missing ({some(missing)}), {len(foreign)} not known ({some(foreign)}); choose the "
            "file of this model or the backbone.name of this file."
        )
    positions = AS_TRAINED
    if "pos_embed" in state:
        state["pos_embed"], positions = _fit_positions(state["pos_embed"], vit, file)
    shapes = {key: tuple(value.shape) for key, value in wanted.items()}
    shapes |= _head_shapes(file.state, vit.embed_dim)
    for key, needed in shapes.items():
        shape = tuple((state[key] if key in state else file.state[key]).shape)
        if shape != needed:
            raise WeightsError(
                f"backbone.weights: {file.path.name} does not fit {name!r}: {key} has shape "
                f"{shape}, the model needs {needed}; choose the file of this model or the "
                "backbone.name of this file."
            )
    vit.load_state_dict({key: value.float() for key, value in state.items()}, assign=True)
    return positions


def _head_shapes(state: State, width: int) -> dict[str, tuple[int, ...]]:
    """Shapes that the heads of a file must have to read features of that width."""
    shapes: dict[str, tuple[int, ...]] = {}
    for head in HEADS:
        if f"{head}.weight" in state:
            classes = len(torch.atleast_1d(state[f"{head}.weight"]))
            shapes[f"{head}.weight"] = (classes, width)
            if f"{head}.bias" in state:
                shapes[f"{head}.bias"] = (classes,)
    return shapes


def _fit_positions(pos: Tensor, vit: VisionTransformer, file: WeightsFile) -> tuple[Tensor, str]:
    """Position embeddings for the model's grid, where theirs is another square one."""
    num_prefix = 0 if vit.no_embed_class else vit.num_prefix_tokens
    _, length, width = vit.pos_embed.shape
    num_image = pos.shape[1] - num_prefix if pos.ndim == 3 else 0
    side = math.isqrt(max(num_image, 0))
    if pos.shape[-1] != width or num_image in (0, length - num_prefix) or side**2 != num_image:
        return pos, AS_TRAINED  # as it must be, or refused by its shape
    grid = tuple(vit.patch_embed.grid_size)
    is_jax = file.layout is JAX  # resized as timm does for each kind of file
    resized = resample_abs_pos_embed(
        pos,
        new_size=list(grid),
        old_size=[side, side],
        num_prefix_tokens=num_prefix,
        interpolation="bilinear" if is_jax else "bicubic",
        antialias=not is_jax,
    )
    return resized, _resampled((side, side), grid)


def _classifier(file: WeightsFile, vit: VisionTransformer, name: str) -> Classifier:
    """The file's classifier. A projection is none, nor is a layer that reads no features."""
    heads = HEADS if isinstance(vit, VisionTransformerDistilled) else HEADS[:1]
    names = [(f"{head}.weight", f"{head}.bias") for head in heads]
    state = file.state
    if file.has_hidden_layer or not all(w in state and b in state for w, b in names):
        return ()
    pairs = [(state[w].float(), state[b].float()) for w, b in names]
    # CLIP's projection has no bias; conversions write zeros
    is_projection = file.layout is CLIP or (is_clip(name) and not any(b.any() for _, b in pairs))
    return () if is_projection else pairs


def _check_supported(vit: nn.Module) -> None:
    """Refuse models whose blocks the methods cannot take apart."""
    if not isinstance(vit, VisionTransformer):
        raise ConfigError(
            f"backbone is a {type(vit).__name__}; only timm VisionTransformer models are supported."
        )
    if not isinstance(vit.patch_embed, PatchEmbed):
        raise ConfigError(
            f"backbone has a {type(vit.patch_embed).__name__} before its blocks; only timm's "
            "PatchEmbed (patches of the image itself) is supported."
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
    """Names that `backbone.name` can take without a file: vit_nano, and timm's plain vision
    transformers with published weights."""
    filters = pattern if "*" in pattern else f"*{pattern}*"
    names = sorted(n for module in MODULES for n in timm.list_models(filters, module=module))
    return [n for n in (NANO,) if fnmatch(n, filters)] + [n for n in names if _is_usable(n)]


@cache
def _is_usable(name: str) -> bool:
    """Whether a plan takes a name; told from one block, as all blocks of a model are alike."""
    try:
        check_published(name)
        with torch.device("meta"):
            _check_supported(timm.create_model(name, num_classes=0, depth=1))
    except ConfigError:
        return False
    return True
