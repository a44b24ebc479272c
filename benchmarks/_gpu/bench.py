"""What a part of the report is given, and what it finds."""

import gc
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from benchmarks._gpu.form import Form
from benchmarks._gpu.inputs import image_folder, weights_of
from benchmarks.pack import shortened
from tcpa_core.config import Flat, TrialConfig
from tcpa_core.model.backbone import Backbone
from tcpa_core.model.load_backbone import load_backbone
from tcpa_core.training.trial_data import TrialData, load_trial_data

Value = str | int | float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One row of a part."""

    what: str
    values: Mapping[str, Value] = field(default_factory=dict)
    """By column; the name of a column tells its unit."""
    ok: bool | None = None
    """Whether what was to be shown was seen; None: a figure, nothing to show."""
    note: str = ""


@dataclass(slots=True)
class Bench:
    """The device, the sizes, and where findings go."""

    device: str
    form: Form
    folder: Path
    """Images, weights and checkpoints of the run."""
    tell: Callable[[Finding], None]
    ends: float = 0.0
    """`time.monotonic()` at which the part in hand is cut off."""
    is_spoilt: bool = False
    """Something has failed, after which a device may not be what it was."""
    _backbones: dict[str, Backbone] = field(default_factory=dict)
    _data: dict[str, TrialData] = field(default_factory=dict)

    @property
    def is_gpu(self) -> bool:
        """Whether there is more to see than that everything runs."""
        return self.device != "cpu"

    @property
    def left_s(self) -> float:
        """Seconds until the part is cut off."""
        return self.ends - time.monotonic()

    @contextmanager
    def trying(self, what: str) -> Iterator[None]:
        """Let a row fail and the next one run."""
        try:
            yield
        except ImportError as err:
            self.tell(Finding(what=what, note=f"not run: {err}"))
        except Exception as err:
            traceback.print_exc()
            self.is_spoilt = True
            self.tell(Finding(what=what, ok=False, note=one_line(err)))
        finally:
            self.tidy()

    def tidy(self) -> None:
        """Give the memory of what is gone back to the device."""
        gc.collect()
        if self.is_gpu:
            torch.cuda.empty_cache()

    def settings(self, vit: str) -> Flat:
        """Settings of every trial on a backbone: its weights and the images."""
        weights = weights_of(self.form.vits[vit], self.folder)
        return {
            **{f"backbone.{key}": value for key, value in weights.items()},
            "data.name": "folder",
            "data.root": str(image_folder(self.form, self.folder)),
            "train.batch_size": self.form.batch,
        }

    @property
    def cache(self) -> Path:
        """Where decoded images are kept."""
        return self.folder / "cache"

    def backbone(self, vit: str) -> Backbone:
        """One of the form's, loaded once."""
        if vit not in self._backbones:
            flat = {k: v for k, v in self.settings(vit).items() if k.startswith("backbone.")}
            config = TrialConfig.from_flat(flat).backbone
            self._backbones[vit] = load_backbone(config, device=self.device)
        return self._backbones[vit]

    def data(self, vit: str, train: int | None = None, val: int | None = None) -> TrialData:
        """The images at a backbone's size, the first ones of each split."""
        if vit not in self._data:
            config = TrialConfig.from_flat(self.settings(vit))
            self._data[vit] = load_trial_data(
                config, self.backbone(vit), device=self.device, cache_dir=self.cache
            )
        return shortened(self._data[vit], train, val)


class StepClock:
    """Seconds of a training step in an epoch, as `on_step` of a pack.

    The device is waited for before the third step and before the last one, and nowhere between:
    what a step leaves to do overlaps with the next one as it does in a search.

    Args:
        device: That trains.
        steps: Of the epoch, at least 4.
    """

    WARM = 3

    def __init__(self, device: str, steps: int) -> None:
        self._device = device
        self._steps = steps
        self._times: list[float] = []
        self._calls = 0

    def start(self) -> None:
        """An epoch begins."""
        self._calls = 0
        self._times = []

    def __call__(self) -> None:
        self._calls += 1
        if self._calls in (self.WARM, self._steps):
            wait(self._device)
            self._times.append(time.perf_counter())

    @property
    def seconds(self) -> float:
        """Of one step of the epoch that has ended."""
        began, ended = self._times
        return (ended - began) / (self._steps - self.WARM)


def wait(device: str) -> None:
    """Until the device has done what it was told."""
    if device != "cpu":
        torch.cuda.synchronize(device)


def one_line(err: BaseException) -> str:
    """An error as it stands in a table."""
    text = f"{type(err).__name__}: {err}".split("\n", maxsplit=1)[0]
    return text if len(text) <= 200 else f"{text[:197]}..."


def relative(a: float, b: float) -> float:
    """Difference of two losses as a share of the second."""
    return abs(a - b) / abs(b)
