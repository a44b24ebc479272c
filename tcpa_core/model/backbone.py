"""A frozen timm vision transformer: its token geometry, and the two ends around its blocks.

Heads belong to the trials (`tcpa_core.model.member_tensors`). The classifier that came with the
weights is kept apart, for methods that map its classes to those of the data
(`Backbone.source_logits`).
"""

# Axes: B samples (all members of a pack flattened), S tokens (T prefix + N image), D width.

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers import Attention, AttentionRope, Format, PatchEmbed
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva, EvaAttention, EvaBlock
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from tcpa_core.errors import ConfigError
from tcpa_core.model.preprocessing import NAMED, NormStats, Preprocessing, stats_of_name
from tcpa_core.model.timm_names import ViT
from tcpa_core.settings import DataConfig, Triple

AS_TRAINED = "as trained"
"""Position embeddings that were not resampled."""
ROTARY = "rotary"
"""No position embeddings: queries and keys are rotated by their places."""

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
        vit: Model with pre-norm blocks; its own classifier is never called.
        fingerprint: Identity of the weights.
        warnings: Sentences every result of this backbone has to carry.
        stats: Mean and std of the pre-training images, or the error to raise where they are asked
            for; None: those of the model's own settings.
        classifier: What the model was trained with.
        positions: How its position embeddings were resampled.
        changes: What was done to take the weights' file as it is meant.

    Raises:
        ConfigError: The model or one of its blocks is of a kind that is not supported.
    """

    def __init__(
        self,
        vit: ViT,
        *,
        fingerprint: str = "",
        warnings: tuple[str, ...] = (),
        stats: NormStats | ConfigError | None = None,
        classifier: Classifier = (),
        positions: str = AS_TRAINED,
        changes: str = "",
    ) -> None:
        super().__init__()
        check_supported(vit)
        self.vit = vit
        self.fingerprint = fingerprint
        self.warnings = list(warnings)
        self._stats = stats or stats_of_name("", getattr(vit, "pretrained_cfg", None))
        is_rotary = getattr(vit, "rope", None) is not None and vit.pos_embed is None
        self._positions = ROTARY if is_rotary else positions
        self._changes = changes
        self.layout = _layout(vit)
        self._classifier = nn.ParameterList(t for pair in classifier for t in pair)
        # In a list each, lest they become parts of this module.
        self._half: list[Backbone] = []
        self._full: list[Backbone] = []
        _open_sites(vit)
        self.requires_grad_(False)
        self.eval()  # noise reaches the network through its sites alone, never by training mode
        self._turn(self.layout.grid)

    def train(self, mode: bool = True) -> "Backbone":
        """Stay in evaluation mode whatever is asked: a frozen network has no dropout."""
        return super().train(False)

    def halved(self) -> "Backbone":
        """This network with its matrices in bfloat16, for passes under autocast; made once.

        All else is shared: norms, prefix tokens and positions stay in their format. Autocast would
        round the same matrices in every pass and keep the copies for the backward pass, so results
        are equal to the bit.
        """
        if not self._half:
            half = copy.deepcopy(self, {id(weight): weight for weight in self.parameters()})
            for layer in half.modules():
                if isinstance(layer, nn.Linear | nn.Conv2d):
                    for name, weight in list(layer.named_parameters(recurse=False)):
                        rounded = nn.Parameter(weight.to(torch.bfloat16), requires_grad=False)
                        setattr(layer, name, rounded)
            half._full = [self]
            self._half = [half]
        return self._half[0]

    @property
    def full(self) -> "Backbone":
        """This network with all weights in the format they came in."""
        return self._full[0] if self._full else self

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
            pool="none" if data.has_masks else self.layout.pool,  # a map is read from all tokens
            positions=self._positions,
            file=self._changes,
        )

    def flops_per_image(self) -> float:
        """Forward FLOPs of one image: matrix products over all tokens of all blocks."""
        layout, vit = self.layout, self.vit
        # Matrices of the blocks meet every token once; queries meet keys, and weights values, in
        # depth * tokens^2 * embed_dim multiply-adds each.
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
        # One flat list of weights and biases: a module holds parameters, no pairs of them.
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

    @contextmanager
    def sized_for(self, images: Tensor) -> Iterator[None]:
        """Take images (..., height, width) of another size than the model's own, for as long as it
        lasts: position embeddings are resampled, and queries and keys rotated by their places."""
        own, grid = self.layout.grid, self.grid_of(images)
        if grid == own:
            yield
            return
        with _any_size(self.vit):
            self._turn(grid)
            try:
                yield
            finally:
                self._turn(own)

    def grid_of(self, images: Tensor) -> tuple[int, int]:
        """Rows and columns of the tokens of images (..., height, width)."""
        rows, columns = self.vit.patch_embed.dynamic_feat_size(tuple(images.shape[-2:]))
        return rows, columns

    def _turn(self, grid: tuple[int, int]) -> None:
        """Give every block the rotations of a grid, if it has rotary positions.

        Made once and not in every pass, as they depend on nothing else.
        """
        vit = self.vit
        rope = getattr(vit, "rope", None)
        if rope is None:
            return
        with torch.no_grad(), torch.inference_mode(False):
            # Those of one size are kept by timm's module, and only it can make others of them.
            is_kept = getattr(rope, "feat_shape", None) is not None
            if is_kept and tuple(rope.feat_shape) != grid:
                rope.update_feat_shape(grid)
            image = rope.get_embed() if is_kept else rope.get_embed(shape=list(grid))
            # Sines, then cosines. Prefix tokens have no place: their angle is 0.
            still = image.new_zeros(*image.shape[:-2], self.layout.num_prefix, image.shape[-1])
            still[..., image.shape[-1] // 2 :] = 1.0
            table = torch.cat([still, image], dim=-2)
        tables = table.unbind() if vit.rope_mixed else [table] * len(vit.blocks)
        for block, own in zip(vit.blocks, tables, strict=True):
            block.register_buffer("rotation", own, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Backbone":
        """Make the rotations anew on another device or in another number format."""
        super()._apply(fn, recurse)
        self._turn(self.layout.grid)
        return self

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
        # timm's own method adds prefix and positions: their order differs from model to model.
        if not isinstance(vit, Eva):
            return vit.norm_pre(vit.patch_drop(vit._pos_embed(patches)))
        # It would also make rotations anew, which the blocks have, and have the host wait for that.
        rope, vit.rope = vit.rope, None
        try:
            return vit.norm_pre(vit._pos_embed(patches)[0])
        finally:
            vit.rope = rope

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


def check_supported(vit: nn.Module) -> None:
    """Refuse models whose blocks the methods cannot take apart."""
    if not isinstance(vit, ViT):
        raise ConfigError(
            f"backbone is a {type(vit).__name__}; only timm VisionTransformer and Eva models are "
            "supported."
        )
    if not isinstance(vit.patch_embed, PatchEmbed):
        raise ConfigError(
            f"backbone has a {type(vit.patch_embed).__name__} before its blocks; only timm's "
            "PatchEmbed (patches of the image itself) is supported."
        )
    is_eva = isinstance(vit, Eva)
    blocks = (EvaBlock,) if is_eva else (Block,)
    attentions = (EvaAttention, AttentionRope) if is_eva else (Attention,)
    for index, block in enumerate(vit.blocks):
        for kinds, part in ((blocks, block), (attentions, getattr(block, "attn", None))):
            # Not isinstance: subclasses compute something else (post-norm, relative positions).
            if type(part) not in kinds:
                raise ConfigError(
                    f"backbone: block {index} has unsupported block type {type(part).__name__}; "
                    f"only timm's {' or '.join(kind.__name__ for kind in kinds)} (pre-norm) is "
                    "supported."
                )
        reason = _unsupported(block.attn)
        if reason is not None:
            raise ConfigError(f"backbone: block {index} has unsupported block type {reason}.")


@contextmanager
def _any_size(vit: ViT) -> Iterator[None]:
    """Let a model take images of any size, as timm's models do that are made for it."""
    if vit.dynamic_img_size:
        yield
        return
    patches: Any = vit.patch_embed
    before = patches.strict_img_size, patches.flatten, patches.output_fmt
    patches.strict_img_size, patches.flatten, patches.output_fmt = False, False, Format.NHWC
    vit.dynamic_img_size = True
    try:
        yield
    finally:
        patches.strict_img_size, patches.flatten, patches.output_fmt = before
        vit.dynamic_img_size = False


def _unsupported(attn: nn.Module) -> str | None:
    """What of a self-attention the methods cannot take apart, and what is possible."""
    if getattr(attn, "gate", None) is not None:
        return "gated Attention; only attention without an output gate is supported"
    if getattr(attn, "num_kv_groups", 1) > 1:
        return (
            "grouped-query Attention (fewer keys than queries); only attention with a key and a "
            "value per head is supported"
        )
    return None


def _open_sites(vit: ViT) -> None:
    """Put our own modules where timm has its dropout and drop path: theirs draw from the process's
    random stream, in which the members of a pack would disturb each other."""
    vit.pos_drop = Site()
    for block in vit.blocks:
        block.drop_path1, block.drop_path2 = Site(), Site()
        for name in ("drop1", "drop2"):
            if hasattr(block.mlp, name):
                setattr(block.mlp, name, Site())


def _layout(vit: ViT) -> TokenLayout:
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
