"""A pack: M trials trained together over one frozen backbone and one data set.

A single run is a pack of one; there is no other training loop. Members share the backbone's
computation and nothing else: parameters, optimiser state, random streams, losses and failures are
their own. They join and leave between epochs.
"""

# Axes: M members, B batch, C classes, D width.

import math
import os
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tcpa_core.chain import method_class, pack_key
from tcpa_core.config import TrialConfig
from tcpa_core.data.base import Progress, load_dataset
from tcpa_core.errors import CheckpointError, ConfigError
from tcpa_core.methods.base import BatchPart, FitData, MemberState, Step, Trainer
from tcpa_core.model.backbone import Backbone
from tcpa_core.model.member_tensors import init_member_state
from tcpa_core.model.noise import has_noise
from tcpa_core.model.pack_model import ModelOutput, PackModel
from tcpa_core.record.values import EpochReport, TrialResult
from tcpa_core.streams import Stream
from tcpa_core.training.checkpoint import load_checkpoint, save_checkpoint
from tcpa_core.training.costs import SAMPLES, TrainingCosts, training_costs
from tcpa_core.training.image_source import ImageSource
from tcpa_core.training.optim import Moments, PackOptimizer, lr_at


@dataclass(frozen=True, slots=True)
class TrialData:
    """The three splits on the device, ready to be sampled."""

    train: ImageSource
    val: ImageSource
    test: ImageSource
    class_names: tuple[str, ...]
    fingerprint: str
    warnings: tuple[str, ...] = ()
    """Sentences that every use of the data has to say."""


def load_trial_data(
    config: TrialConfig,
    backbone: Backbone,
    *,
    device: str = "cpu",
    cache_dir: Path | None = None,
    progress: Progress | None = None,
    keep: bool = True,
) -> TrialData:
    """Load the data set of a trial at the backbone's image size, with its normalisation."""
    data = load_dataset(
        config.data, backbone.img_size, cache_dir=cache_dir, progress=progress, keep=keep
    )
    mean, std = backbone.norm_stats(config.data.norm_stats)
    sources = {
        name: ImageSource(data.splits[name], config.data, backbone.img_size, mean, std, device)
        for name in ("train", "val", "test")
    }
    return TrialData(
        **sources,
        class_names=tuple(data.class_names),
        fingerprint=data.fingerprint,
        warnings=tuple(data.summary.warnings()),
    )


@dataclass(frozen=True, slots=True)
class Selected:
    """The epoch whose state will be tested."""

    epoch: int
    val_accuracy: float
    val_loss: float
    test_accuracy: float | None
    """Only with selection "best_test_epoch", which looks at the test split every epoch."""
    state: MemberState

    def rank(self, rule: str) -> tuple[float, float]:
        """Sort key of the selection rule; larger is better. Epochs of one val accuracy are told
        apart by their loss, and the other way round."""
        if rule == "last_epoch":
            return (float(self.epoch), 0.0)
        if rule == "best_test_epoch":
            return (self.test_accuracy or 0.0, 0.0)
        if rule == "best_val_loss":
            return (-self.val_loss, self.val_accuracy)
        return (self.val_accuracy, -self.val_loss)


@dataclass(slots=True, eq=False)
class Member:
    """One trial between two epochs. Tensors are unpadded, on the CPU, and never shared."""

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
    """Highest val accuracy of this stage, or lowest val loss negated where that selects; None: no
    epoch yet."""
    stale_epochs: int = 0
    """Epochs since the peak."""
    stage_epoch: int = 0
    """Epochs trained before the present stage began; 0 unless a method restarted the member."""
    stage_step: int = 0
    """Optimiser steps made before the present stage began."""
    duration_s: float = 0.0
    reports: list[EpochReport] = field(default_factory=list)
    """Of every epoch trained: whoever takes the trial up can tell those that did not arrive."""

    @property
    def is_done(self) -> bool:
        """True when the last epoch is trained or the patience is used up."""
        patience = self.config.train.patience
        spent = patience is not None and self.stale_epochs >= patience
        return spent or self.epoch >= self.config.train.epochs


