"""What methods do to a member between two epochs: label maps that follow, second stages that start.

Gives a method's hooks what they may ask for, see `tcpa_core.methods.base.Trainer`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from tcpa_core.chain import method_class
from tcpa_core.config import TrialConfig
from tcpa_core.methods.base import MemberState, Step, Trainer
from tcpa_core.model.pack_model import PackModel
from tcpa_core.streams import Stream
from tcpa_core.training.batches import batches, order
from tcpa_core.training.by_rows import ByRows
from tcpa_core.training.member import Member
from tcpa_core.training.optim import floor_at, lr_at
from tcpa_core.training.precision import autocast
from tcpa_core.training.stacks import optimizer_of
from tcpa_core.training.step import TrainingStep
from tcpa_core.training.trial_data import TrialData


class BetweenEpochs:
    """Applies the hooks `refresh` and `after_epoch` of a member's methods.

    Args:
        data: Whose training split methods look at.
        training: Gives the losses of a batch.
        by_rows: Cuts a split so that memory holds each piece.
        model_of: Stacks some members on the device.
        initial: The tensors that a trial of some settings starts with.
    """

    def __init__(
        self,
        data: TrialData,
        training: TrainingStep,
        by_rows: ByRows,
        *,
        model_of: Callable[[Sequence[Member]], PackModel],
        initial: Callable[[TrialConfig], MemberState],
    ) -> None:
        self._data = data
        self._training = training
        self._by_rows = by_rows
        self._model_of = model_of
        self._initial = initial

    def after_epoch(self, member: Member) -> Member:
        """The member that the next epoch trains: the same object where no method changes it."""
        for name in member.config.methods:
            # Tensors change beneath a training that goes on, so that moments and patience stay.
            changed = method_class(name).refresh(self._trainer(member))
            if changed:
                member = replace(member, state=member.state | changed)
            restart = method_class(name).after_epoch(self._trainer(member))
            if restart:
                member = member.restarted(restart.state)
        return member

    def _trainer(self, member: Member) -> Trainer:
        return Trainer(
            config=member.config,
            epoch=member.epoch,
            state=member.state,
            initial=lambda: self._initial(member.config),
            redraw=lambda: self._initial(_reseeded(member.config)),
            gradients=lambda names, update: self.gradients(member, names, update),
            source_logits=lambda: self.source_logits(member),
        )

    @torch.no_grad()
    def source_logits(self, member: Member) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits of the backbone's own classifier on the training split, and its labels."""
        model, train = self._model_of([member]), self._data.train

        def logits(turn: slice) -> Tensor:
            images = train.batch(turn)[None]
            with autocast(member.config, images.device):
                found = model.source_logits(images, Step.evaluation(1))
            return found[0].float()

        for turn, values in self._by_rows(len(train), 1, logits):
            yield values, train.labels[turn]

    def gradients(
        self, member: Member, names: Sequence[str], update: bool
    ) -> Iterator[dict[str, Tensor]]:
        """Gradients of the classification loss, batch by batch in the order of the last epoch.

        Args:
            member: After that epoch; it stays as it is.
            names: Tensors, trained or not.
            update: Train on, without dropout and at the member's present rate, between batches.
        """
        # Stacks of its own: the pack's hold the neighbours too, and must not train on here.
        model = self._model_of([member])
        optimizer = optimizer_of([member], model)
        tensors = model.tensors.stacked
        wanted = [tensors[name].requires_grad_() for name in names]
        stream = Stream(member.config.seed)
        last = order(stream, member.epoch - 1, len(self._data.train))
        epoch = batches(last[None], member.config)
        total = (member.config.train.epochs - member.stage_epoch) * len(epoch)
        lr, floor = (
            at(member.config.optim, member.step - member.stage_step - 1, total)
            for at in (lr_at, floor_at)
        )
        optimizer.schedule([[lr]] * len(epoch), [[floor]] * len(epoch))
        for i, indices in enumerate(epoch):
            # The step of the last epoch that saw this batch: augmentation and mixup are its own.
            at = member.step - len(epoch) + i
            step = Step(training=False, epochs=(member.epoch - 1,), steps=(at,), streams=(stream,))
            sums = [torch.zeros_like(tensor[0]) for tensor in wanted]
            batch = self._training.batch(model, indices, step)
            for loss, penalty in self._training.losses(model, batch, step):
                grads = torch.autograd.grad(loss.sum(), wanted, retain_graph=update)
                sums = [total + grad[0] for total, grad in zip(sums, grads, strict=True)]
                if update:
                    (loss + penalty).sum().backward()
            yield dict(zip(names, sums, strict=True))
            if update:
                optimizer.step()
                model.after_step()


def _reseeded(config: TrialConfig) -> TrialConfig:
    """The same settings with another seed that follows from the trial's own."""
    seed = Stream(config.seed).generator("redraw").initial_seed()
    return config.replace_paths({"seed": seed})
