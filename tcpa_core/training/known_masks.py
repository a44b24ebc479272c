"""Masks that lie beside pictures as a data set has them, to score what a trained trial finds."""

# Axes: H x W of a picture, C classes.

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tcpa_core import plugins
from tcpa_core.data._masks import read_mask
from tcpa_core.data.base import Listing
from tcpa_core.errors import ConfigError, DataError
from tcpa_core.record.regions import Counts, MapScores
from tcpa_core.settings import DATASETS, DataConfig
from tcpa_core.training.confusion import confusion

ABOVE = 5
"""Folders above a picture that may be the data set's."""


class KnownMasks:
    """Finds the masks of pictures that lie in a layout with masks, wherever that is.

    Args:
        cfg: How the trial's own data set is read.
        class_names: Of the trial; another data set's masks say something only with the same ones.
    """

    notes: tuple[str, ...] = ()
    """Why masks that seem to be there are not used, folder by folder."""

    def __init__(self, cfg: DataConfig, class_names: Sequence[str]) -> None:
        self._cfg, self._names = cfg, tuple(class_names)
        self._kind: Any = plugins.load(DATASETS, cfg.name)
        self._found: dict[Path, tuple[Listing, Mapping[Path, Path]] | None] = {}

    def of(self, picture: Path) -> Tensor | None:
        """The mask of a picture, uint8 [H, W], 255 where no class is known; None: there is none.

        Raises:
            DataError: It is no mask, or has values that are no classes.
        """
        for root in picture.absolute().parents[:ABOVE]:
            if root not in self._found:
                self._found[root] = self._read(root)
            found = self._found[root]
            if found is not None and picture.absolute() in found[1]:
                place, values = found[1][picture.absolute()], found[0].mask_values
                assert values is not None, "a listing with masks"
                return torch.from_numpy(read_mask(place.read_bytes(), str(place), values))
        return None

    def _read(self, root: Path) -> tuple[Listing, Mapping[Path, Path]] | None:
        """What a folder holds, if it is a data set of this kind: its masks by picture."""
        if not self._kind.recognises(root):
            return None
        try:
            # Of which list or fraction a split is made changes no mask.
            listing = self._kind.read(
                self._cfg.model_copy(update={"root": str(root), "train_list": None})
            )
        except (ConfigError, DataError) as err:
            self.notes += (f"masks in {root} are not used: {err}",)
            return None
        if tuple(listing.class_names) != self._names:
            self.notes += (
                f"masks in {root} are not used: they have {len(listing.class_names)} classes, "
                f"{', '.join(listing.class_names[:3])}, ..., the trial {len(self._names)}, "
                f"{', '.join(self._names[:3])}, ...",
            )
            return None
        return listing, {
            root / image: root / mask
            for split in listing.splits.values()
            for image, mask in zip(split.keys, split.masks, strict=True)
        }


class FoundMasks:
    """Adds up what a trial found in pictures whose masks are known.

    Args:
        known: Their masks.
        num_classes: C.
    """

    pictures = 0
    """That were compared."""

    def __init__(self, known: KnownMasks, num_classes: int) -> None:
        self._known = known
        self._table = torch.zeros(num_classes, num_classes, dtype=torch.int64)

    def add(self, picture: Path, mask: Tensor) -> None:
        """Compare a mask, uint8 [H, W], with the picture's own, if there is one.

        Raises:
            DataError: That is no mask, or has another size.
        """
        truth = self._known.of(picture)
        if truth is None:
            return
        if truth.shape != mask.shape:
            raise DataError(
                f"the mask of {picture} has {truth.shape[1]} x {truth.shape[0]} pixels, the "
                f"picture {mask.shape[1]} x {mask.shape[0]}; a mask must have the size of its "
                "picture."
            )
        self._table += confusion(mask[None].long(), truth, len(self._table))[0]
        self.pictures += 1

    @property
    def table(self) -> Counts:
        """Pixels of all compared pictures by class (row) and what was found (column) [C, C]."""
        return self._table.numpy()

    @property
    def scores(self) -> MapScores:
        """Of all compared pictures together."""
        return MapScores.of(self.table)
