"""What a method is: settings, trainable tensors, and hooks into the forward pass of a pack.

A method file exports `Config` (its settings) and `Method` (its tensors and hooks). Every hook is
neutral by default. Tensors of all members of a pack are stacked along a leading axis and padded
with zeros at the end of the other axes, so a method has to ignore the padding.
"""

# Axes: M members, B samples, S tokens, P prompt tokens, D width.

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from inspect import getattr_static
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Generator, Tensor, nn

from tcpa_core import plugins
from tcpa_core.config import METHODS, Settings, TrialConfig
from tcpa_core.errors import ConfigError
from tcpa_core.model.attention import Backend
from tcpa_core.model.blocks import plain_block
from tcpa_core.protocols.base import departures
from tcpa_core.streams import Stream

if TYPE_CHECKING:
    from timm.models.vision_transformer import Block

    from tcpa_core.model.backbone import Backbone, TokenLayout

MemberState = dict[str, Tensor]
"""Tensors of one member without padding, by full name ("tcpa.cls_prompts")."""


class MethodSettings(Settings):
    """Base of every method's `Config`."""

    shared: ClassVar[tuple[str, ...]] = ()
    """Fields in which the members of a pack must agree, because they change the code path."""

    def pack_key(self) -> tuple[Any, ...]:
        """Members of one pack have equal keys."""
        return tuple(getattr(self, name) for name in self.shared)


@dataclass(frozen=True, slots=True)
class BatchPart:
    """Samples of a batch that memory does not hold as a whole."""

    rows: slice
    batch: int
    """Samples of the whole batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Position in training, per member; decides every random draw of a forward pass."""

    training: bool
    epochs: Sequence[int]
    """0-based."""
    steps: Sequence[int]
    """0-based, counted over the whole trial."""
    streams: Sequence[Stream]
    part: BatchPart | None = None
    """None: the pass sees the whole batch."""

    @classmethod
    def evaluation(cls, members: int) -> Self:
        """No dropout and no random choice."""
        return cls(training=False, epochs=(0,) * members, steps=(0,) * members, streams=())


@dataclass(slots=True, kw_only=True)
class Pass:
    """One forward pass: what the hooks may read, and the statistics they leave."""

    step: Step
    rows: int | None
    """Leading tokens of the last block that are read; None: all have to be computed."""
    backend: Backend | None
    inspect: bool = False
    """Keep selections and masks of every block in `stats`."""
    stats: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ParamSpec:
    """One tensor of one member, without padding."""

    shape: tuple[int, ...]
    init: Callable[[Tensor, Generator], object]
    """Fills the tensor in place."""
    trainable: bool = True
    """False: kept and saved with the member, but never touched by the optimiser."""
    lr_scale: float = 1.0
    """Factor on the trial's learning rate."""
    decay: bool = True
    """False: no weight decay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a method may look at when it says which tensors a trial needs."""

    backbone: Backbone
    config: TrialConfig
    num_classes: int
    fitted: Mapping[str, Tensor] = field(default_factory=dict)
    """What this method's `fit` returned."""

    def settings(self, method: str) -> Any:
        """Checked `Config` of one method of the chain."""
        return self.config.method_settings[method]


@dataclass(frozen=True, slots=True, kw_only=True)
class FitData:
    """The training split as a method's `fit` sees it: no augmentation, fixed order."""

    labels: Tensor
    """(N,)."""
    batch: Callable[[Tensor], Tensor]
    """Normalised images (n, 3, height, width) at indices (n,)."""
    stream: Stream
    """The trial's random streams."""
    class_names: Sequence[str] = ()


