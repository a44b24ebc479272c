"""Batches of images with the class of each of their pixels, cut, mirrored and scaled alike."""

# Axes: n images of a batch, H = W = image size; h, w of a whole picture, H0, W0 of its file.

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from tcpa_core.data.base import IGNORED, Images, Pixels, Split
from tcpa_core.settings import DataConfig
from tcpa_core.streams import whole_numbers
from tcpa_core.training.image_source import DRAWS, ImageSource
from tcpa_core.training.scaled import Places, Scaler, flat_pixels, sizes
from tcpa_core.training.windows import Windows

UNITS = 1024
"""Factors are drawn in whole parts of this, so that they are the same on every device."""
BLOCK = {"cpu": 2**18, "cuda": 2**24}
"""Pixels of masks that are gathered at a time."""
TRIES = 10
"""Places of a crop that are looked at; one more is taken unseen (mmsegmentation)."""
LOOKS = 64
"""Rows and columns of a crop that are looked at to judge its classes."""


class MaskedSource(ImageSource):
    """One split with masks as a source of batches."""

    def __init__(
        self,
        split: Split,
        cfg: DataConfig,
        img_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        device: str | torch.device,
        *,
        on_host: bool = False,
    ) -> None:
        """See `ImageSource`.

        Args:
            cfg: Also whether training images are scaled; then they are stored for it.
            on_host: For splits of which only `picture` and `truth` are asked.
        """
        assert split.masks is not None, "a split without masks"
        self._scaler: Scaler | None = None
        self._cfg = cfg
        super().__init__(split, cfg, img_size, mean, std, device, on_host=on_host)
        self._pictures = split.images
        self._masks = split.masks
        self._mask_sizes = sizes(split.masks, self.where)
        self._mask_first = torch.from_numpy(split.masks.offsets).to(self.where)
        self._mask_pixels = flat_pixels(split.masks, self.where)
        if self._scaler is not None:
            self._random_crop = True
            self.num_draws = DRAWS + 1
        if cfg.max_class_share is not None:
            self.num_draws = DRAWS + 1 + 2 * TRIES

    def _cutter(self, images: Images) -> Windows:
        if self._cfg.scale_range is None:
            return super()._cutter(images)
        filter_ = images.rule.interpolation if images.rule else self._cfg.interpolation
        self._scaler = Scaler(images, self.img_size, self.where, filter_, self._cfg.antialias)
        return self._scaler

    def load(self, indices: Tensor | slice, draws: Tensor | None = None) -> Callable[[], Tensor]:
        """As of `ImageSource`; the mean, which is 0, where a window is larger than its picture.

        Args:
            draws: [n, num_draws], of which one more scales an image where settings say so.
        """
        begun = super().load(indices, draws)
        if draws is None or self._scaler is None:
            return begun
        found = self._inside(self._numbers(indices), draws)[:, None]
        inside = found if self.where == self.device else self._send(found.pin_memory())
        return lambda: begun().mul_(inside)

    def masks(self, indices: Tensor | slice, draws: Tensor | None = None) -> Tensor:
        """The class of each pixel of what `load` gives for the same numbers.

        Returns:
            uint8 [n, H, W] on the device; 255: no class, or beyond the picture.
        """
        indices = self._numbers(indices)
        size = max(1, BLOCK[self.where.type] // self.img_size**2)
        found = self._empty_masks(len(indices))
        for start in range(0, len(indices), size):
            part = slice(start, start + size)
            found[part] = self._mask(indices[part], None if draws is None else draws[part])
        return found if self.where == self.device else self._send(found)

    def picture(self, index: int) -> Tensor:
        """A whole picture as it is scored, normalised: float32 [3, h, w] on the device."""
        found = self._on_device(self._pictures.seen(index))
        empty = torch.empty(found.shape, dtype=torch.float32, device=self.device)
        return self._normalise(found[None], empty[None])[0]

    def picture_sizes(self) -> list[tuple[int, int]]:
        """Height and width of every whole picture."""
        heights, widths = self._pictures.sizes()
        return list(zip(heights.tolist(), widths.tolist(), strict=True))

    def truth(self, index: int) -> Tensor:
        """The class of each pixel of a picture's file: uint8 [H0, W0] on the device; 255: none."""
        return self._on_device(self._masks.planes(index)[0])

    def _on_device(self, pixels: Pixels) -> Tensor:
        """A copy, without a wait for what the device was given to compute before."""
        found = torch.from_numpy(np.ascontiguousarray(pixels))
        if self.device.type != "cuda":
            return found.clone()
        return found.pin_memory().to(self.device, non_blocking=True)

    def _numbers(self, indices: Tensor | slice) -> Tensor:
        if isinstance(indices, slice):
            return torch.arange(*indices.indices(len(self)), device=self.where)
        return indices.to(self.where)

    def _empty_masks(self, count: int) -> Tensor:
        shape = (count, self.img_size, self.img_size)
        pinned = self.where != self.device
        return torch.empty(shape, dtype=torch.uint8, device=self.where, pin_memory=pinned)

    def _mask(self, indices: Tensor, draws: Tensor | None) -> Tensor:
        """Masks where the pixels lie [n, H, W]."""
        places = self._places(indices, draws, self._mask_sizes)
        return self._mirror(self._classes(indices, places), draws)

    def _classes(self, indices: Tensor, places: Places, step: int = 1) -> Tensor:
        """Every `step`-th pixel of windows of masks, not mirrored."""
        rows, columns = places.nearest(self.img_size, step)
        rows = self._mask_first[indices][:, None] + rows * places.stored[1][:, None]
        found = self._mask_pixels[rows[:, :, None] + columns[:, None, :]]
        return torch.where(places.inside(self.img_size, step), found, IGNORED)

    def _inside(self, indices: Tensor, draws: Tensor) -> Tensor:
        """Where windows show their pictures: bool [n, H, W]."""
        places = self._places(indices, draws, self._mask_sizes)
        return self._mirror(places.inside(self.img_size), draws)

    def _crop(self, indices: Tensor, draws: Tensor | None) -> Tensor:
        is_plain = self._scaler is None and self._cfg.max_class_share is None
        if draws is None or is_plain:
            return super()._crop(indices, draws)
        if self._scaler is None:
            corner = self._places(indices, draws, self._mask_sizes).corner
            return self._windows.cut(indices, corner)
        places = self._places(indices, draws, self._scaler.stored)
        return self._scaler.cut_scaled(indices, places)

    def _places(self, indices: Tensor, draws: Tensor | None, stored: Tensor) -> Places:
        """Where windows lie, in pictures or masks that are stored in some sizes [2, images]."""
        seen = self._sides[:, indices]
        if draws is not None and self._cfg.scale_range is not None:
            low, high = (round(UNITS * factor) for factor in self._cfg.scale_range)
            span = torch.full_like(indices, high - low + 1)
            factor = low + whole_numbers(draws[:, DRAWS], span)
            seen = ((seen * factor + UNITS // 2) // UNITS).clamp(min=1)
        room = (seen - self.img_size).clamp(min=0)
        corner = self._corner(room, draws if self._random_crop else None)
        if draws is not None and self._random_crop and self._cfg.max_class_share is not None:
            corner = self._varied(indices, seen, draws, self._cfg.max_class_share)
        return Places(stored[:, indices], seen, corner)

    def _varied(self, indices: Tensor, seen: Tensor, draws: Tensor, share: float) -> Tensor:
        """Of each image the first of some corners whose window has no class with a larger share,
        and more than one class; else the last one [2, n]."""
        drawn = torch.cat([draws[:, :2], draws[:, DRAWS + 1 :]], 1).unflatten(1, (-1, 2))
        room = (seen - self.img_size).clamp(min=0)
        corners = whole_numbers(drawn.permute(2, 0, 1), room[..., None] + 1)
        numbers = indices.repeat_interleave(TRIES)
        windows = Places(
            self._mask_sizes[:, numbers],
            seen.repeat_interleave(TRIES, 1),
            corners[..., :TRIES].flatten(1),
        )
        found = self._classes(numbers, windows, max(1, self.img_size // LOOKS)).flatten(1).long()
        counts = found.new_zeros(len(found), IGNORED + 1)
        counts = counts.scatter_add_(1, found, torch.ones_like(found))[:, :IGNORED]
        is_varied = (counts.amax(1) < share * counts.sum(1)) & ((counts > 0).sum(1) > 1)
        is_taken = torch.cat(
            [
                is_varied.unflatten(0, (-1, TRIES)),
                torch.ones_like(indices, dtype=torch.bool)[:, None],
            ],
            1,
        )
        first = is_taken.byte().argmax(1)
        return corners.gather(2, first.expand(2, -1)[..., None])[..., 0]
