"""Batches of normalised images, cut, mirrored and scaled on the device that trains.

# Axes: n images of a batch, H = W = image size.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from tcpa_core.config import DataConfig
from tcpa_core.data.base import Split
from tcpa_core.errors import ShapeError

RESIDENT_SHARE = 0.25
"""Largest share of the free GPU memory that one split's pixels may take."""


class ImageSource:
    """One split as a source of batches.

    Pixels stay uint8 and move to the GPU once if they fit; otherwise each batch is gathered in host
    memory. On the CPU they are the mapped cache file itself.
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
        """Prepare a split.

        Args:
            split: Images that are at least `img_size` on both sides.
            cfg: Whether training images are cropped at random and mirrored.
            img_size: Side of the batches' images, in pixels.
            mean: Per channel, of values in [0, 1]; 3 numbers.
            std: Same, > 0.
            device: Where batches are wanted.

        Raises:
            ShapeError: The split was prepared for another image size.
        """
        store = split.images
        smallest = int(min(store.heights.min(), store.widths.min()))
        if smallest < img_size or (cfg.resize == "squash" and smallest != img_size):
            raise ShapeError(
                f"images of side {smallest} do not give batches of side {img_size} with "
                f"data.resize={cfg.resize!r}; load the data set for image size {img_size}."
            )
        self.device = torch.device(device)
        self.labels = torch.from_numpy(split.labels).to(self.device)
        self._img_size = img_size
        self._random_crop = cfg.random_crop
        self._flip = cfg.flip
        mean_3, std_3 = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (mean, std))
        # (x / 255 - mean) / std in two passes
        self._scale = (1 / (255 * std_3)).to(self.device, torch.float32)
        self._shift = (-mean_3 / std_3).to(self.device, torch.float32)
        where = self.device if _fits(store.pixels.nbytes, self.device) else torch.device("cpu")
        self._pixels = torch.from_numpy(store.pixels).to(where).view(-1, 3)
        largest = int(max(split.images.heights.max(), split.images.widths.max()))
        self._uncropped = smallest == largest == img_size
        self._first = torch.from_numpy(store.offsets // 3).to(where)
        self._sides = (
            torch.from_numpy(store.heights).to(where),
            torch.from_numpy(store.widths).to(where),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Normalised images.

        Args:
            indices: Which images, int64 [n].
            generator: None: centre crop (evaluation). Else crops and mirroring are drawn from it as
                the settings say; the same numbers are drawn whatever the settings are.

        Returns:
            float32 [n, 3, H, W] on the device.
        """
        indices = indices.to(self._pixels.device)
        draws = None
        if generator is not None:
            draws = torch.rand(
                3, len(indices), generator=generator, device=generator.device, dtype=torch.float64
            ).to(self._pixels.device)
        images = self._crop(indices, draws if self._random_crop else None).to(self.device)
        # Transposed as bytes, which is several times faster than as floats.
        images = images.permute(0, 3, 1, 2).contiguous().to(torch.float32)
        if draws is not None and self._flip:
            mirrored = (draws[2] < 0.5).to(self.device).view(-1, 1, 1, 1)
            images = torch.where(mirrored, images.flip(-1), images)
        return images.mul_(self._scale).add_(self._shift)

    def _crop(self, indices: Tensor, draws: Tensor | None) -> Tensor:
        """Cut uint8 [n, H, W, 3]: at random places, or from the centre as torchvision rounds it."""
        shape = (len(indices), self._img_size, self._img_size, 3)
        if self._uncropped:
            whole = self._pixels.view(len(self._first), -1)
            return whole.index_select(0, indices).view(shape)
        height, width = (sides[indices] for sides in self._sides)
        room = torch.stack([height, width]) - self._img_size
        if draws is None:
            corner = (room / 2).round().long()
        else:
            corner = (draws[:2] * (room + 1)).long()
        start = self._first[indices] + corner[0] * width + corner[1]
        if self._pixels.device.type == "cpu":
            return self._copy_crops(start.tolist(), width.tolist())
        line = torch.arange(self._img_size, device=indices.device)
        rows = start.view(-1, 1, 1) + (width.view(-1, 1, 1) * line.view(1, -1, 1))
        return self._pixels.index_select(0, (rows + line).flatten()).view(shape)

    def _copy_crops(self, starts: Sequence[int], widths: Sequence[int]) -> Tensor:
        """Crops copied line by line, which the CPU does faster than gathering pixels."""
        side = self._img_size
        images = torch.empty(len(starts), side, side, 3, dtype=torch.uint8)
        for image, start, width in zip(images, starts, widths, strict=True):
            lines = (side, side, 3), (3 * width, 3, 1), 3 * start
            image.copy_(self._pixels.as_strided(*lines))
        return images


def _fits(num_bytes: int, device: torch.device) -> bool:
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return num_bytes <= RESIDENT_SHARE * free