class Method(nn.Module):
    """One method for all members of a pack.

    Its tensors are set as attributes by name before the first pass (see
    `tcpa_core.model.pack_model`).

    Args:
        backbone: The frozen network.
        configs: One per member; their method chains are equal.
    """

    trains_backbone: ClassVar[bool] = False
    """True: `weights` replaces weights of the backbone, so a pack holds one member."""
    replaced_by: ClassVar[tuple[str, ...]] = ()
    """Beside one of these methods this one has no prompts of its own; it only changes theirs
    (`on_prompts`)."""

    def __init__(self, backbone: Backbone, configs: Sequence[TrialConfig]) -> None:
        super().__init__()
        self.layout = backbone.layout
        self.prompt_changers: list[Method] = []
        """Methods of the chain whose `on_prompts` is to be applied to this one's prompts."""
        self.seeds = [config.seed for config in configs]
        self.settings: list[Any] = [config.method_settings[self.name()] for config in configs]

    @classmethod
    def name(cls) -> str:
        """The method's name: that of its file."""
        return cls.__module__.rsplit(".", 1)[-1]

    @classmethod
    def check(cls, config: TrialConfig, layout: TokenLayout) -> None:
        """Refuse settings that this backbone cannot carry.

        Raises:
            ConfigError: Saying which setting to change.
        """

    @classmethod
    def check_classes(cls, config: TrialConfig, class_names: Sequence[str]) -> None:
        """Refuse settings that do not fit the data set's classes.

        Raises:
            ConfigError: Saying which setting to change.
        """

    @classmethod
    def deviations(cls, config: TrialConfig) -> tuple[str, ...]:
        """Settings with which the method is not what its authors published, each with the reason
        in brackets; every table says so."""
        return ()

    @classmethod
    def is_replaced(cls, config: TrialConfig) -> bool:
        """Whether another method of the chain takes the place of this one's prompts."""
        return any(name in config.methods for name in cls.replaced_by)

    @classmethod
    def splits_batch(cls, config: TrialConfig) -> bool:
        """Whether a batch may be trained in parts, their gradients added up.

        Exact where every loss is a mean over the samples or does not depend on them. What samples
        of a batch share, such as batch norm, forbids it.
        """
        return True

    @classmethod
    def has_own_logits(cls, config: TrialConfig) -> bool:
        """Whether `on_logits` makes the logits, so that the trial has no head of its own."""
        return False

    @classmethod
    def fit(cls, setup: Setup, data: FitData) -> dict[str, Tensor]:
        """Look at the training split once, before the first epoch (clusters, label maps).

        Returns:
            Tensors by name; `params` lists them as not trainable.
        """
        return {}

    @classmethod
    def params(cls, setup: Setup) -> dict[str, ParamSpec]:
        """Tensors of one member by name (without the method's name)."""
        return {}

    @property
    def active(self) -> bool:
        """False: nothing was added (no prompts), all hooks are skipped."""
        return True

    @property
    def changes_features(self) -> bool:
        """False: the backbone's features depend on nothing of this method and can be cached."""
        return True

    @property
    def first_block(self) -> int:
        """First block that this method changes, or the depth: what enters it can be cached."""
        return 0 if self.changes_features else self.layout.depth

    def extra_flops(self, m: int) -> float:
        """Forward FLOPs per image that member m adds to the backbone's (negative if it saves).

        Those of its own logits included; the model counts the head where there is one.
        """
        return 0.0

    def begin(self, run: Pass) -> Any:
        """Work that needs no tokens; the result is handed to the hooks of this pass as `state`."""
        return run

    def on_images(self, images: Tensor, state: Any) -> Tensor:
        """Change the normalised images (M, B, 3, height, width)."""
        return images

    def weights(self, state: Any) -> Mapping[str, Tensor]:
        """Weights of this pass that take the place of the backbone's, by its parameter names."""
        return {}

    def on_patches(self, patches: Tensor, state: Any) -> Tensor:
        """Change the patch embeddings (M, B, ..., D), before position embeddings and prefix."""
        return patches

    def on_tokens(self, tokens_MBSD: Tensor, state: Any) -> Tensor:
        """Change the tokens that enter the first block."""
        return tokens_MBSD

    def on_prompts(self, prompts: Tensor, sizes: Sequence[int], index: int, step: Step) -> Tensor:
        """Change a block's prompts (M, ..., P, D), its own or another method's, after dropout.

        Args:
            sizes: Real prompts per member; what stands behind them is padding and stays 0.
            index: The block.
            step: Position in training.
        """
        return prompts

    def on_block(self, index: int, block: Block, tokens_MBSD: Tensor, state: Any) -> Tensor:
        """Run a block. The last one may return only the first `Pass.rows` tokens."""
        return plain_block(block, tokens_MBSD)

    def on_output(self, tokens_MBSD: Tensor, state: Any) -> Tensor:
        """Take out, after the last block, what the backbone's norm and pooling must not see."""
        return tokens_MBSD

    def on_norm(self, tokens_MBSD: Tensor, state: Any) -> Tensor:
        """Change the tokens after the backbone's final norm."""
        return tokens_MBSD

    def on_features(self, features_MBF: Tensor, state: Any) -> Tensor:
        """Change the features that the head reads."""
        return features_MBF

    def on_logits(self, features_MBF: Tensor, state: Any) -> Tensor:
        """Logits (M, B, C) instead of a head's; asked only where `has_own_logits`."""
        raise NotImplementedError

    def side_features(self, state: Any) -> Sequence[tuple[float, Tensor]]:
        """Further features (M, B, F) for the same head, each with its share of the loss."""
        return ()

    def penalty(self, state: Any) -> Tensor | None:
        """Weighted extra loss (M,), or None."""
        return None

    def after_step(self) -> None:
        """Bring tensors back into their range after an optimiser step."""

    @classmethod
    def after_epoch(cls, trainer: Trainer) -> Restart | None:
        """Look at one member between two epochs; a two-stage method starts its second stage here.

        Returns:
            What the member goes on with, or None to go on as it is.
        """
        return None

    @classmethod
    def refresh(cls, trainer: Trainer) -> MemberState:
        """New values of tensors that follow the training without being trained (label maps).

        Asked after each epoch; training goes on with them as if nothing had happened.

        Returns:
            Tensors by full name.
        """
        return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainer:
    """One member between two epochs, as `Method.after_epoch` sees it."""

    config: TrialConfig
    epoch: int
    """Epochs trained so far."""
    state: MemberState
    """All tensors of the member."""
    initial: Callable[[], MemberState]
    """The tensors the member started from."""
    redraw: Callable[[], MemberState]
    """Tensors drawn anew, as another seed would."""
    gradients: Callable[[Sequence[str], bool], Iterator[dict[str, Tensor]]]
    """Gradients of the classification loss with respect to some tensors, one dictionary per
    training batch. True: an optimiser step is made behind each, which the member forgets."""
    source_logits: Callable[[], Iterator[tuple[Tensor, Tensor]]]
    """What the backbone's own classifier says of all training images (n, S) as the member sees
    them now, without augmentation, and their labels (n,)."""


