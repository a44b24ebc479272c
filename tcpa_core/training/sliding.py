"""Logits of whole pictures: of windows that slide over them, averaged where they overlap.

Source:
    mmsegmentation, mmseg/models/segmentors/encoder_decoder.py (slide_inference, whole_inference,
    aug_test).
"""

# Axes: M members, C classes, h x w of a picture, n windows of a batch.

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby, product

import torch
import torch.nn.functional as F
from torch import Tensor

from tcpa_core.chain import method_class
from tcpa_core.config import TrialConfig
from tcpa_core.methods.base import Step
from tcpa_core.model.pack_model import PackModel
from tcpa_core.tasks.segment import Config
from tcpa_core.training.loss import enlarged
from tcpa_core.training.precision import autocast

Window = tuple[slice, slice]
"""Rows and columns."""


def windows_along(length: int, window: int, stride: int) -> list[slice]:
    """Windows along an axis; the last one ends with the picture."""
    steps = max(0, math.ceil((length - window) / stride))
    starts = [max(0, min(i * stride, length - window)) for i in range(steps + 1)]
    return [slice(start, min(start + window, length)) for start in starts]


@dataclass(frozen=True, slots=True)
class Grid:
    """How pictures are cut into windows."""

    window: int | None
    """Side in pixels; None: a picture is one window."""
    stride: int

    @classmethod
    def of_trial(cls, config: TrialConfig, img_size: int) -> "Grid":
        """As the settings of a trial that segments say.

        Args:
            img_size: The backbone's, in pixels.
        """
        settings = config.task_settings
        assert isinstance(settings, Config), "a trial that segments"
        stride = settings.stride or max(1, img_size * 2 // 3)
        return cls(None if settings.window == "whole" else img_size, stride)

    def windows(self, height: int, width: int) -> list[Window]:
        """Windows of a picture, row by row; of equal size."""
        if self.window is None:
            return [(slice(0, height), slice(0, width))]
        rows, columns = (windows_along(n, self.window, self.stride) for n in (height, width))
        return list(product(rows, columns))


class PictureLogits:
    """Computes what members say of every pixel of pictures.

    Args:
        model: The members, whose settings say how pictures are cut.
        on_step: Called before every batch of windows: a sign of life.
    """

    def __init__(self, model: PackModel, on_step: Callable[[], None] = lambda: None) -> None:
        self._model = model
        self._on_step = on_step
        self._grid = Grid.of_trial(model.configs[0], model.backbone.img_size)
        self._step = Step.evaluation(model.num_members)
        self._any_size = all(method_class(name).any_size for name in model.configs[0].methods)

    def __call__(self, pictures: Sequence[Tensor], at_a_time: int) -> list[Tensor]:
        """Logits (M, C, h, w) of each picture, in float32.

        Args:
            pictures: Normalised, (3, h, w) of any size.
            at_a_time: Windows that are computed together, of pictures in their order.
        """
        jobs = [
            (n, window)
            for n, picture in enumerate(pictures)
            for window in self._grid.windows(*picture.shape[-2:])
        ]
        found = [_Sum(picture.shape[-2:]) for picture in pictures]
        for _, run in groupby(jobs, lambda job: _shape(job[1])):
            alike = list(run)
            for start in range(0, len(alike), at_a_time):
                part = alike[start : start + at_a_time]
                cut = [pictures[n][:, rows, columns] for n, (rows, columns) in part]
                logits = self._of_windows(torch.stack(cut))
                for (n, window), of_window in zip(part, logits.unbind(1), strict=True):
                    found[n].add(of_window, window)
        return [one.mean() for one in found]

    def _of_windows(self, windows: Tensor) -> Tensor:
        """Logits (M, n, C, h, w) of windows (n, 3, h, w)."""
        model, (height, width) = self._model, windows.shape[-2:]
        inputs = self._filled(windows)[None]
        self._on_step()
        members = inputs.expand(model.num_members, *inputs.shape[1:])
        with autocast(model.configs[0], inputs.device):
            maps = model.predict(members, self._step)
        whole = enlarged(maps.flatten(0, 1), inputs.shape[-2:]).unflatten(0, maps.shape[:2])
        return whole[..., :height, :width]

    def _filled(self, windows: Tensor) -> Tensor:
        """Windows (n, 3, h, w) at a size that the members take, grey where no picture is: they are
        smaller than others where a picture is."""
        backbone, (height, width) = self._model.backbone, windows.shape[-2:]
        if self._any_size:
            patch = backbone.layout.patch_size
            rows, columns = -height % patch[0], -width % patch[1]
        else:
            rows, columns = backbone.img_size - height, backbone.img_size - width
        return F.pad(windows, (0, columns, 0, rows)) if rows or columns else windows


class _Sum:
    """Adds up the logits of a picture's windows.

    Args:
        size: Height and width of the picture.
    """

    def __init__(self, size: torch.Size) -> None:
        self._size = size
        self._sum: Tensor | None = None
        self._count: Tensor | None = None
        """How many windows cover a pixel (h, w)."""

    def add(self, logits: Tensor, window: Window) -> None:
        """Count a window's logits (M, C, h, w)."""
        if logits.shape[-2:] == self._size:
            self._sum = logits
            return
        if self._sum is None or self._count is None:
            self._sum = logits.new_zeros(*logits.shape[:2], *self._size)
            self._count = logits.new_zeros(self._size)
        rows, columns = window
        self._sum[..., rows, columns] += logits
        self._count[rows, columns] += 1

    def mean(self) -> Tensor:
        """Logits of the picture (M, C, h, w)."""
        assert self._sum is not None, "every picture has a window"
        return self._sum if self._count is None else self._sum / self._count


def _shape(window: Window) -> tuple[int, int]:
    rows, columns = window
    return rows.stop - rows.start, columns.stop - columns.start
