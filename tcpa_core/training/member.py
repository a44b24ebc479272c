"""One trial between two epochs, as a value: an epoch makes a new one and leaves the old as it was.

So an epoch that fails half-way, for lack of memory say, has nothing to undo: whoever holds the
members still holds what they were before.
"""

from dataclasses import dataclass, field, replace

from torch import Tensor

from tcpa_core.config import TrialConfig
from tcpa_core.methods.base import FitData, MemberState
from tcpa_core.model.backbone import Backbone
from tcpa_core.model.member_tensors import init_member_state
from tcpa_core.record.values import EpochReport
from tcpa_core.streams import Stream
from tcpa_core.training.confusion import Counts
from tcpa_core.training.optim import Moments
from tcpa_core.training.scored import Measured
from tcpa_core.training.trial_data import TrialData


@dataclass(frozen=True, slots=True)
class Selected:
    """The epoch whose state will be tested."""

    epoch: int
    val_accuracy: float
    val_loss: float
    test_accuracy: float | None
    """The task's score on test: only with selection "best_test_epoch", which looks at that split
    every epoch."""
    state: MemberState
    val_classes: Tensor | None = None
    """What it took each image of val for, int16 or int32 [N] on the CPU: computed again, beside
    other members, it might differ in an image or two. None: trained by an older version, or a
    segmentation."""
    val_miou: float | None = None
    """Of a segmentation, as the two that follow."""
    val_mean_accuracy: float | None = None
    val_counts: Counts | None = None
    """What it took the pixels of val for."""

    @classmethod
    def of(
        cls, epoch: int, state: MemberState, val: Measured, test_score: float | None
    ) -> "Selected":
        """An epoch that was measured.

        Args:
            epoch: Its number.
            state: After it.
            val: On val.
            test_score: The task's score on test, where that split is looked at.
        """
        return cls(
            epoch=epoch,
            val_accuracy=val.accuracy,
            val_loss=val.loss,
            test_accuracy=test_score,
            state=state,
            val_classes=val.classes,
            val_miou=val.miou,
            val_mean_accuracy=val.mean_accuracy,
            val_counts=val.counts,
        )

    @property
    def val_score(self) -> float:
        """By which trials of the task are compared."""
        return self.val_accuracy if self.val_miou is None else self.val_miou

    def rank(self, rule: str) -> tuple[float, float]:
        """Sort key of the selection rule; larger is better. Equal val scores are ordered by val
        loss, and the other way round."""
        if rule == "last_epoch":
            return (float(self.epoch), 0.0)
        if rule == "best_test_epoch":
            return (self.test_accuracy or 0.0, 0.0)
        if rule == "best_val_loss":
            return (-self.val_loss, self.val_score)
        return (self.val_score, -self.val_loss)


# Compared by identity: tensors have no single truth, and a pack goes on with its stacks only for
# the very members that it returned.
@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """One trial between two epochs. Tensors are unpadded, on the CPU, and never written to."""

    trial: str
    config: TrialConfig
    state: MemberState
    moments: Moments = field(default_factory=dict)
    epoch: int = 0
    """Epochs trained so far."""
    step: int = 0
    """Optimiser steps made so far."""
    selected: Selected | None = None
    peak: float | None = None
    """Highest val score of this stage, or lowest val loss negated where that selects; None: no
    epoch yet."""
    stale_epochs: int = 0
    """Epochs since the peak."""
    stage_epoch: int = 0
    """Epochs trained before the present stage began; 0 unless a method restarted the member."""
    stage_step: int = 0
    """Optimiser steps made before the present stage began."""
    duration_s: float = 0.0
    reports: tuple[EpochReport, ...] = ()
    """Of every epoch trained: whoever takes the trial up can tell those that did not arrive. A
    trial that began from another's state has none of that one's epochs, and none of its time."""

    @property
    def is_done(self) -> bool:
        """True when the last epoch is trained or the patience is used up."""
        patience = self.config.train.patience
        spent = patience is not None and self.stale_epochs >= patience
        return spent or self.epoch >= self.config.train.epochs

    def trained(
        self, outcome: Selected, moments: Moments, steps: int, report: EpochReport
    ) -> "Member":
        """The member after one more epoch of its stage.

        Args:
            outcome: The epoch's state with its measurements.
            moments: Optimiser state after the epoch.
            steps: Optimiser steps of the epoch.
            report: Measurements of the epoch.
        """
        rule, best = self.config.train.selection, self.selected
        # A method that restarts a member does not want its first stage back, so that any epoch of
        # the present stage is preferred to all before it.
        is_preferred = (
            best is None or best.epoch <= self.stage_epoch or outcome.rank(rule) > best.rank(rule)
        )
        height = -outcome.val_loss if rule == "best_val_loss" else outcome.val_score
        has_risen = self.peak is None or height > self.peak
        return replace(
            self,
            state=outcome.state,
            moments=moments,
            epoch=outcome.epoch,
            step=self.step + steps,
            selected=outcome if is_preferred else best,
            peak=height if has_risen else self.peak,
            stale_epochs=0 if has_risen else self.stale_epochs + 1,
            duration_s=self.duration_s + report.duration_s,
            reports=(*self.reports, report),
        )

    def handed_to(self, trial: str, config: TrialConfig) -> "Member":
        """The same state as another trial goes on from it, with settings of its own.

        What was selected so far is the other trial's, too; epochs and time are not.
        """
        return replace(self, trial=trial, config=config, duration_s=0.0, reports=())

    def restarted(self, state: MemberState) -> "Member":
        """The member at the start of a second stage: schedule and patience begin again.

        What was selected stays until the new stage has an epoch of its own.
        """
        return replace(
            self,
            state=state,
            moments={},
            stage_epoch=self.epoch,
            stage_step=self.step,
            peak=None,
            stale_epochs=0,
        )


def initial_state(config: TrialConfig, backbone: Backbone, data: TrialData) -> MemberState:
    """The tensors a trial starts with: they follow from its seed and the training split alone.

    Raises:
        ConfigError: The methods cannot be chained, or do not fit the backbone or the classes.
    """
    fit_data = FitData(
        labels=data.train.labels,
        batch=lambda indices: data.train.batch(indices, None),
        stream=Stream(config.seed),
        class_names=data.class_names,
    )
    return init_member_state(backbone, config, len(data.class_names), fit_data)