@dataclass(frozen=True, slots=True)
class Diverged:
    """A member whose loss stopped being finite; its neighbours are not affected."""

    reason: str


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
        self._on_step = on_step
        self.parts = 1
        """Into so many parts each training batch is cut, so that it fits into memory."""
        self._eval_rows = EVAL_ROWS
        self.device = data.train.labels.device
        self._kept: dict[str, tuple[int, Tensor]] = {}
        """By split: the first block that is trained, and what enters it."""
        self._counted: dict[Any, TrainingCosts] = {}
        self._assembled: list[Member] = []
        self._model: PackModel | None = None
        self._optimizer: PackOptimizer | None = None

    def new_member(self, trial: str, config: TrialConfig) -> Member:
        """A fresh member, initialised from its seed alone."""
        return Member(trial=trial, config=config, state=self._initial_state(config))

    def _initial_state(self, config: TrialConfig) -> MemberState:
        train = self.data.train
        data = FitData(
            labels=train.labels,
            batch=lambda indices: train.batch(indices, None),
            stream=Stream(config.seed),
            class_names=self.data.class_names,
        )
        return init_member_state(self.backbone, config, len(self.data.class_names), data)

    def run_epoch(self, members: Sequence[Member]) -> list[EpochReport | Diverged]:
        """Train all given members for one epoch and validate them.

        The members advance in place; one that diverges keeps its state from before the epoch, and
        after an exception all do.

        Returns:
            One report per member, in order.
        """
        before = [replace(member, reports=list(member.reports)) for member in members]
        try:
            return self._run_epoch(members)
        except Exception:
            for member, old in zip(members, before, strict=True):
                for name in (f.name for f in fields(Member)):
                    setattr(member, name, getattr(old, name))
            self._assembled, self._model, self._optimizer = [], None, None
            raise

    def _run_epoch(self, members: Sequence[Member]) -> list[EpochReport | Diverged]:
        started = time.perf_counter()
        model, optimizer = self._assemble(members)
        losses, lrs = self._train(members, model, optimizer)
        val_loss, val_accuracy = self._evaluate(model, "val")
        tested = any(m.config.train.selection == "best_test_epoch" for m in members)
        test_accuracy = self._evaluate(model, "test")[1] if tested else None
        seconds = (time.perf_counter() - started) / len(members)
        outcomes: list[EpochReport | Diverged] = []
        for m, member in enumerate(members):
            bad = (~torch.isfinite(losses[:, :, m]).all(1)).nonzero()
            if len(bad):
                self._assembled = []
                outcomes.append(_diverged(member, losses[:, 0, m], int(bad[0])))
                continue
            total, ce, match = losses[:, :, m].mean(0).tolist()
            if not math.isfinite(total + val_loss[m]):  # the last step, or the sum of them
                self._assembled = []
                outcomes.append(_diverged_after(member, total, val_loss[m]))
                continue
            member.state = _to_cpu(model.tensors.state(m))
            member.moments = optimizer.moments(m)
            member.epoch += 1
            member.step += len(losses)
            member.duration_s += seconds
            _select(
                member,
                Selected(
                    epoch=member.epoch,
                    val_accuracy=val_accuracy[m],
                    val_loss=val_loss[m],
                    test_accuracy=None if test_accuracy is None else test_accuracy[m],
                    state=member.state,
                ),
            )
            self._after_epoch(member)
            report = EpochReport(
                epoch=member.epoch,
                train_loss=total,
                ce_loss=ce,
                match_loss=match,
                val_loss=val_loss[m],
                val_accuracy=val_accuracy[m],
                lr=lrs[m],
                duration_s=seconds,
                images_per_s=_epoch_images(len(self.data.train), member.config) / seconds,
            )
            member.reports.append(report)
            outcomes.append(report)
        return outcomes

    def test(self, members: Sequence[Member]) -> list[tuple[float, float]]:
        """Loss and accuracy on the test split of each member's selected state."""
        chosen = [replace(m, state=m.selected.state) for m in members if m.selected]
        if len(chosen) != len(members):
            raise ValueError("a member without a trained epoch cannot be tested")
        model = self._build(chosen)
        loss, accuracy = self._evaluate(model, "test")
        return list(zip(loss, accuracy, strict=True))

    def trial_step(self, configs: Sequence[TrialConfig]) -> Callable[[], None]:
        """A function that makes one training step of fresh members, to measure its cost."""
        members = [self.new_member(str(m), config) for m, config in enumerate(configs)]
        model = self._build(members)
        count = min(configs[0].train.batch_size, len(self.data.train))
        indices = torch.arange(count).expand(len(members), -1)
        streams = [Stream(config.seed) for config in configs]
        zeros = [0] * len(members)
        step = Step(training=True, epochs=zeros, steps=zeros, streams=streams)

        def run() -> None:
            for ce, penalty in self._losses(members, model, indices, step):
                (ce + penalty).sum().backward()
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)

        return run

    def largest_batch(self, config: TrialConfig) -> int:
        """Samples of the largest batch, by halves, whose training step fits; 0: not even one."""
        size = min(config.train.batch_size, len(self.data.train))
        while size := size // 2:
            try:
                self.trial_step([config.replace_paths({"train.batch_size": size})])()
                return size
            except Exception as err:
                if not is_out_of_memory(err):
                    raise
        return 0

    def result(
        self,
        member: Member,
        status: str,
        *,
        test: tuple[float, float] | None = None,
        reason: str = "",
    ) -> TrialResult:
        """What the member leaves behind; `test` is (loss, accuracy) of the selected state."""
        model = self._build([member])
        total, without_head = model.tensors.num_trainable(0)
        costs = self._costs(model)
        best = member.selected
        return TrialResult(
            status=status,  # type: ignore[arg-type]
            reason=reason,
            best_epoch=best.epoch if best else None,
            num_epochs=member.epoch,
            val_accuracy=best.val_accuracy if best else None,
            val_loss=best.val_loss if best else None,
            test_accuracy=test[1] if test else None,
            test_loss=test[0] if test else None,
            num_trainable=total,
            num_trainable_no_head=without_head,
            flops_per_image=model.flops_per_image(),
            train_flops_per_image=costs.flops if costs else None,
            activation_bytes_per_image=costs.activation_bytes if costs else None,
            duration_s=member.duration_s,
            peak_memory_bytes=_peak_memory_bytes(self.device),
            device=str(self.device),
            warnings=[*self.backbone.warnings, *self.data.warnings],
        )

    def _costs(self, model: PackModel) -> TrainingCosts | None:
        """Costs of a training step of a pack of one; None where it does not fit into memory."""
        try:
            return self._counted_costs(model)
        except Exception as err:
            if not is_out_of_memory(err):
                raise
            return None

    def _counted_costs(self, model: PackModel) -> TrainingCosts:
        """Costs of a training step of a pack of one; counted once per set of shapes."""
        config = model.configs[0]
        shapes = tuple((name, spec.shape) for name, spec in model.tensors.specs[0].items())
        key = (*pack_key(config), shapes, tuple(config.method_settings.values()))
        if key not in self._counted:
            cached = model.first_block > 0 and not _changes_images([config])
            inputs = self.data.train.batch(torch.arange(SAMPLES), None)[None]
            with _autocast(config, self.device):
                if cached:
                    with torch.no_grad():
                        inputs = model.forward_frozen(inputs).to(self.backbone.dtype)
                self._counted[key] = training_costs(model, inputs, cached=cached)
        return self._counted[key]

    def save(self, member: Member, folder: Path) -> None:
        """Write last.safetensors (all that `restore` needs) and best.safetensors (for users)."""
        best = member.selected
        info = {
            "trial": member.trial,
            "config": member.config.flat(),
            "weights": self.backbone.fingerprint,
            "norm_stats": self.backbone.norm_stats(member.config.data.norm_stats),
            "classes": list(self.data.class_names),
            **{k: getattr(member, k) for k in _COUNTERS},
            "selected": best and {k: getattr(best, k) for k in _SELECTED_FIELDS},
            "reports": [asdict(report) for report in member.reports],
        }
        tensors = {f"state:{k}": v for k, v in member.state.items()}
        tensors |= {f"moment:{k}": v for k, v in member.moments.items()}
        if best and best.epoch == member.epoch:
            save_checkpoint(folder / "best.safetensors", best.state, info)
        if best and best.state is not member.state:
            tensors |= {f"selected:{k}": v for k, v in best.state.items()}
        save_checkpoint(folder / "last.safetensors", tensors, info)

    def restore(self, folder: Path, trial: str, config: TrialConfig) -> Member:
        """Take a member up from the last.safetensors that `save` wrote.

        Raises:
            CheckpointError: The file is missing or damaged, or belongs to other settings.
        """
        tensors, info = load_checkpoint(folder / "last.safetensors")
        if not _is_of(info.get("config"), config):
            raise CheckpointError(
                f"{folder} holds a trial with other settings than trial {trial}; "
                "move that folder away to train the trial from its start."
            )
        state = _with_prefix(tensors, "state:")
        info = {"peak": info.get("peak_accuracy"), **info}  # its name until best_val_loss came
        try:
            selected = info["selected"] and Selected(
                **info["selected"], state=_with_prefix(tensors, "selected:") or state
            )
            return Member(
                trial=trial,
                config=config,
                state=state,
                moments=_with_prefix(tensors, "moment:"),
                selected=selected,
                reports=[EpochReport(**report) for report in info["reports"]],
                **{k: info[k] for k in _COUNTERS},
            )
        except (KeyError, TypeError) as err:
            raise CheckpointError(
                f"{folder} lacks a part of the state of trial {trial} ({err}); "
                "move that folder away to train the trial from its start."
            ) from err

    def _build(self, members: Sequence[Member]) -> PackModel:
        model = PackModel(
            self.backbone,
            [m.config for m in members],
            len(self.data.class_names),
            [m.state for m in members],
        )
        return model.to(self.device)

    def _assemble(self, members: Sequence[Member]) -> tuple[PackModel, PackOptimizer]:
        """Stack the members, or go on with the stacks of the last epoch if they are the same."""
        if self._model is None or self._optimizer is None or self._assembled != list(members):
            self._model = self._build(members)
            self._optimizer = self._optimizer_of(members, self._model)
            self._assembled = list(members)
        return self._model, self._optimizer

    def _optimizer_of(self, members: Sequence[Member], model: PackModel) -> PackOptimizer:
        return PackOptimizer(
            model.tensors.trainable(),
            [m.config.optim for m in members],
            [m.moments for m in members],
            [model.tensors.specs[i] for i in range(len(members))],
            [m.step - m.stage_step for m in members],
        )

    def _after_epoch(self, member: Member) -> None:
        """Let a two-stage method start its second stage, and label maps follow the training."""
        trainer = Trainer(
            config=member.config,
            epoch=member.epoch,
            state=member.state,
            initial=lambda: self._initial_state(member.config),
            redraw=lambda: self._initial_state(_reseeded(member.config)),
            gradients=lambda names, update: self._gradients(member, names, update),
            source_logits=lambda: self._source_logits(member),
        )
        for name in member.config.methods:
            changed = method_class(name).refresh(trainer)
            if changed:
                member.state = member.state | changed
                self._assembled = []
            restart = method_class(name).after_epoch(trainer)
            if restart:
                member.state, member.moments = restart.state, {}
                member.stage_epoch, member.stage_step = member.epoch, member.step
                member.peak, member.stale_epochs = None, 0
                self._assembled = []

    @torch.no_grad()
    def _source_logits(self, member: Member) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits of the backbone's own classifier on the training split, and its labels."""
        model, train = self._build([member]), self.data.train

        def logits(indices: Tensor) -> Tensor:
            with _autocast(member.config, self.device):
                found = model.source_logits(train.batch(indices, None)[None], Step.evaluation(1))
            return found[0].float()

        for indices, values in self._by_rows(len(train), 1, logits):
            yield values, train.labels[indices]

    def _gradients(
        self, member: Member, names: Sequence[str], update: bool
    ) -> Iterator[dict[str, Tensor]]:
        """Gradients of the classification loss, batch by batch in the order of the last epoch.

        Args:
            update: Train on, without dropout and at the member's present rate, between batches.
        """
        model = self._build([member])
        optimizer = self._optimizer_of([member], model)
        tensors = model.tensors.stacked
        wanted = [tensors[name].requires_grad_() for name in names]
        stream = Stream(member.config.seed)
        order = torch.randperm(
            len(self.data.train), generator=stream.generator("order", member.epoch - 1)
        )
        batches = _batches(order[None], member.config)
        total = (member.config.train.epochs - member.stage_epoch) * len(batches)
        lr = lr_at(member.config.optim, member.step - member.stage_step - 1, total)
        for i, indices in enumerate(batches):
            at = member.step - len(batches) + i
            step = Step(training=False, epochs=(member.epoch - 1,), steps=(at,), streams=(stream,))
            optimizer.zero_grad()
            sums = [torch.zeros_like(tensor[0]) for tensor in wanted]
            for loss, penalty in self._losses([member], model, indices, step):
                grads = torch.autograd.grad(loss.sum(), wanted, retain_graph=update)
                sums = [total + grad[0] for total, grad in zip(sums, grads, strict=True)]
                if update:
                    (loss + penalty).sum().backward()
            yield dict(zip(names, sums, strict=True))
            if update:
                optimizer.step([lr])
                model.after_step()

    def _train(
        self, members: Sequence[Member], model: PackModel, optimizer: PackOptimizer
    ) -> tuple[Tensor, list[float]]:
        """One epoch of optimiser steps.

        Returns:
            Losses [steps, 3, M] on the CPU (total, classification, method) and the last rates.
        """
        streams = [Stream(m.config.seed) for m in members]
        orders = torch.stack(
            [
                torch.randperm(len(self.data.train), generator=s.generator("order", m.epoch))
                for m, s in zip(members, streams, strict=True)
            ]
        )
        batches = _batches(orders, members[0].config)
        done = [m.step - m.stage_step for m in members]
        totals = [(m.config.train.epochs - m.stage_epoch) * len(batches) for m in members]
        losses, lrs = [], [0.0] * len(members)
        for i, indices in enumerate(batches):
            step = Step(
                training=True,
                epochs=[m.epoch for m in members],
                steps=[m.step + i for m in members],
                streams=streams,
            )
            optimizer.zero_grad()
            parts = []
            for ce, penalty in self._losses(members, model, indices, step):
                (ce + penalty).sum().backward()
                parts.append(torch.stack([ce + penalty, ce, penalty]).detach())
            lrs = [
                lr_at(m.config.optim, start + i, total)
                for m, start, total in zip(members, done, totals, strict=True)
            ]
            optimizer.step(lrs)
            model.after_step()
            losses.append(torch.stack(parts).sum(0))
        return torch.stack(losses).float().cpu(), lrs

    def _losses(
        self, members: Sequence[Member], model: PackModel, indices: Tensor, step: Step
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Classification and method loss of one batch per member, both [M], part by part.

        The losses of the parts add up to those of the batch, and so do their gradients.
        """
        indices = indices.to(self.device)
        targets = _targets(members, self.data.train.labels[indices], len(self.data.class_names))
        cached = self._is_cached(model, "train")
        if cached:
            inputs = self._frozen(model, "train")[indices]
        else:
            inputs = self._images(members, indices, step)
            _mix(members, inputs, targets, step)
        for part in _parts(indices.shape[1], self.parts):
            self._on_step()
            at = replace(step, part=part)
            rows = part.rows if part else slice(0, indices.shape[1])
            share = (rows.stop - rows.start) / indices.shape[1]
            run = model.forward_trained if cached else model
            with _autocast(members[0].config, self.device):
                out = run(inputs[:, rows], at)
            yield share * _loss(out, targets[:, rows]), share * out.penalty.float()

    def _images(self, members: Sequence[Member], indices: Tensor, step: Step) -> Tensor:
        """Training images [M, B, 3, H, W] at indices [M, B], augmented by each member's stream."""
        train = self.data.train
        if not _augments([m.config for m in members]):
            return train.batch(indices.flatten(), None).unflatten(0, indices.shape)
        generators = [
            stream.generator("augment", t)
            for stream, t in zip(step.streams, step.steps, strict=True)
        ]
        return torch.stack([train.batch(i, g) for i, g in zip(indices, generators, strict=True)])

    @torch.no_grad()
    def _evaluate(self, model: PackModel, split: str) -> tuple[list[float], list[float]]:
        """Mean cross-entropy and accuracy of every member on a whole split."""
        source: ImageSource = getattr(self.data, split)
        step = Step.evaluation(model.num_members)
        loss = torch.zeros(model.num_members, device=self.device, dtype=torch.float64)
        hits = torch.zeros_like(loss)
        for indices, logits in self._logits(model, source, split, step):
            labels = source.labels[indices].expand(model.num_members, -1)
            loss += (
                F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), reduction="none")
                .view_as(labels)
                .sum(1)
            )
            hits += (logits.argmax(-1) == labels).sum(1)
        return (loss / len(source)).tolist(), (hits / len(source)).tolist()

    def _logits(
        self, model: PackModel, source: ImageSource, split: str, step: Step
    ) -> Iterator[tuple[Tensor, Tensor]]:
        if model.features_are_frozen:
            everything = torch.arange(len(source), device=self.device)
            features = self._frozen(model, split)
            yield (
                everything,
                model.classify(features.expand(model.num_members, -1, -1), step).logits,
            )
            return

        kept = self._frozen(model, split) if self._is_cached(model, split) else None

        def logits(indices: Tensor) -> Tensor:
            inputs = (source.batch(indices, None) if kept is None else kept[indices])[None]
            inputs = inputs.expand(model.num_members, *[-1] * (inputs.ndim - 1))
            with _autocast(model.configs[0], self.device):
                return (model if kept is None else model.forward_trained)(inputs, step).logits

        yield from self._by_rows(len(source), model.num_members, logits)

    def _by_rows(
        self, count: int, members: int, compute: Callable[[Tensor], Tensor]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Evaluate samples in turns, in smaller ones from where memory runs out.

        Args:
            count: Samples.
            members: That see each sample.
            compute: Takes indices (n,).
        """
        start = 0
        while start < count:
            rows = max(1, self._eval_rows // members)
            indices = torch.arange(start, min(start + rows, count), device=self.device)
            self._on_step()
            try:
                found = compute(indices)
            except Exception as err:
                if rows == 1 or not is_out_of_memory(err):
                    raise
                self._eval_rows = rows * members // 2
                continue
            yield indices, found
            start += rows

    def _is_cached(self, model: PackModel, split: str) -> bool:
        """Whether what none of a pack's methods changes of a split is computed once and kept.

        Features always, tokens of a block where there is memory; not of the test split, which is
        read once.
        """
        if model.first_block == 0 or (split == "train" and _changes_images(model.configs)):
            return False
        if model.features_are_frozen or self._level(split) == model.first_block:
            return True
        layout = self.backbone.layout
        tokens = len(getattr(self.data, split)) * (layout.num_prefix + layout.num_image)
        size = tokens * layout.embed_dim * self.backbone.dtype.itemsize
        return split != "test" and size <= TOKENS_SHARE * free_bytes(self.device)

    def _level(self, split: str) -> int | None:
        """The block for which a split is kept."""
        return self._kept[split][0] if split in self._kept else None

    @torch.no_grad()
    def _frozen(self, model: PackModel, split: str) -> Tensor:
        """What `PackModel.forward_frozen` makes of a whole split, (N, ...), computed once."""
        if self._level(split) != model.first_block:
            self._kept.pop(split, None)
            source: ImageSource = getattr(self.data, split)

            def frozen(indices: Tensor) -> Tensor:
                images = source.batch(indices, None)[None]
                with _autocast(model.configs[0], self.device):
                    return model.forward_frozen(images)[0].to(self.backbone.dtype)

            found = [values for _, values in self._by_rows(len(source), 1, frozen)]
            self._kept[split] = model.first_block, torch.cat(found)
        return self._kept[split][1]


TOKENS_SHARE = 0.1
"""Share of the free memory that the tokens of a split may fill."""
EVAL_ROWS = 256
"""Images times members in one evaluation batch, as long as memory holds them."""

_COUNTERS = (
    "epoch",
    "step",
    "peak",
    "stale_epochs",
    "stage_epoch",
    "stage_step",
    "duration_s",
)
_SELECTED_FIELDS = ("epoch", "val_accuracy", "val_loss", "test_accuracy")


def free_bytes(device: torch.device) -> int:
    """Memory of a device that nobody uses."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _autocast(config: TrialConfig, device: torch.device) -> torch.autocast:
    precision = config.train.precision
    use = precision == "bf16" or (precision == "auto" and device.type == "cuda")
    return torch.autocast(device.type, torch.bfloat16, enabled=use)


def _epoch_images(count: int, config: TrialConfig) -> int:
    """Images that an epoch trains on: all, or those of its whole batches (`train.drop_last`)."""
    rest = count % config.train.batch_size
    return count - rest if config.train.drop_last and rest < count else count


def _batches(orders_MN: Tensor, config: TrialConfig) -> Sequence[Tensor]:
    """The images of an epoch, batch by batch."""
    used = orders_MN[:, : _epoch_images(orders_MN.shape[1], config)]
    return used.split(config.train.batch_size, dim=1)


def _parts(size: int, count: int) -> Iterator[BatchPart | None]:
    """Cut a batch into parts of nearly equal size; None: the whole batch."""
    if count == 1:
        yield None
        return
    ends = [size * i // count for i in range(count + 1)]
    for start, stop in pairwise(ends):
        if stop > start:
            yield BatchPart(slice(start, stop), size)


def _augments(configs: Sequence[TrialConfig]) -> bool:
    """True when the data layer changes training images at random; equal within a pack."""
    return configs[0].data.flip or configs[0].data.random_crop


def _changes_images(configs: Sequence[TrialConfig]) -> bool:
    """True when a training image may have other features from epoch to epoch."""
    noise = any(config.train.mixup_alpha or has_noise(config) for config in configs)
    return _augments(configs) or noise


def _targets(members: Sequence[Member], labels: Tensor, num_classes: int) -> Tensor:
    """Smoothed label distributions [M, B, C]."""
    smoothing = torch.tensor(
        [m.config.train.label_smoothing for m in members], device=labels.device
    ).view(-1, 1, 1)
    return F.one_hot(labels, num_classes) * (1 - smoothing) + smoothing / num_classes


def _mix(members: Sequence[Member], images: Tensor, targets: Tensor, step: Step) -> None:
    """Mix images [M, B, ...] and targets [M, B, C] in place, where a member asks for it.

    Source: mixup, arXiv:1710.09412; partners are the batch in reverse order, as in timm.
    """
    for m, member in enumerate(members):
        train = member.config.train
        if not train.mixup_alpha:
            continue
        generator = step.streams[m].generator("mixup", step.steps[m])
        random = np.random.default_rng(generator.initial_seed())
        share = random.beta(train.mixup_alpha, train.mixup_alpha)
        if random.random() < train.mixup_prob:
            targets[m] = share * targets[m] + (1 - share) * targets[m].flip(0)
            images[m] = share * images[m] + (1 - share) * images[m].flip(0)


def _loss(out: ModelOutput, targets: Tensor) -> Tensor:
    """Classification loss [M] over all branches, each with its share."""
    loss = _cross_entropy(out.logits.float(), targets)
    if out.side_logits:
        loss = (1 - sum(share for share, _ in out.side_logits)) * loss
    for share, logits in out.side_logits:
        loss = loss + share * _cross_entropy(logits.float(), targets)
    return loss


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over the batch for each member, [M]."""
    return -(targets * logits.log_softmax(-1)).sum(-1).mean(-1)


def _select(member: Member, candidate: Selected) -> None:
    """Keep the candidate if the member's selection rule prefers it; count stale epochs.

    An epoch of the present stage always takes the place of one of the stage before.
    """
    rule, best = member.config.train.selection, member.selected
    if best is None or best.epoch <= member.stage_epoch or candidate.rank(rule) > best.rank(rule):
        member.selected = candidate
    height = -candidate.val_loss if rule == "best_val_loss" else candidate.val_accuracy
    rose = member.peak is None or height > member.peak
    member.stale_epochs = 0 if rose else member.stale_epochs + 1
    member.peak = height if rose else member.peak


def _reseeded(config: TrialConfig) -> TrialConfig:
    """The same settings with another seed that follows from the trial's own."""
    seed = Stream(config.seed).generator("redraw").initial_seed()
    return config.replace_paths({"seed": seed})


def is_out_of_memory(err: Exception) -> bool:
    """Whether an error of a training step means that memory ran out."""
    told = ("allocate memory", "bad_alloc", "out of memory", "could not create a primitive")
    known = isinstance(err, (MemoryError, torch.cuda.OutOfMemoryError))
    return known or any(words in str(err) for words in told)


def _peak_memory_bytes(device: torch.device) -> int:
    """Peak of the device's allocations, or of the process where the device is the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _diverged(member: Member, losses: Tensor, bad: int) -> Diverged:
    value = losses[bad].item()
    before = f"; last finite value {losses[bad - 1]:.3f} at step {member.step + bad}" if bad else ""
    return Diverged(
        f"train_loss is {value} at epoch {member.epoch + 1}, step {member.step + bad + 1} "
        f"(trial {member.trial}, seed {member.config.seed}, optim.lr={member.config.optim.lr:g})"
        f"{before}. The checkpoint of epoch {member.epoch} is kept; lower optim.lr or set "
        "optim.clip_norm."
    )


def _diverged_after(member: Member, train_loss: float, val_loss: float) -> Diverged:
    return Diverged(
        f"val_loss is {val_loss} and the mean train_loss {train_loss:.3g} after epoch "
        f"{member.epoch + 1} (trial {member.trial}, seed {member.config.seed}, "
        f"optim.lr={member.config.optim.lr:g}). The checkpoint of epoch {member.epoch} is kept; "
        "lower optim.lr or set optim.clip_norm."
    )


def _to_cpu(state: MemberState) -> MemberState:
    return {name: tensor.to("cpu", copy=True) for name, tensor in state.items()}


def _is_of(stored: Any, config: TrialConfig) -> bool:
    """Whether settings of a checkpoint, maybe of an older version with fewer of them, are these."""
    try:
        return TrialConfig.from_flat(stored).flat() == config.flat()
    except (ConfigError, AttributeError):
        return False


def _with_prefix(tensors: MemberState, prefix: str) -> MemberState:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
