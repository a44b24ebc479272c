"""A trained trial as a user holds it: from pictures to classes or masks, as its test saw them."""

# Axes: N pictures, n of a batch, C classes.

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tcpa_core.config import TrialConfig
from tcpa_core.data.base import ordered_map
from tcpa_core.errors import DataError, DeviceError
from tcpa_core.methods.base import Step
from tcpa_core.model.backbone import Backbone
from tcpa_core.model.load_backbone import load_backbone
from tcpa_core.model.moved_weights import backbone_of
from tcpa_core.model.pack_model import PackModel
from tcpa_core.model.single_model import SingleModel
from tcpa_core.model.transform import Picture, Transform
from tcpa_core.tasks import segment
from tcpa_core.training.by_rows import EVAL_ROWS
from tcpa_core.training.precision import autocast, keep_float32_exact
from tcpa_core.training.trained_masks import Mask, Masks, areas
from tcpa_core.training.trained_state import TrainedState, read_trained

TOP = 5
"""Classes that are named for a picture."""


Top = list[tuple[str, float]]
"""The likeliest classes of a picture and their probabilities, the likeliest first."""


@dataclass(frozen=True, slots=True, eq=False)
class Predicted:
    """What a model says of N pictures, in their order."""

    labels: Tensor
    """Number of the class of each picture: int64 [N]; where it is segmented, of the largest one."""
    probabilities: Tensor
    """Softmax of the logits, of all classes: float32 [N, C]. Not calibrated. Of a segmentation the
    share of each class among a picture's pixels."""
    class_names: tuple[str, ...]
    """Of all classes, in their order."""
    num_top: int = TOP
    """Classes that `top` names."""
    masks: Sequence[Mask] = ()
    """Of a segmentation: the class of each pixel of each picture, uint8 [H, W] at its own size."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def names(self) -> list[str]:
        """Name of the class of each picture."""
        return [self.class_names[label] for label in self.labels.tolist()]

    @property
    def top(self) -> list[Top]:
        """Of each picture."""
        best = self.probabilities.topk(min(self.num_top, len(self.class_names)), dim=-1)
        return [
            [(self.class_names[label], value) for label, value in zip(labels, values, strict=True)]
            for labels, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]


class TrainedModel(SingleModel):
    """A trained trial: `forward` takes normalised images, `predict` takes pictures.

    One that segments gives logits (n, C, h, w), as large as its head makes them.

    Args:
        pack: A pack of one.
        transform: From a picture to what `forward` takes.
        class_names: In the order of the logits.
        source: What the trial left behind.
    """

    def __init__(
        self,
        pack: PackModel,
        transform: Transform,
        class_names: Sequence[str],
        source: TrainedState,
    ) -> None:
        super().__init__(pack)
        self.transform = transform
        self.class_names = tuple(class_names)
        self.source = source

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Logits (n, C), or (n, C, h, w), as an evaluation of the trial computes them, in its
        precision.

        Args:
            images: Normalised (n, 3, height, width), wherever they are.
        """
        keep_float32_exact()
        pack, step = self.pack, Step.evaluation(1)
        images = images.to(pack.backbone.device)[None]
        with autocast(self.config, images.device):
            if not pack.features_are_frozen:
                return pack.predict(images, step)[0].float()
            features = pack.forward_frozen(images).to(pack.backbone.dtype)
            return pack.forward_trained(features, step).logits[0].float()

    def predict(
        self,
        pictures: Picture | Iterable[Picture],
        *,
        batch_size: int = EVAL_ROWS,
        top: int = TOP,
    ) -> Predicted:
        """Classify or segment pictures as the trial's test did.

        Args:
            pictures: Some `Picture`: PIL images, paths, contents of files, pixels; or one.
            batch_size: Pictures that are classified together, at least 1. Sums of floats may round
                otherwise in another one; the test of a trial took 256. Pictures are segmented one
                by one.
            top: Classes that `Predicted.top` names, at least 1.

        Raises:
            DataError: A picture cannot be read; its path is named.
        """
        if batch_size < 1 or top < 1:
            raise ValueError(f"batch_size and top must be >= 1, got {batch_size} and {top}")
        if isinstance(pictures, str | os.PathLike | bytes | Image.Image | np.ndarray):
            pictures = [pictures]
        if self.segments:
            return self._segmented(pictures, top)
        images = ordered_map(self.transform, pictures)
        found = [torch.empty(0, len(self.class_names))]
        while part := list(islice(images, batch_size)):
            found.append(self.logits(torch.stack(part)).cpu())
        return self._said(torch.cat(found), top)

    def predict_each(
        self, pictures: Iterable[Picture], *, batch_size: int = EVAL_ROWS, top: int = TOP
    ) -> Iterator[Top | DataError]:
        """As `predict`, picture by picture, but one that cannot be read does not end it.

        Yields:
            For each picture its likeliest classes, or why it cannot be read.
        """

        def read(picture: Picture) -> Tensor | DataError:
            try:
                return self.transform(picture)
            except DataError as err:
                return err

        images = ordered_map(read, pictures)
        while part := list(islice(images, batch_size)):
            whole = [image for image in part if isinstance(image, Tensor)]
            found = self._said(self.logits(torch.stack(whole)).cpu(), top).top if whole else []
            said = iter(found)
            yield from (image if isinstance(image, DataError) else next(said) for image in part)

    @property
    def segments(self) -> bool:
        """Whether pixels have classes, and not pictures."""
        return isinstance(self.config.task_settings, segment.Config)

    def masks_each(self, pictures: Iterable[Picture]) -> Iterator[Mask | DataError]:
        """Masks of a trial that segments, one by one.

        Yields:
            For each picture its mask, or why it cannot be read.
        """
        assert self.segments, "a trial that segments"
        return Masks(self.pack, self.transform).each(pictures)

    def largest(self, mask: Mask, top: int = TOP) -> Top:
        """The classes of most pixels of a mask, and their shares."""
        shares = areas([mask], len(self.class_names))
        return Predicted(shares.argmax(-1), shares, self.class_names, top).top[0]

    def _segmented(self, pictures: Iterable[Picture], top: int) -> Predicted:
        masks = []
        for mask in self.masks_each(pictures):
            if isinstance(mask, DataError):
                raise mask
            masks.append(mask)
        shares = areas(masks, len(self.class_names))
        return Predicted(shares.argmax(-1), shares, self.class_names, top, masks)

    def _said(self, logits: Tensor, top: int) -> Predicted:
        return Predicted(logits.argmax(-1), logits.softmax(-1), self.class_names, top)


