"""One forward pass, as the hooks of a method see it."""

# Axes: M members, B samples.

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, Self

from torch import Tensor

from tcpa_core.model.attention import Backend
from tcpa_core.streams import Draws, Stream


@dataclass(frozen=True, slots=True)
class BatchPart:
    """Samples of a batch that memory does not hold as a whole."""

    rows: slice
    batch: int
    """Samples of the whole batch."""


class Images(Protocol):
    """Normalised images of a split."""

    def __len__(self) -> int: ...

    def batch(self, indices: slice, /) -> Tensor:
        """Images (n, 3, H, W) of a range."""


@dataclass(frozen=True, slots=True)
class Unchanged:
    """Images of a pass that are as a split has them, in every epoch."""

    split: Images
    indices: Tensor | slice
    """Which of them: (M, B), or a range that all members see."""


@dataclass(frozen=True, slots=True)
class Mixing:
    """What is done to the images of a step beyond each image's own changes, on the device that
    trains; see `tcpa_core.training.mixing`. None: nothing of the kind."""

    shares: Tensor | None = None
    """What mixup or CutMix takes of an image and of its partner, (M, 2)."""
    cut: Tensor | None = None
    """Rectangle that CutMix takes from the partner, (M, 4): top, bottom, left, right; int64."""
    erased: Tensor | None = None
    """Rectangle that is erased of each image, (M, B, 4)."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """Position in training, per member; decides every random draw of a forward pass."""

    training: bool
    epochs: Sequence[int]
    """0-based."""
    steps: Sequence[int]
    """0-based, counted over the whole trial."""
    streams: Sequence[Stream]
    offsets: Tensor | None = None
    """Where the numbers of these steps begin, (M, 2) on the device that trains, a row of what
    `tcpa_core.streams.offsets` makes for an epoch; None: made when they are needed."""
    mixing: Mixing | None = None
    """What is drawn for the batch as a whole; None: made when it is needed."""
    unchanged: Unchanged | None = None
    """None: augmented or mixed, or not known to be of a split."""
    part: BatchPart | None = None
    """None: the pass sees the whole batch."""

    @cached_property
    def draws(self) -> Draws:
        """The random numbers of this pass."""
        return Draws(self.streams, self.steps, self.offsets)

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
    penalised: bool = True
    """False: nobody asks for the methods' own losses, so that none is worked out."""
    inspect: bool = False
    """Keep selections and masks of every block, in `stats` and for `attention` and `usage`."""
    maps: tuple[int, ...] = ()
    """Blocks, from 0, whose tokens are read as maps; none: the backbone pools the last one's."""
    grid: tuple[int, int] | None = None
    """Rows and columns of image tokens; None: those of the backbone's own image size."""
    stats: dict[str, Tensor] = field(default_factory=dict)
