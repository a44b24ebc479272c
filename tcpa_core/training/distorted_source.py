"""Training images that are changed picture by picture: by all cores, while a device trains."""

# Axes: n images of a batch, H = W = image size.

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch
from torch import Tensor

from tcpa_core.data.base import Split, num_cores
from tcpa_core.philox import RESOLUTION
from tcpa_core.settings import DataConfig
from tcpa_core.training.augment import Distortions
from tcpa_core.training.image_source import DRAWS, ImageSource


class DistortedSource(ImageSource):
    """A training split whose images go through `Distortions`.

    Its pixels stay in host memory. Where images are not to be changed (a method that looks at the
    split), it gives them as an `ImageSource` does.
    """

    def __init__(
        self,
        split: Split,
        cfg: DataConfig,
        img_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        device: str | torch.device,
    ) -> None:
        """See `ImageSource`; the split holds whole pictures where parts of them are cut."""
        super().__init__(split, cfg, img_size, mean, std, device, on_host=True)
        self.num_draws = DRAWS + 2
        self._pictures = split.images if cfg.cuts_parts else None
        self._distort = Distortions(cfg, img_size, mean)

    def _blocks(self, count: int, draws: Tensor | None) -> Iterator[slice]:
        """All at a time: the cores share them."""
        return super()._blocks(count, None) if draws is None else iter((slice(0, count),))

    def _cut(self, indices: Tensor, draws: Tensor | None) -> Tensor:
        """Bytes of images, changed where random numbers are given: uint8 [n, 3, H, W]."""
        if draws is None:
            return super()._cut(indices, None)
        images = torch.empty((len(indices), 3, self.img_size, self.img_size), dtype=torch.uint8)
        mirrored = (draws[:, 2] < 0.5).tolist() if self._flip else [False] * len(indices)
        seeds = _seeds(draws[:, DRAWS:])
        out = images.numpy()

        def make(place: int) -> None:
            one = slice(place, place + 1)
            if self._pictures is not None:
                planes = self._pictures.planes(int(indices[place]))
            else:
                crop = self._crop(indices[one], draws[one] if self._random_crop else None)
                planes = crop[0].numpy()
            out[place] = self._distort(planes, seed=seeds[place], mirrored=mirrored[place])

        for _ in _pool().map(make, range(len(indices))):
            pass
        return images


def _seeds(draws: Tensor) -> list[int]:
    """A number of 48 bits from two random numbers [n, 2]."""
    high, low = (draws.double() / RESOLUTION).long().unbind(-1)
    seeds: list[int] = (high << 24 | low).tolist()
    return seeds


@cache
def _pool() -> ThreadPoolExecutor:
    """The threads of all packs of this process. Pillow releases the interpreter's lock."""
    return ThreadPoolExecutor(num_cores(), thread_name_prefix="distort")
