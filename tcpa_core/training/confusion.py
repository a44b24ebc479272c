"""How many pixels of each class were taken for which class."""

# Axes: M members, N pictures of a split, C classes, H x W of a mask.

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tcpa_core.record.regions import SplitRegions


def confusion(predicted_MHW: Tensor, truth_HW: Tensor, num_classes: int) -> Tensor:
    """Pixels by class (row) and by what each member took them for (column): int64 [M, C, C].

    No host waits for it, and no sum depends on an order.

    Args:
        predicted_MHW: Classes, integers.
        truth_HW: Classes; whatever is none (`tcpa_core.record.regions.IGNORED`) counts nowhere.
        num_classes: C.
    """
    members = len(predicted_MHW)
    # A row of its own for pixels that are not labelled: to leave them out would need their number.
    rows = truth_HW.long().clamp(max=num_classes)
    size = (num_classes + 1) * num_classes
    first = size * torch.arange(members, device=truth_HW.device).view(-1, 1, 1)
    bins = (first + rows * num_classes + predicted_MHW).flatten()
    # Counted so, and not by `bincount`, which has the host wait for the largest of them.
    counts = torch.zeros(members * size, dtype=torch.long, device=bins.device)
    counts.scatter_add_(0, bins, torch.ones_like(bins))
    return counts.view(members, num_classes + 1, num_classes)[:, :-1]


class Counts(NamedTuple):
    """Of one member on a split, on the CPU: see `tcpa_core.record.regions.SplitRegions`."""

    hits: Tensor
    labelled: Tensor
    predicted: Tensor
    confusion: Tensor

    def regions(self, keys: Sequence[str]) -> SplitRegions:
        """Of the split with these pictures."""
        return SplitRegions(keys, *(tensor.numpy() for tensor in self))


class Tally:
    """Adds up the pictures of a split for all members, on the device.

    Args:
        num_members: M.
        num_pictures: N.
        num_classes: C.
        device: Where masks are compared.
    """

    def __init__(
        self, num_members: int, num_pictures: int, num_classes: int, device: torch.device
    ) -> None:
        shape = (3, num_members, num_pictures, num_classes)
        self._pictures = torch.zeros(shape, dtype=torch.long, device=device)
        self._whole = torch.zeros(
            (num_members, num_classes, num_classes), dtype=torch.long, device=device
        )

    def add(self, picture: int, table_MCC: Tensor) -> None:
        """Count a picture, by the confusion of its pixels."""
        self._whole += table_MCC
        parts = table_MCC.diagonal(dim1=1, dim2=2), table_MCC.sum(2), table_MCC.sum(1)
        for counts, part in zip(self._pictures, parts, strict=True):
            counts[:, picture] = part

    def of_members(self) -> list[Counts]:
        """Of each member, on the CPU: a GPU is waited for."""
        pictures, whole = self._pictures.cpu(), self._whole.cpu()
        hits, labelled, predicted = pictures
        return [Counts(hits[m], labelled[m], predicted[m], whole[m]) for m in range(len(whole))]
