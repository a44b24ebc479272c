"""A class for each pixel (semantic segmentation)."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from tcpa_core.settings import as_tuple
from tcpa_core.tasks import base

MOST_SCALE = 8.0
"""A picture of 512 pixels is 4,096 then."""


class Config(base.TaskSettings):
    """The head, and how whole pictures are scored."""

    head: Literal["linear", "setr_pup", "upernet"] = "linear"
    """linear: one linear map of each token; setr_pup: four convolutions with upsampling between
    them (SETR); upernet: pyramid pooling and a feature pyramid over four blocks (UPerNet)."""
    blocks: Annotated[tuple[int, ...] | None, BeforeValidator(as_tuple)] = None
    """Blocks whose tokens the head reads, from 1; None: the last one, or for upernet four at equal
    distances, of which the last one is the fourth."""
    channels: int = Field(default=256, ge=1)
    """Width of the head's convolutions; linear has none."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Dropout of whole channels before the last layer of the head, in training."""
    auxiliary_blocks: Annotated[tuple[int, ...], BeforeValidator(as_tuple)] = ()
    """Blocks with a small head of their own, whose loss is added in training; from 1."""
    auxiliary_share: float = Field(default=0.4, gt=0.0)
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


class Task(base.Task):
    """A map of tokens, a distribution over classes for each place of it."""
