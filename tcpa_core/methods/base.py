"""What a method is: settings, trainable tensors, and hooks into the forward pass of a pack.

A method file exports `Config` (its settings) and `Method` (its tensors and hooks). Every hook is
neutral by default. Tensors of all members of a pack are stacked along a leading axis and padded
with zeros at the end of the other axes, so a method has to ignore the padding.
"""

# Axes: M members, B samples, S tokens, P prompt tokens, D width.

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import getattr_static
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

from torch import Tensor, nn

from tcpa_core import plugins
from tcpa_core.config import METHODS, TrialConfig
from tcpa_core.methods._block_attention import BlockAttention
from tcpa_core.methods._init import Init, constant, copy_of, normal, trunc02, uniform, vpt_bound
from tcpa_core.methods._layers import batch_norm, member_linear, padding
from tcpa_core.methods._passes import BatchPart, Images, Mixing, Pass, Step, Unchanged
from tcpa_core.methods._random import Dropout, DropPath, member_row, token_rows
from tcpa_core.model.blocks import plain_block
from tcpa_core.settings import Settings
from tcpa_core.streams import Stream

if TYPE_CHECKING:
    from timm.models.vision_transformer import Block

    from tcpa_core.model.backbone import Backbone, TokenLayout

__all__ = [
    "AnyMethod",
    "BatchPart",
    "BlockAttention",
    "DropPath",
    "Dropout",
    "FitData",
    "Images",
    "Init",
    "MemberState",
    "Method",
    "MethodSettings",
    "Mixing",
    "ParamSpec",
    "Pass",
    "Restart",
    "Setup",
    "Step",
    "Trainer",
    "Unchanged",
    "batch_norm",
    "constant",
    "copy_of",
    "member_linear",
    "member_row",
    "normal",
    "padding",
    "token_rows",
    "trunc02",
    "uniform",
    "vpt_bound",
]
"""What a method file is made of, so that its author imports this module and no private one."""

MemberState = dict[str, Tensor]
"""Tensors of one member without padding, by full name ("tcpa.cls_prompts")."""

State = TypeVar("State")
"""What a method keeps during one pass: what its `begin` returns."""


class MethodSettings(Settings):
    """Base of every method's `Config`."""

    shared: ClassVar[tuple[str, ...]] = ()
    """Fields in which the members of a pack must agree, because they change the code path."""

    def pack_key(self) -> tuple[object, ...]:
        """Members of one pack have equal keys."""
        return tuple(getattr(self, name) for name in self.shared)


@dataclass(frozen=True, slots=True)
class ParamSpec:
    """One tensor of one member, without padding."""

    shape: tuple[int, ...]
    init: Init
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


