"""The losses of a pack by task, in float32 whatever the network computes in."""

# Axes: M members, B batch, C classes, h x w of a head's maps, H x W of masks.

import torch.nn.functional as F
from torch import Tensor

from tcpa_core.model.map_sizes import bilinear
from tcpa_core.model.pack_model import ModelOutput
from tcpa_core.record.regions import IGNORED


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


def segmentation_loss(out: ModelOutput, masks_MBHW: Tensor, labelled_M: Tensor) -> Tensor:
    """Loss [M] of maps: that of the main head, and those of auxiliary ones times their share.

    Args:
        out: Of a batch, or a part of it.
        masks_MBHW: Classes of its pixels, IGNORED where none is labelled.
        labelled_M: Labelled pixels of the whole batch: the losses of its parts add up.
    """
    loss = pixel_losses(out.logits, masks_MBHW).sum(1)
    for share, logits in out.side_logits:
        loss = loss + share * pixel_losses(logits, masks_MBHW).sum(1)
    return loss / labelled_M


def pixel_losses(logits_MBChw: Tensor, masks_MBHW: Tensor) -> Tensor:
    """Cross-entropy of each picture, summed over its labelled pixels, [M, B].

    Args:
        logits_MBChw: Of any size: they are enlarged to that of the masks.
        masks_MBHW: Integers.
    """
    logits = enlarged(logits_MBChw.flatten(0, 1), masks_MBHW.shape[-2:])
    masks = masks_MBHW.flatten(0, 1).long()
    loss = F.cross_entropy(logits, masks, ignore_index=IGNORED, reduction="none")
    return loss.sum((1, 2)).unflatten(0, masks_MBHW.shape[:2])


def enlarged(maps_NChw: Tensor, size: tuple[int, ...]) -> Tensor:
    """Maps in float32 at another size, bilinear with the centres of pixels kept apart evenly
    (`align_corners=False`), as mmsegmentation has it."""
    rows, columns = size
    return bilinear(maps_NChw.float(), (rows, columns))


def num_labelled(masks_MBHW: Tensor) -> Tensor:
    """Labelled pixels of each member's batch [M], at least 1."""
    return (masks_MBHW != IGNORED).flatten(1).sum(1).clamp(min=1)