def load_trained(
    path: Path | str,
    *,
    device: str | None = "cpu",
    weights: Path | str | None = None,
    grey_bits: int | None = None,
) -> TrainedModel:
    """Build the model of a trained trial for inference or analysis, in evaluation mode.

    Args:
        path: A trial's checkpoint folder, its best.safetensors, the last.safetensors of a trial
            that has not ended (its best epoch so far), or a folder that `export_trial` wrote.
        device: A torch device; None: "cuda" where there is one, else "cpu".
        weights: Where the backbone's weights lie now, a file or a folder with it; None: where the
            trial had them, or where they may have moved (see `tcpa_core.model.moved_weights`).
        grey_bits: Bits by which 16-bit grey pictures are scaled, where a checkpoint of an older
            version does not say it.

    Raises:
        CheckpointError: The file is damaged or no trained state.
        WeightsError: The backbone's weights are not found, or are not those of the training.
        ConfigError: Its settings need a method that is not installed.
        DeviceError: There is no such device.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise DeviceError(f"device {device!r}: torch can use no GPU here; take 'cpu'.")
    source = read_trained(Path(path))
    config = TrialConfig.from_flat(source.settings, place=str(source.path))
    place = None if weights is None else Path(weights)
    found = backbone_of(source.path, config.backbone, source.info, place)
    backbone = load_backbone(found, device=device, recorded=True)
    return trained_model(source, config, backbone, grey_bits)


def trained_model(
    source: TrainedState, config: TrialConfig, backbone: Backbone, grey_bits: int | None = None
) -> TrainedModel:
    """The model of a trained state over a backbone that is loaded already."""
    pack = PackModel(backbone, [config], len(source.classes), [source.tensors])
    transform = Transform.of(
        config.data,
        backbone.img_size,
        backbone.norm_stats(config.data.norm_stats),
        source.grey_bits if source.grey_bits is not None else grey_bits,
    )
    model = TrainedModel(pack.to(backbone.device), transform, source.classes, source)
    model.eval()
    return model
