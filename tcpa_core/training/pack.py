"""A pack: M trials trained together over one frozen backbone and one data set.

A single run is a pack of one; there is no other training loop. Members share the backbone's
computation and nothing else: parameters, optimiser state, random streams, losses and failures are
their own. They join and leave between epochs.
"""

# Axes: M members.

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tcpa_core.config import TrialConfig
from tcpa_core.methods.base import MemberState, Step
from tcpa_core.model.backbone import Backbone
from tcpa_core.model.pack_model import PackModel
from tcpa_core.record.predictions import Predictions
from tcpa_core.record.regions import Regions
from tcpa_core.record.values import COSTS, EpochReport, Status, TrialResult
from tcpa_core.streams import Stream
from tcpa_core.training.batches import num_images
from tcpa_core.training.between_epochs import BetweenEpochs
from tcpa_core.training.by_rows import ByRows
from tcpa_core.training.costs import CountedCosts
from tcpa_core.training.divergence import Diverged, divergence
from tcpa_core.training.epoch import train_epoch
from tcpa_core.training.evaluation import Evaluation, Scores
from tcpa_core.training.found import predictions, regions, selected
from tcpa_core.training.graphs import CudaRecorder, Execution, StepGraphs
from tcpa_core.training.kept_tokens import KeptTokens
from tcpa_core.training.masked_source import MaskedSource
from tcpa_core.training.member import Member, Selected, initial_state
from tcpa_core.training.memory import peak_bytes, reset_peak
from tcpa_core.training.optim import Moments
from tcpa_core.training.precision import (
    keep_float32_exact,
    keep_gradients_repeatable,
    uses_bfloat16,
)
from tcpa_core.training.scored import Scored
from tcpa_core.training.segment_evaluation import SegmentEvaluation, SegmentScores
from tcpa_core.training.stacks import Stacks, optimizer_of
from tcpa_core.training.step import TrainingStep
from tcpa_core.training.trial_data import TrialData


