"""The data set of a trial on the device that trains."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from tcpa_core.chain import check_data
from tcpa_core.config import TrialConfig
from tcpa_core.data.base import FULL_DEPTH, Progress, Split
from tcpa_core.model.backbone import Backbone
from tcpa_core.settings import DataConfig
from tcpa_core.training.distorted_source import DistortedSource
from tcpa_core.training.image_source import ImageSource
from tcpa_core.training.masked_source import MaskedSource
from tcpa_core.training.stand_ins import HERE, StandIns

SplitName = Literal["train", "val", "test"]


@dataclass(frozen=True, slots=True)
class TrialData:
    """The three splits on the device, ready to be sampled."""

    train: ImageSource
    val: ImageSource
    test: ImageSource
    class_names: tuple[str, ...]
    fingerprint: str
    warnings: tuple[str, ...] = ()
    """Sentences that every use of the data has to say."""

    @property
    def grey_bits(self) -> int:
        """Bits by which 16-bit grey pictures are scaled."""
        rule = self.val.rule
        return FULL_DEPTH if rule is None else rule.depth

    def split(self, name: SplitName) -> ImageSource:
        """One of the three."""
        return {"train": self.train, "val": self.val, "test": self.test}[name]

    def masked(self, name: SplitName) -> MaskedSource:
        """One of the three, of a data set with masks."""
        found = self.split(name)
        assert isinstance(found, MaskedSource), "a data set without masks"
        return found


def load_trial_data(
    config: TrialConfig,
    backbone: Backbone,
    *,
    device: str = "cpu",
    cache_dir: Path | None = None,
    progress: Progress | None = None,
    keep: bool = True,
    stand_ins: StandIns = HERE,
) -> TrialData:
    """Load the data set of a trial at the backbone's image size, with its normalisation.

    Args:
        config: `data` says which images, and how their values are normalised.
        backbone: Whose image size and, by default, mean and deviation are taken.
        device: Where batches are wanted.
        cache_dir: Decoded images; None: the user's cache folder.
        progress: Called as images are decoded.
        keep: Write decoded images to the cache.
        stand_ins: Of files that this machine may lack.

    Raises:
        ConfigError: The task needs masks and the data set has none, or the reverse.
        DataError: The data set is missing or cannot be read.
    """
    check_data(config)
    data = stand_ins.load_dataset(
        config.data, backbone.img_size, cache_dir=cache_dir, progress=progress, keep=keep
    )
    mean, std = backbone.norm_stats(config.data.norm_stats)
    train, val, test = (
        source_of(data.splits[name], config.data, name)(backbone.img_size, mean, std, device)
        for name in ("train", "val", "test")
    )
    return TrialData(
        train=train,
        val=val,
        test=test,
        class_names=tuple(data.class_names),
        fingerprint=data.fingerprint,
        warnings=tuple(data.summary.warnings()),
    )


def source_of(split: Split, cfg: DataConfig, name: str) -> Callable[..., ImageSource]:
    """Makes the source of a split, given image size, mean, deviation and device."""
    if split.masks is None:
        return partial(source_kind(cfg, name), split, cfg)
    if name == "train":
        return partial(MaskedSource, split, cfg)
    # Whole pictures are scored, which windows of a fixed size need not lie ready for.
    unscaled = cfg.model_copy(update={"scale_range": None})
    return partial(MaskedSource, split, unscaled, on_host=True)


def source_kind(cfg: DataConfig, split: str) -> type[ImageSource]:
    """What gives the batches of a split without masks."""
    return DistortedSource if split == "train" and cfg.distorts else ImageSource
