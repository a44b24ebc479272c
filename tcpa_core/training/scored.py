"""What is measured of one member on a whole split."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from torch import Tensor

from tcpa_core.record.events import Tested
from tcpa_core.record.predictions import SplitPredictions
from tcpa_core.record.regions import Shown
from tcpa_core.training.confusion import Counts


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured:
    """Of a member's state on a split."""

    loss: float
    """Mean cross-entropy of the pictures, or of the labelled pixels."""
    accuracy: float
    """Share of the pictures that are right, or of the labelled pixels."""
    classes: Tensor | None = None
    """What it took the pictures for, int16 or int32 [N] on the CPU."""
    counts: Counts | None = None
    """Of a segmentation: what it took their pixels for."""
    miou: float | None = None
    """Of a segmentation, see `tcpa_core.record.regions.MapScores`."""
    mean_accuracy: float | None = None

    @property
    def score(self) -> float:
        """By which trials of its task are compared."""
        return self.accuracy if self.miou is None else self.miou


class Scored(NamedTuple):
    """Of a member's selected state on the test split."""

    loss: float
    accuracy: float
    images: SplitPredictions | None = None
    """What it took each image for; None: of a segmentation, which has what follows."""
    miou: float | None = None
    mean_accuracy: float | None = None
    counts: Counts | None = None
    pictures: Mapping[int, Shown] = MappingProxyType({})
    """Its worst ones, the worst first, by number in the split."""
    miou_multiscale: float | None = None
    """Averaged over `segment.test_scales`; None: they name none."""

    def tested(self, trial: str) -> Tested:
        """What a record says of it."""
        return Tested(
            trial=trial,
            test_loss=self.loss,
            test_accuracy=self.accuracy,
            test_miou=self.miou,
            test_mean_accuracy=self.mean_accuracy,
            test_miou_multiscale=self.miou_multiscale,
        )
