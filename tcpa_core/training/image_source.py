"""Batches of normalised images, cut, mirrored and scaled on the device that trains."""

# Axes: n images of a batch, H = W = image size.

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

from tcpa_core.data.base import Images, Split
from tcpa_core.errors import ShapeError
from tcpa_core.model.transform import scale_and_shift
from tcpa_core.settings import DataConfig
from tcpa_core.streams import whole_numbers
from tcpa_core.training.memory import free_bytes
from tcpa_core.training.windows import Windows, windows

RESIDENT_SHARE = 0.25
"""Largest share of the free GPU memory that one split's pixels may take."""

DRAWS = 3
"""Random numbers of an image: its row, its column, and whether it is mirrored."""

ENLARGED_BYTES = 2**26
"""Most memory of a process that one split's enlarged pixels take on the CPU. Of small images alone
enlarging would take a share of a step that matters."""


class ImageSource:
    """One split as a source of batches.

    Pixels stay uint8 and move to the GPU once if they fit; otherwise each batch is cut in pinned
    host memory by a thread, crosses the bus as bytes beside the computation, and becomes numbers on
    the GPU. On the CPU they are the mapped cache file itself. Small images are enlarged there, once
    if the result fits, otherwise batch by batch.
    """

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
        """Prepare a split.

        Args:
            split: Images that are at least `img_size` on both sides as trials see them.
            cfg: Whether training images are cropped at random and mirrored.
            img_size: Side of the batches' images, in pixels.
            mean: Per channel, of values in [0, 1]; 3 numbers.
            std: Same, > 0.
            device: Where batches are wanted.
            on_host: Images are cut in host memory, whatever fits on the device.

        Raises:
            ShapeError: The split was prepared for another image size.
        """
        store = split.images
        seen = store.sizes()
        smallest = int(min(size.min() for size in seen))
        if smallest < img_size or (cfg.resize == "squash" and smallest != img_size):
            raise ShapeError(
                f"images of side {smallest} do not give batches of side {img_size} with "
                f"data.resize={cfg.resize!r}; load the data set for image size {img_size}."
            )
        self.device = torch.device(device)
        self.labels = torch.from_numpy(split.labels).to(self.device)
        self.keys = split.paths
        """Name of each image."""
        self.img_size = img_size
        self.num_draws = DRAWS
        """Random numbers that a training image needs."""
        self._random_crop = cfg.random_crop
        self._flip = cfg.flip
        self.rule = store.rule
        """What was done to the pictures of the split before they are cut; None: nothing."""
        self._scale, self._shift = (t.to(self.device) for t in scale_and_shift(mean, std))
        # Else every batch crosses the bus, while a split that took too much would leave no room to
        # train in.
        fits = sum(entry.pixels.nbytes for entry in store.entries) <= _room(self.device)
        self.where = self.device if fits and not on_host else torch.device("cpu")
        """Where the pixels lie and images are cut; what says how is best there already."""
        self._uncropped = smallest == int(max(size.max() for size in seen)) == img_size
        self._sides = torch.from_numpy(np.stack(seen)).to(self.where)
        self._windows = self._cutter(store)

    def _cutter(self, images: Images) -> Windows:
        """What cuts windows out of the images, where they are to lie."""
        room = _room(self.where) if self.where.type == "cuda" else ENLARGED_BYTES
        return windows(images, self.img_size, self.where, room)

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Tensor | slice, draws: Tensor | None = None) -> Tensor:
        """Normalised images, see `load`."""
        return self.load(indices, draws)()

    def load(self, indices: Tensor | slice, draws: Tensor | None = None) -> Callable[[], Tensor]:
        """Begin to load normalised images; what is returned gives them.

        Args:
            indices: Which images: int64 [n], best `where` the pixels lie, or a range.
            draws: Random numbers of `tcpa_core.streams` [n, DRAWS], where the pixels lie, which
                crop and mirror images as the settings say. None: centre crop (evaluation).

        Returns:
            A function whose value is float32 [n, 3, H, W] on the device. Where pixels are
            elsewhere, a thread cuts the images meanwhile: begin with a batch while another one is
            trained on.
        """
        if isinstance(indices, slice):
            indices = torch.arange(*indices.indices(len(self)), device=self.where)
        indices = indices.to(self.where)
        if self.where == self.device:
            return partial(self._cut_here, indices, draws)
        return self._cut_elsewhere(indices, draws)

    def pixels(self, indices: Tensor) -> Tensor:
        """Bytes of images as evaluation sees them, on the CPU: uint8 [n, 3, H, W]."""
        return self._cut(indices.to(self.where), None).cpu()

    def unnormalised(self, images: Tensor) -> Tensor:
        """Bytes of normalised images (..., 3, H, W), on the CPU."""
        values = (images - self._shift) / self._scale
        return values.round().clamp(0, 255).to(torch.uint8).cpu()

    def _cut_here(self, indices: Tensor, draws: Tensor | None) -> Tensor:
        """Normalised images of pixels that lie on the device."""
        images = self._empty(len(indices), self.device, torch.float32)
        for part in self._blocks(len(indices), draws):
            drawn = None if draws is None else draws[part]
            self._normalise(self._cut(indices[part], drawn), images[part])
        return images

    def _cut_elsewhere(self, indices: Tensor, draws: Tensor | None) -> Callable[[], Tensor]:
        """Have images cut in host memory; what is returned waits for that and sends them."""
        # Copies from other memory would make the host wait until the device has caught up.
        staged = self._empty(len(indices), self.where, torch.uint8, pinned=True)

        def cut() -> None:
            for part in self._blocks(len(indices), draws):
                drawn = None if draws is None else draws[part]
                staged[part].copy_(self._cut(indices[part], drawn))

        done = self._reader.submit(cut)

        def images() -> Tensor:
            done.result()
            found = self._empty(len(indices), self.device, torch.float32)
            return self._normalise(self._send(staged), found)

        return images

    def _send(self, staged: Tensor) -> Tensor:
        """Pinned bytes on the device, without a wait for what it was given to compute before."""
        with torch.cuda.stream(self._stream):
            sent = staged.to(self.device, non_blocking=True)
        current = torch.cuda.current_stream(self.device)
        current.wait_stream(self._stream)
        sent.record_stream(current)  # else its memory might be given away while it is read
        return sent

    def _normalise(self, cut: Tensor, out: Tensor) -> Tensor:
        """Numbers of bytes (n, 3, H, W), in place of what is in `out`."""
        return out.copy_(cut).mul_(self._scale).add_(self._shift)

    def _empty(
        self, count: int, device: torch.device, dtype: torch.dtype, *, pinned: bool = False
    ) -> Tensor:
        shape = (count, 3, self.img_size, self.img_size)
        return torch.empty(shape, dtype=dtype, device=device, pin_memory=pinned)

    def _blocks(self, count: int, draws: Tensor | None) -> Iterator[slice]:
        """Images that are cut at a time."""
        size = self._windows.at_a_time or max(1, count)
        for start in range(0, count, size):
            yield slice(start, start + size)

    @cached_property
    def _reader(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, thread_name_prefix="images")

    @cached_property
    def _stream(self) -> torch.cuda.Stream:
        return torch.cuda.Stream(self.device)

    def _cut(self, indices: Tensor, draws: Tensor | None) -> Tensor:
        """Bytes of images, cropped and mirrored: uint8 [n, 3, H, W] where the pixels lie."""
        images = self._crop(indices, draws if self._random_crop else None)
        return self._mirror(images, draws)

    def _mirror(self, images: Tensor, draws: Tensor | None) -> Tensor:
        """Images or masks [n, ..., H, W], those mirrored that the draws say."""
        if draws is None or not self._flip:
            return images
        mirrored = (draws[:, 2] < 0.5).view(-1, *[1] * (images.ndim - 1))
        return torch.where(mirrored, images.flip(-1), images)

    def _crop(self, indices: Tensor, draws: Tensor | None) -> Tensor:
        """Cut at random places, or from the centre as torchvision rounds it."""
        if self._uncropped:
            return self._windows.cut(indices, None)
        room = self._sides[:, indices] - self.img_size
        return self._windows.cut(indices, self._corner(room, draws))

    @staticmethod
    def _corner(room: Tensor, draws: Tensor | None) -> Tensor:
        """Upper left corners of windows with some room [2, n]."""
        if draws is None:
            return (room / 2).round().long()  # as `tcpa_core.model.transform` does
        return whole_numbers(draws[:, :2].T, room + 1)


def _room(device: torch.device) -> float:
    """Bytes that the pixels of a split may take on a device, where they are mapped on the CPU."""
    return RESIDENT_SHARE * free_bytes(device) if device.type == "cuda" else math.inf