class Method(nn.Module, Generic[State]):
    """One method for all members of a pack; `Method[Pass]` if it keeps nothing during a pass.

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
    any_size: ClassVar[bool] = True
    """False: images have to have the backbone's own size."""
    is_recordable: ClassVar[bool] = True
    """False: values on the device decide which operations a step consists of (how often a solver
    repeats itself), so that no step can be recorded and repeated."""

    def __init__(self, backbone: Backbone, configs: Sequence[TrialConfig]) -> None:
        super().__init__()
        self.layout = backbone.layout
        self.prompt_changers: list[AnyMethod] = []
        """Methods of the chain whose `on_prompts` is to be applied to this one's prompts."""
        # Members of a pack share a chain and `pack_key`; all other settings may differ.
        self.seeds = [config.seed for config in configs]
        self.settings: list[Any] = [config.method_settings[self.name()] for config in configs]

    @classmethod
    def name(cls) -> str:
        """The method's name: that of its file, or of the entry point that names its module."""
        return plugins.name_of(METHODS, cls.__module__)

    @classmethod
    def check(cls, config: TrialConfig, layout: TokenLayout) -> None:
        """Refuse settings that this backbone cannot carry.

        Raises:
            ConfigError: Saying which setting to change.
        """

    @classmethod
    def check_classes(cls, config: TrialConfig, class_names: Sequence[str]) -> None:
        """Refuse settings that do not fit the data set's classes, as `check` does."""

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
    def hides_attention(cls, config: TrialConfig) -> str | None:
        """Why `attention` cannot say what the blocks read, as the end of the sentence "attention
        figures cannot show 'x', which ..."; None: it can."""
        return None

    @classmethod
    def hides_map(cls, config: TrialConfig) -> str | None:
        """Why what blocks give out cannot be read as a map of tokens, as segmentation does, as the
        end of the sentence "task.name=segment cannot train 'x', which ..."; None: it can.

        Then neither `on_norm` nor any hook of the features is asked, and `on_output` for each block
        that is read.
        """
        for hook in ("on_norm", "on_features", "side_features"):
            if getattr_static(cls, hook) is not getattr_static(Method, hook):
                return f"changes the one vector of a picture ({hook}), which a map does not have"
        if cls.has_own_logits(config):
            return "makes the logits of a picture itself"
        return None

    @classmethod
    def fit(cls, setup: Setup, data: FitData) -> dict[str, Tensor]:
        """Look at the training split once, before the first epoch (clusters, label maps): tensors
        by name, which `params` lists as not trainable."""
        return {}

    @classmethod
    def params(cls, setup: Setup) -> dict[str, ParamSpec]:
        """Tensors of one member by name (without the method's name)."""
        return {}

    @classmethod
    def merged(cls, backbone: Backbone, config: TrialConfig, state: MemberState) -> Backbone | None:
        """A copy of the backbone whose plain blocks compute, to rounding, what they compute with
        this method; None: there is none.

        Args:
            state: The member's tensors by full name.

        Raises:
            ConfigError: A layer of this backbone cannot take it up.
        """
        return None

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

    def phase(self, step: Step) -> Hashable:
        """What of a step's epochs decides which operations it consists of: a recorded step is
        repeated within one phase only. None: all steps of equal shapes do the same."""
        return None

    def begin(self, run: Pass) -> State:
        """Work that needs no tokens; the result is handed to the hooks of this pass as `state`."""
        return cast("State", run)  # a method that keeps nothing is a Method[Pass]

    def on_images(self, images: Tensor, state: State) -> Tensor:
        """Change the normalised images (M, B, 3, height, width)."""
        return images

    def weights(self, state: State) -> Mapping[str, Tensor]:
        """Weights of this pass that take the place of the backbone's, by its parameter names."""
        return {}

    def on_patches(self, patches: Tensor, state: State) -> Tensor:
        """Change the patch embeddings (M, B, ..., D), before position embeddings and prefix."""
        return patches

    def on_tokens(self, tokens_MBSD: Tensor, state: State) -> Tensor:
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

    def on_block(self, index: int, block: Block, tokens_MBSD: Tensor, state: State) -> Tensor:
        """Run a block. The last one may return only the first `Pass.rows` tokens."""
        return plain_block(block, tokens_MBSD)

    def attention(
        self, index: int, block: Block, tokens_MBSD: Tensor, state: State
    ) -> BlockAttention:
        """Say what a block's self-attention reads, for figures: in evaluation, after `on_block`.

        To be overridden where prompts stand in the sequence or beside it, or queries or keys are
        not those of the block; only one method of a chain can say it.

        Args:
            tokens_MBSD: What entered the block.
        """
        return BlockAttention.of(block, tokens_MBSD)

    def usage(self, state: State) -> Mapping[str, Tensor]:
        """Say how often each prompt group was chosen in a pass of inspection (`Pass.inspect`):
        counts (M, L, G) by pool, "cls", "image", or "shared" where all tokens share one."""
        return {}

    def on_output(self, tokens_MBSD: Tensor, state: State) -> Tensor:
        """Take out, after the last block, what the backbone's norm and pooling must not see."""
        return tokens_MBSD

    def on_norm(self, tokens_MBSD: Tensor, state: State) -> Tensor:
        """Change the tokens after the backbone's final norm."""
        return tokens_MBSD

    def on_features(self, features_MBF: Tensor, state: State) -> Tensor:
        """Change the features that the head reads."""
        return features_MBF

    def on_logits(self, features_MBF: Tensor, state: State) -> Tensor:
        """Logits (M, B, C) instead of a head's; asked only where `has_own_logits`."""
        raise NotImplementedError

    def side_features(self, state: State) -> Sequence[tuple[float, Tensor]]:
        """Further features (M, B, F) for the same head, each with its share of the loss."""
        return ()

    def penalty(self, state: State) -> Tensor | None:
        """Weighted extra loss (M,), or None."""
        return None

    def after_step(self) -> None:
        """Bring tensors back into their range after an optimiser step."""

    @classmethod
    def after_epoch(cls, trainer: Trainer) -> Restart | None:
        """Look at one member between two epochs; a two-stage method starts its second stage here,
        with what it returns. None: the member goes on as it is."""
        return None

    @classmethod
    def refresh(cls, trainer: Trainer) -> MemberState:
        """New values, by full name, of tensors that follow the training without being trained
        (label maps). Asked after each epoch; training goes on as if nothing had happened."""
        return {}


AnyMethod = Method[Any]
"""A method, whatever it keeps during a pass."""


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