class Pack:
    """Trains members that share `pack_key(config)`, one epoch at a time.

    Args:
        backbone: Frozen; shared by all members.
        data: Shared by all members.
        on_step: Called before every batch, in training and evaluation: a sign of life.
    """

    def __init__(
        self, backbone: Backbone, data: TrialData, *, on_step: Callable[[], None] = lambda: None
    ) -> None:
        self.backbone = backbone
        self.data = data
        self.device = data.train.labels.device
        keep_float32_exact()
        keep_gradients_repeatable()
        by_rows = ByRows(on_step)
        self._kept = kept = KeptTokens(backbone, data, by_rows)
        self.step = TrainingStep(data, kept, on_step)
        self._evaluation = evaluation_of(data, kept, by_rows)
        self._between_epochs = BetweenEpochs(
            data,
            self.step,
            by_rows,
            model_of=self._model_of,
            initial=lambda config: initial_state(config, backbone, data),
        )
        self.execution: Execution = "eager"
        """How training steps are run; asked for whenever members are stacked anew."""
        self._costs = CountedCosts(data.train)
        self._stacks: Stacks | None = None
        """Of the last epoch, where nothing has changed its members since."""
        self._peaks: dict[str, int] = {}
        """Highest use of memory in an epoch of each trial, in bytes."""

    def new_member(self, trial: str, config: TrialConfig) -> Member:
        """A fresh member, initialised from its seed alone.

        Raises:
            ConfigError: The methods cannot be chained, or do not fit the backbone or the classes.
        """
        state = initial_state(config, self.backbone, self.data)
        return Member(trial=trial, config=config, state=state)

    def run_epoch(self, members: Sequence[Member]) -> list[Member | Diverged]:
        """Train all given members for one epoch and validate them.

        The members themselves stay what they are, also where this fails half-way. To go on with
        what it returned is cheaper than with anything else.

        Returns:
            For each member, in order: the member after the epoch, its last report that of the
            epoch, or why there is none.
        """
        started = time.perf_counter()
        reset_peak(self.device)
        stacks = self._take_stacks(members)
        losses, lrs = train_epoch(stacks, self.step, len(self.data.train))
        val = self._evaluation.score(stacks.model, "val")
        # No other rule may look at the test split before the trial's end.
        test = None
        if any(m.config.train.selection == "best_test_epoch" for m in members):
            test = self._evaluation.score(stacks.model, "test")
        seconds = (time.perf_counter() - started) / len(members)
        peak = peak_bytes(self.device)
        self._peaks |= {m.trial: max(peak, self._peaks.get(m.trial, 0)) for m in members}
        measured = _Epoch(losses, lrs, val, test, seconds)
        outcomes: list[Member | Diverged] = []
        stacked: list[Member] = []
        """What the stacks hold now. Where that is no outcome, nobody can ask for it again."""
        for m, (member, tensors) in enumerate(zip(members, stacks.on_host(), strict=True)):
            diverged = divergence(member, losses[:, :, m], val.loss[m])
            if diverged:
                outcomes.append(diverged)
                stacked.append(replace(member))
                continue
            trained = self._trained(member, m, *tensors, measured)
            outcomes.append(self._between_epochs.after_epoch(trained))
            stacked.append(trained)
        self._stacks = replace(stacks, members=tuple(stacked))
        return outcomes

    def release(self) -> bool:
        """Let go of what can be made again, the last stacks and kept tokens; whether any was."""
        had_stacks, self._stacks = self._stacks is not None, None
        return self._kept.release() or had_stacks

    def _trained(
        self, member: Member, m: int, state: MemberState, moments: Moments, measured: "_Epoch"
    ) -> Member:
        """Member number m after the epoch that left these tensors."""
        val, test = measured.val.of(m), measured.test
        score = None if test is None else test.of(m).score
        outcome = Selected.of(member.epoch + 1, state, val, score)
        train_loss, ce_loss, match_loss = measured.losses[:, :, m].mean(0).tolist()
        report = EpochReport(
            epoch=outcome.epoch,
            train_loss=train_loss,
            ce_loss=ce_loss,
            match_loss=match_loss,
            val_loss=val.loss,
            val_accuracy=val.accuracy,
            lr=measured.lrs[m],
            duration_s=measured.seconds,
            images_per_s=num_images(len(self.data.train), member.config) / measured.seconds,
            val_miou=val.miou,
            val_mean_accuracy=val.mean_accuracy,
        )
        return member.trained(outcome, moments, len(measured.losses), report)

    def _take_stacks(self, members: Sequence[Member]) -> Stacks:
        """Those of the last epoch if they hold these members, else new ones.

        They are given back at the end of an epoch only: one that fails leaves stacks that have
        trained on while its members have not.
        """
        found, self._stacks = self._stacks, None
        if found is not None and found.members == tuple(members):
            return found
        # Those that go on are taken from where they are, without a way over the host.
        sources = [found.on_device(member) for member in members] if found else members
        if all(source is member for source, member in zip(sources, members, strict=True)):
            found = None  # its memory is free before new stacks are made
        return replace(self.stacked(sources, self.execution), members=tuple(members))

    def stacked(self, members: Sequence[Member], execution: Execution) -> Stacks:
        """Members on the device, side by side, with steps that run in a given way."""
        model = self._model_of(members)
        return Stacks(
            tuple(members),
            model,
            optimizer_of(members, model),
            graphs=None if execution == "eager" else StepGraphs(CudaRecorder(self.device)),
            is_compiled=execution == "compiled",
        )

    def _model_of(self, members: Sequence[Member]) -> PackModel:
        half = uses_bfloat16(members[0].config.train.precision, self.device)
        model = PackModel(
            self.backbone.halved() if half else self.backbone,
            [m.config for m in members],
            len(self.data.class_names),
            [m.state for m in members],
        )
        return model.to(self.device)

    def test(self, members: Sequence[Member]) -> list[Scored]:
        """Score each member's selected state on the test split."""
        return self._evaluation.test(self._model_of(selected(members)))

    def predictions(
        self, members: Sequence[Member], scored: Sequence[Scored]
    ) -> list[Predictions] | list[Regions]:
        """What each member's selected state takes the images of val and test for, or their pixels.

        Args:
            scored: Of these members.
        """
        if isinstance(self._evaluation, SegmentEvaluation):
            return regions(self.data, selected(members), scored)
        return predictions(self.data, selected(members), scored, self._evaluation, self._model_of)

    def trial_step(self, configs: Sequence[TrialConfig]) -> Callable[[], None]:
        """A function that makes one training step of fresh members, to measure its cost."""
        members = [self.new_member(str(m), config) for m, config in enumerate(configs)]
        model = self._model_of(members)
        count = min(configs[0].train.batch_size, len(self.data.train))
        indices = torch.arange(count).expand(len(members), -1)
        streams = [Stream(config.seed) for config in configs]
        zeros = [0] * len(members)
        step = Step(training=True, epochs=zeros, steps=zeros, streams=streams)

        def run() -> None:
            batch = self.step.batch(model, indices, step)
            for ce, penalty in self.step.losses(model, batch, step):
                (ce + penalty).sum().backward()
            if self.device.type == "cuda":  # which returns before the work is done
                torch.cuda.synchronize(self.device)

        return run

    def costs(self, member: Member) -> dict[str, Any]:
        """The member's `COSTS` by name."""
        model = self._model_of([member])
        total, without_head = model.tensors.num_trainable(0)
        step = self._costs.of(model)
        found = (
            total,
            without_head,
            model.flops_per_image(),
            step.flops if step else None,
            step.activation_bytes if step else None,
        )
        return dict(zip(COSTS, found, strict=True))

    def result(
        self,
        member: Member,
        status: Status,
        *,
        test: Scored | None = None,
        reason: str = "",
    ) -> TrialResult:
        """What the member leaves behind; `test` is of the selected state."""
        best, told = member.selected, test.tested(member.trial) if test else None
        return TrialResult(
            status=status,
            reason=reason,
            best_epoch=best.epoch if best else None,
            num_epochs=len(member.reports),
            val_accuracy=best.val_accuracy if best else None,
            val_loss=best.val_loss if best else None,
            val_miou=best.val_miou if best else None,
            val_mean_accuracy=best.val_mean_accuracy if best else None,
            test_accuracy=told.test_accuracy if told else None,
            test_loss=told.test_loss if told else None,
            test_miou=told.test_miou if told else None,
            test_mean_accuracy=told.test_mean_accuracy if told else None,
            test_miou_multiscale=told.test_miou_multiscale if told else None,
            **self.costs(member),
            duration_s=member.duration_s,
            peak_memory_bytes=self._peaks.pop(member.trial, 0) or peak_bytes(self.device),
            device=str(self.device),
            warnings=[*self.backbone.warnings, *self.data.warnings],
        )


def evaluation_of(
    data: TrialData, kept: KeptTokens, by_rows: ByRows
) -> Evaluation | SegmentEvaluation:
    """What scores packs on a data set."""
    if isinstance(data.train, MaskedSource):
        return SegmentEvaluation(data, by_rows)
    return Evaluation(data, kept, by_rows)


@dataclass(frozen=True, slots=True)
class _Epoch:
    """What was measured in an epoch, member by member."""

    losses: Tensor
    """[steps, 3, M] on the CPU: total, classification and method loss."""
    lrs: Sequence[float]
    """Of the last step."""
    val: Scores | SegmentScores
    test: Scores | SegmentScores | None
    """Where a member's rule looks at that split."""
    seconds: float
    """Divided among the members."""