@dataclass(frozen=True, slots=True)
class Restart:
    """New tensors for a member, which starts afresh with them for the epochs that are left.

    Optimiser, learning-rate schedule (warm-up included) and patience begin again, over the epochs
    that are left; the first epoch of the new stage takes the place of the epoch selected before.
    """

    state: MemberState


def method_class(name: str) -> type[Method]:
    """The `Method` class of a method file."""
    found: type[Method] = plugins.load(METHODS, name).Method
    return found


def overrides(method: Method | type[Method], hook: str) -> bool:
    """Whether a method defines a hook itself."""
    kind = method if isinstance(method, type) else type(method)
    return getattr_static(kind, hook) is not getattr_static(Method, hook)


def pack_key(config: TrialConfig) -> tuple[Any, ...]:
    """Settings in which trials must agree to share a pack."""
    parts = [(name, *s.pack_key()) for name, s in config.method_settings.items()]
    if config.train.dropout > 0:  # draws cover all tokens: with padding they would be others
        parts += list(config.method_settings.items())
    batches = config.train.batch_size, config.train.drop_last
    return (config.methods, *batches, config.optim.rule, *parts)


def pack_capacity(config: TrialConfig) -> int | None:
    """Most members of a pack: 1 where a method trains the backbone's weights, else no limit."""
    return 1 if any(method_class(name).trains_backbone for name in config.methods) else None


def splits_batch(config: TrialConfig) -> bool:
    """Whether a batch may be trained in parts: no method of the chain lets its samples meet."""
    return all(method_class(name).splits_batch(config) for name in config.methods)


def check_chain(config: TrialConfig, layout: TokenLayout) -> None:
    """Refuse chains whose methods get in each other's way, and methods the backbone cannot carry.

    Raises:
        ConfigError: Naming the methods or the setting.
    """
    chain = {name: method_class(name) for name in config.methods}
    for hook, job in _SINGLE.items():
        found = [
            name
            for name, method in chain.items()
            if overrides(method, hook) and not method.is_replaced(config)
        ]
        if len(found) > 1:
            raise ConfigError(
                f"methods: {found[0]!r} and {found[1]!r} cannot be chained, both {job} ({hook}); "
                "keep one of them."
            )
    logits = [name for name, method in chain.items() if method.has_own_logits(config)]
    if len(logits) > 1:
        raise ConfigError(
            f"methods: {logits[0]!r} and {logits[1]!r} cannot be chained, both make the logits; "
            "keep one of them."
        )
    for method in chain.values():
        method.check(config, layout)


def deviations(config: TrialConfig) -> tuple[str, ...]:
    """Where a trial differs from what it claims: from its protocol, and from its methods as they
    were published."""
    found = departures(config.protocol, config.flat())
    for name in config.methods:
        found += method_class(name).deviations(config)
    return found


_SINGLE = {
    "on_block": "replace how a block runs",
    "weights": "train the backbone's weights",
    "side_features": "add a second branch to the loss",
    "after_epoch": "have a second stage",
}
"""Hooks that only one method of a chain may define, and what they do."""


