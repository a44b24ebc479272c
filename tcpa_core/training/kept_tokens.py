"""What frozen blocks make of a split, computed once and kept.

Below the first block that a method changes, a backbone does the same to the same image in every
epoch and for every member. Where images do not change either, that part of the network runs once.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from tcpa_core.model.backbone import Backbone
from tcpa_core.model.pack_model import PackModel
from tcpa_core.training.batches import changes_images
from tcpa_core.training.memory import free_bytes
from tcpa_core.training.precision import autocast
from tcpa_core.training.trial_data import SplitName, TrialData

TOKENS_SHARE = 0.1
"""Share of the free memory that the tokens of a split may fill."""


class KeptTokens:
    """Tokens or features of whole splits at the first trained block of a pack.

    Args:
        backbone: Frozen.
        data: The splits.
        by_rows: As `tcpa_core.training.by_rows.ByRows`.
    """

    def __init__(
        self,
        backbone: Backbone,
        data: TrialData,
        by_rows: Callable[[int, int, Callable[[slice], Tensor]], Iterator[tuple[slice, Tensor]]],
    ) -> None:
        self._backbone = backbone
        self._data = data
        self._by_rows = by_rows
        self._kept: dict[SplitName, tuple[int, Tensor]] = {}
        """By split: the first block that is trained, and what enters it."""

    def keeps(self, model: PackModel, split: SplitName) -> bool:
        """Whether what none of a pack's methods changes of a split is computed once and kept.

        Features always, tokens of a block and maps where there is memory; not of the test split,
        which is read once.
        """
        if model.first_block == 0 or (split == "train" and changes_images(model.configs)):
            return False
        # What is kept already takes no more memory: asked again, the answer would be no.
        if len(model.frozen_shape) == 1 or self._level(split) == model.first_block:
            return True
        values = len(self._data.split(split)) * math.prod(model.frozen_shape)
        size = values * self._backbone.dtype.itemsize
        device = self._data.train.labels.device
        return split != "test" and size <= TOKENS_SHARE * free_bytes(device)

    @torch.no_grad()
    def of(self, model: PackModel, split: SplitName) -> Tensor:
        """What `PackModel.forward_frozen` makes of a whole split, (N, ...), computed once."""
        if self._level(split) != model.first_block:
            self._kept.pop(split, None)  # before the new ones take their memory
            source = self._data.split(split)

            def frozen(turn: slice) -> Tensor:
                images = source.batch(turn)[None]
                with autocast(model.configs[0], images.device):
                    return model.forward_frozen(images)[0].to(self._backbone.dtype)

            found = [values for _, values in self._by_rows(len(source), 1, frozen)]
            self._kept[split] = model.first_block, torch.cat(found)
        return self._kept[split][1]

    def release(self) -> bool:
        """Let go of what is kept, to be computed again when it is asked for; whether any was."""
        had_any = bool(self._kept)
        self._kept.clear()
        return had_any

    def _level(self, split: SplitName) -> int | None:
        """The block for which a split is kept."""
        return self._kept[split][0] if split in self._kept else None
