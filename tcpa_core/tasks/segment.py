"""A class for each pixel (semantic segmentation)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator
from torch import Tensor

from tcpa_core.chain import method_class
from tcpa_core.config import TrialConfig
from tcpa_core.errors import ConfigError
from tcpa_core.methods.base import ParamSpec
from tcpa_core.model.head import classifier_init
from tcpa_core.model.map_bodies import Progressive, Tokens
from tcpa_core.model.map_head import HEAD, Branch, MapHead
from tcpa_core.model.upernet import LEVELS, Pyramid
from tcpa_core.settings import MAY_CHANGE, as_tuple
from tcpa_core.tasks import base

if TYPE_CHECKING:
    from tcpa_core.model.backbone import TokenLayout

MOST_SCALE = 8.0
"""A picture of 512 pixels is 4,096 then."""


class Config(base.TaskSettings):
    """The head, and how whole pictures are scored."""

    head: Literal["linear", "setr_pup", "upernet"] = "linear"
    """linear: one linear map of each token; setr_pup: four convolutions with upsampling between
    them (SETR); upernet: pyramid pooling and a feature pyramid over four blocks (UPerNet). All
    normalise the tokens first. The last two start as mmsegmentation's, whatever train.head_init."""
    blocks: Annotated[tuple[int, ...] | None, BeforeValidator(as_tuple)] = None
    """Blocks whose tokens the head reads, from 1; None: the last one, or for upernet four at equal
    distances, of which the last one is the fourth."""
    channels: int = Field(default=256, ge=1)
    """Width of the head's convolutions; linear has none."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0, json_schema_extra=MAY_CHANGE)
    """Dropout of whole channels before the last layer of the head, in training."""
    auxiliary_blocks: Annotated[tuple[int, ...], BeforeValidator(as_tuple)] = ()
    """Blocks with a small head of their own, two convolutions as SETR has them, whose loss is added
    in training; from 1."""
    auxiliary_share: float = Field(default=0.4, gt=0.0, json_schema_extra=MAY_CHANGE)
    """Weight of each such loss beside the main one."""
    window: Literal["slide", "whole"] = "slide"
    """Scoring: slide windows of backbone.img_size over a picture and average where they overlap, or
    take it as a whole, position embeddings resized to it."""
    stride: int | None = Field(default=None, ge=1)
    """Pixels between windows; None: two thirds of the window."""
    test_scales: Annotated[tuple[float, ...], BeforeValidator(as_tuple)] = ()
    """Scales at which the selected state is scored on test a second time, averaged over all
    (multi-scale); none: it is not."""
    test_mirror: bool = True
    """Average over mirrored pictures there, too."""

    @field_validator("blocks", "auxiliary_blocks")
    @classmethod
    def _blocks_rise(
        cls, value: tuple[int, ...] | None, info: ValidationInfo
    ) -> tuple[int, ...] | None:
        is_missing = value == () and info.field_name == "blocks"
        if is_missing or list(value or ()) != sorted(set(value or ())) or min(value or (1,)) < 1:
            raise ValueError(
                f"segment.{info.field_name} must be rising numbers of blocks, from 1, got "
                f"{list(value or ())}; write for example [3, 6, 9, 12]"
            )
        return value

    @field_validator("test_scales")
    @classmethod
    def _scales_are_some(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < scale <= MOST_SCALE for scale in value) or len(set(value)) < len(value):
            raise ValueError(
                f"segment.test_scales must be different factors above 0 and up to {MOST_SCALE:g}, "
                f"got {list(value)}; write for example [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]"
            )
        return value

    @model_validator(mode="after")
    def _head_reads_its_blocks(self) -> Self:
        count = {"setr_pup": 1, "upernet": LEVELS}.get(self.head)
        if self.blocks is not None and count not in (None, len(self.blocks)):
            raise ValueError(
                f"segment.blocks must be {count} of the blocks for segment.head={self.head}, got "
                f"{list(self.blocks)}; leave it out, or take another head"
            )
        return self

    def idle(self, methods: Sequence[str]) -> Collection[str]:
        """Width where nothing is convolved, and what concerns losses or scores that there are
        not."""
        fields = [] if self.head != "linear" or self.auxiliary_blocks else ["channels"]
        fields += [] if self.auxiliary_blocks else ["auxiliary_share"]
        fields += [] if self.window == "slide" else ["stride"]
        return fields if self.test_scales else [*fields, "test_mirror"]

    def idle_elsewhere(self) -> Collection[str]:
        """The start of a linear head where the head is another one."""
        return () if self.head == "linear" else ("train.head_init",)


class Task(base.Task):
    """A map of tokens, a distribution over classes for each place of it."""

    needs_masks = True

    @classmethod
    def check(cls, config: TrialConfig, layout: TokenLayout) -> None:
        """Refuse methods that hide the map of tokens, and blocks that there are not."""
        settings: Any = config.task_settings
        _check_targets(config)
        for name in config.methods:
            reason = method_class(name).hides_map(config)
            if reason is not None:
                raise ConfigError(
                    f"task.name=segment cannot train {name!r}, which {reason}; take it out of "
                    "methods, or set task.name=classify."
                )
            if settings.window == "whole" and not method_class(name).any_size:
                raise ConfigError(
                    f"segment.window=whole takes pictures of any size, of which {name!r} has one; "
                    "set segment.window=slide."
                )
        side = layout.grid[0] * layout.patch_size[0]
        if settings.window == "slide" and (settings.stride or 0) > side:
            raise ConfigError(
                f"segment.stride must be at most backbone.img_size, {side}, got {settings.stride}: "
                "pixels between two windows would be seen in none; lower it or leave it out."
            )
        for path, blocks in (
            ("segment.blocks", settings.blocks or ()),
            ("segment.auxiliary_blocks", settings.auxiliary_blocks),
        ):
            if max(blocks, default=0) > layout.depth:
                raise ConfigError(
                    f"{path} must be blocks of {config.backbone.full_name!r}, 1 to "
                    f"{layout.depth}, got {list(blocks)}."
                )

    @classmethod
    def splits_batch(cls, config: TrialConfig) -> bool:
        """Not where batch norms look at all pictures of a batch."""
        settings: Any = config.task_settings
        return settings.head == "linear" and not settings.auxiliary_blocks

    @classmethod
    def head_specs(
        cls, layout: TokenLayout, config: TrialConfig, num_classes: int
    ) -> dict[str, ParamSpec]:
        """Of the head and of auxiliary ones."""
        return {
            key: spec
            for branch in branches(layout, config, num_classes)
            for key, spec in branch.specs(num_classes).items()
        }

    @classmethod
    def head(
        cls, layout: TokenLayout, configs: Sequence[TrialConfig], tensors: Mapping[str, Tensor]
    ) -> MapHead:
        """Reads maps of tokens."""
        settings: Any = configs[0].task_settings  # equal for all: they are in the pack's key
        num_classes = tensors[f"{HEAD}.bias"].shape[1]
        return MapHead(
            branches(layout, configs[0], num_classes),
            share=settings.auxiliary_share,
            dropout=[settings.dropout] * len(configs),
            tensors=tensors,
        )


def branches(layout: TokenLayout, config: TrialConfig, num_classes: int) -> list[Branch]:
    """The head of a trial, then its auxiliary ones."""
    settings: Any = config.task_settings
    width, channels = layout.embed_dim, settings.channels
    read = _blocks(settings, layout.depth)
    main = Branch(HEAD, Progressive(HEAD, width, channels, convolutions=4, enlarges=2), read)
    if settings.head == "linear":
        init = classifier_init(config.train.head_init, len(read) * width, num_classes)
        main = Branch(HEAD, Tokens(HEAD, width, len(read)), read, init)
    elif settings.head == "upernet":
        main = Branch(HEAD, Pyramid(HEAD, width, channels), read)
    found = [main]
    for block in settings.auxiliary_blocks:
        name = f"{HEAD}.auxiliary{block}"
        body = Progressive(name, width, channels, convolutions=2, enlarges=4)
        found.append(Branch(name, body, (block - 1,)))
    return found


def _blocks(settings: Config, depth: int) -> tuple[int, ...]:
    """What the head reads, from 0; of few blocks a pyramid reads some twice."""
    if settings.blocks is not None:
        return tuple(block - 1 for block in settings.blocks)
    if settings.head != "upernet":
        return (depth - 1,)
    return tuple(-(-depth * i // LEVELS) - 1 for i in range(1, LEVELS + 1))


def _check_targets(config: TrialConfig) -> None:
    """Refuse what makes mixtures of labels, of which a picture has none here."""
    for path, does in _OF_LABELS.items():
        value = getattr(config.train, path)
        if value != 0:
            raise ConfigError(
                f"train.{path}={value:g} {does}, but task.name=segment has a class for each pixel; "
                f"leave it out (train.{path}=0)."
            )


_OF_LABELS = {
    "mixup_alpha": "mixes pictures and their labels",
    "cutmix_alpha": "mixes pictures and their labels",
    "label_smoothing": "smooths the label of a picture",
}
"""Settings of `train.*` and what they do."""
