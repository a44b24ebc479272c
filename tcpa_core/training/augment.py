"""What is done to training images picture by picture, on the CPU: random parts of the pictures at
their own size, timm's policies of distortions, and jittered colours.

Each picture has a seed of its own, which follows from trial, step and place in the batch.

Source:
    timm.data.transforms.RandomResizedCropAndInterpolation, timm.data.auto_augment and
    torchvision.transforms.ColorJitter, in the order of timm.data.transforms_factory.
"""

from collections.abc import Sequence
from random import Random
from typing import Any

import numpy as np
from PIL import Image
from timm.data.transforms import str_to_pil_interp
from torchvision.transforms import functional as F

from tcpa_core.data.base import Pixels
from tcpa_core.settings import DataConfig, Jitter
from tcpa_core.training.timm_draws import drawing_from, timm_module

_TRANSLATED = 0.45
"""Largest shift of a policy that shifts by pixels, as a share of the image: timm's."""


class Distortions:
    """The settings' changes of one training image.

    Args:
        cfg: Which.
        img_size: Side of the images that are given and returned, in pixels.
        mean: Of the normalisation, for pixels in [0, 1]; fills what distortions leave empty.
    """

    def __init__(self, cfg: DataConfig, img_size: int, mean: Sequence[float]) -> None:
        self._jitter = cfg.color_jitter
        self._policy = _policy(cfg, img_size, mean) if cfg.auto_augment else None
        self._part: Any = None
        if cfg.resized_crop is not None:
            self._part = timm_module("timm.data.transforms").RandomResizedCropAndInterpolation(
                img_size, cfg.resized_crop, cfg.crop_ratio, cfg.filter_of_train
            )

    def __call__(self, planes: Pixels, *, seed: int, mirrored: bool) -> Pixels:
        """Change an image.

        Args:
            planes: The picture at its own size [3, h, w] where parts are cut, else the image
                [3, H, W] before it is mirrored.
            seed: Of all that is drawn.
            mirrored: Whether it is mirrored, behind the cut and before the rest, as in timm.

        Returns:
            Image [3, H, W].
        """
        image = Image.fromarray(np.ascontiguousarray(planes.transpose(1, 2, 0)))
        with drawing_from(seed) as random:
            if self._part is not None:
                image = self._part(image)
            if mirrored:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            if self._policy is not None:
                image = self._policy(image)
            if self._jitter is not None:
                image = jittered(image, self._jitter, random)
        return np.asarray(image).transpose(2, 0, 1)


def _policy(cfg: DataConfig, img_size: int, mean: Sequence[float]) -> Any:
    """timm's transform by the name of `data.auto_augment`, as its `transforms_factory` makes it."""
    assert cfg.auto_augment is not None
    params: dict[str, Any] = {
        "translate_const": int(img_size * _TRANSLATED),
        "img_mean": tuple(min(255, round(255 * value)) for value in mean),
    }
    if cfg.filter_of_train != "random":
        params["interpolation"] = str_to_pil_interp(cfg.filter_of_train)
    module = timm_module("timm.data.auto_augment")
    is_random = cfg.auto_augment.startswith("rand")
    make = module.rand_augment_transform if is_random else module.auto_augment_transform
    return make(cfg.auto_augment, params)


def jittered(image: Image.Image, strengths: Jitter, random: Random) -> Image.Image:
    """torchvision's ColorJitter with numbers of our own: operations in any order, each with a
    factor around 1, or a shift of the hue around 0."""
    *around_one, hue = strengths
    changes = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation)
    drawn = [
        (change, random.uniform(max(0.0, 1 - strength), 1 + strength))
        for change, strength in zip(changes, around_one, strict=True)
        if strength
    ]
    if hue:
        drawn.append((F.adjust_hue, random.uniform(-hue, hue)))
    random.shuffle(drawn)
    for change, factor in drawn:
        image = change(image, factor)
    return image
