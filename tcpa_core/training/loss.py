"""The classification loss of a pack, in float32 whatever the network computes in."""

# Axes: M members, B batch, C classes.

from torch import Tensor

from tcpa_core.model.pack_model import ModelOutput


def classification_loss(out: ModelOutput, targets_MBC: Tensor) -> Tensor:
    """Classification loss [M] over all branches, each with its share."""
    loss = cross_entropy(out.logits.float(), targets_MBC)
    if out.side_logits:
        loss = (1 - sum(share for share, _ in out.side_logits)) * loss
    for share, logits in out.side_logits:
        loss = loss + share * cross_entropy(logits.float(), targets_MBC)
    return loss


def cross_entropy(logits_MBC: Tensor, targets_MBC: Tensor) -> Tensor:
    """Mean over the batch for each member, [M]."""
    return -(targets_MBC * logits_MBC.log_softmax(-1)).sum(-1).mean(-1)
