"""Losses that stop being finite end a trial, with a sentence that says where and what to change."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tcpa_core.training.member import Member


@dataclass(frozen=True, slots=True)
class Diverged:
    """A member whose loss stopped being finite; its neighbours are not affected."""

    reason: str


def divergence(member: Member, losses: Tensor, val_loss: float) -> Diverged | None:
    """Whether a member's epoch went wrong.

    Args:
        member: As it was before the epoch.
        losses: (steps, 3): total, classification and method loss of each step.
        val_loss: After the epoch.
    """
    bad = (~torch.isfinite(losses).all(1)).nonzero()
    if len(bad):
        return _in_a_step(member, losses[:, 0], int(bad[0]))
    # A step's loss is of the weights before it: the last step shows in validation only. And finite
    # losses can have a mean that is not.
    train_loss = losses.mean(0)[0].item()
    return None if math.isfinite(train_loss + val_loss) else _after(member, train_loss, val_loss)


def _in_a_step(member: Member, losses: Tensor, bad: int) -> Diverged:
    value = losses[bad].item()
    before = f"; last finite value {losses[bad - 1]:.3f} at step {member.step + bad}" if bad else ""
    return Diverged(
        f"train_loss is {value} at epoch {member.epoch + 1}, step {member.step + bad + 1} "
        f"(trial {member.trial}, seed {member.config.seed}, optim.lr={member.config.optim.lr:g})"
        f"{before}. The checkpoint of epoch {member.epoch} is kept; lower optim.lr or set "
        "optim.clip_norm."
    )


def _after(member: Member, train_loss: float, val_loss: float) -> Diverged:
    return Diverged(
        f"val_loss is {val_loss} and the mean train_loss {train_loss:.3g} after epoch "
        f"{member.epoch + 1} (trial {member.trial}, seed {member.config.seed}, "
        f"optim.lr={member.config.optim.lr:g}). The checkpoint of epoch {member.epoch} is kept; "
        "lower optim.lr or set optim.clip_norm."
    )