def drop_prompts(
    prompts_MPD: Tensor,
    exists_MP: Tensor | None,
    sizes: Sequence[int],
    rates: Sequence[float],
    samples: int,
    step: Step,
    purpose: str,
    layer: int,
) -> Tensor:
    """Dropout on prompts, drawn per sample from each member's own stream.

    The draw covers a member's real prompts only, so padding cannot change it.

    Args:
        exists_MP: False for padding; None: no padding.
        sizes: Real prompts per member.
        rates: Share of elements set to 0, per member, to the nearest of 65,536 steps.
        samples: B.
        purpose: Name of the random stream; `layer` is its last counter.

    Returns:
        (M, B, P, D).
    """
    members, length, width = prompts_MPD.shape
    device = prompts_MPD.device
    bits = torch.zeros(members, samples, length, width, dtype=torch.int16, device=device)
    for m, rate in enumerate(rates):
        if rate > 0:
            generator = step.streams[m].generator(purpose, step.steps[m], layer, device=device)
            drawn = sample_bits((samples, sizes[m], width), generator, step)
            bits[m, :, slice(None) if exists_MP is None else exists_MP[m]] = drawn
    return _keep(prompts_MPD[:, None], bits, rates)


def drop(
    x: Tensor, sizes: Sequence[int], rates: Sequence[float], step: Step, purpose: str, layer: int
) -> Tensor:
    """Dropout on activations (M, ..., F) in training, drawn from each member's own stream.

    Args:
        sizes: Real entries of the last axis per member; what stands behind them is not drawn for.
        rates: Share of elements set to 0, per member, to the nearest of 65,536 steps.
        purpose: Name of the random stream; `layer` is its last counter.
    """
    if not (step.training and any(rate > 0 for rate in rates)):
        return x
    bits = torch.zeros(x.shape, dtype=torch.int16, device=x.device)
    for m, rate in enumerate(rates):
        if rate > 0:
            generator = step.streams[m].generator(purpose, step.steps[m], layer, device=x.device)
            shape = (*x.shape[1:-1], sizes[m])
            bits[m, ..., : sizes[m]] = sample_bits(shape, generator, step)
    return _keep(x, bits, rates)


def _keep(x: Tensor, bits: Tensor, rates: Sequence[float]) -> Tensor:
    """Scale up where random int16 numbers (M, ...) are small enough, 0 elsewhere."""
    kept = [round((1 - rate) * 65536) for rate in rates]
    limits = torch.tensor([min(k - 32769, 32767) for k in kept], dtype=torch.int16, device=x.device)
    scale = torch.tensor([65536 / k for k in kept], dtype=x.dtype, device=x.device)
    column = (-1, *[1] * (x.ndim - 1))
    scaled = x * scale.view(column)
    return torch.where(bits <= limits.view(column), scaled, scaled.new_zeros(()))


def sample_bits(shape: tuple[int, ...], generator: Generator, step: Step) -> Tensor:
    """`random_bits` (B, ...) of the samples of this pass: those they have in the whole batch."""
    if step.part is None:
        return random_bits(shape, generator)
    return random_bits((step.part.batch, *shape[1:]), generator)[step.part.rows]


def random_bits(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Uniform int16 numbers, four to a draw, which is several times faster than `bernoulli_`."""
    count = torch.Size(shape).numel()
    draws = torch.empty(-(-count // 4), dtype=torch.int64, device=generator.device)
    draws.random_(-(2**63), None, generator=generator)
    return draws.view(torch.int16)[:count].view(shape)


def uniform(bound: float) -> Callable[[Tensor, Generator], object]:
    """Initialise with U(-bound, bound)."""
    return lambda tensor, generator: tensor.uniform_(-bound, bound, generator=generator)


def vpt_bound(backbone: Backbone, width: int | None = None) -> float:
    """VPT's bound of the uniform prompt initialisation (Xavier over one image patch).

    Args:
        width: Of the prompts; None: the backbone's.
    """
    height, length = backbone.layout.patch_size
    return float((6 / (3 * height * length + (width or backbone.layout.embed_dim))) ** 0.5)


def padding(sizes: Sequence[int], device: torch.device) -> Tensor | None:
    """Boolean (M, max size), False behind each member's size; None if all sizes are equal."""
    return None if len(set(sizes)) == 1 else _padding(tuple(sizes), device)


@cache  # asked for in every block; making it anew would stall a GPU each time
def _padding(sizes: tuple[int, ...], device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # else a mask first made there could never be trained with
        ends = torch.tensor(sizes, device=device)
        return torch.arange(max(sizes), device=device) < ends[:, None]
