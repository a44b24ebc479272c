"""One pack on the fake device: epochs, evaluation, checkpoints, resume, test and result."""

import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import numpy as np
import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer

from benchmarks.fake_cuda.cases import DINOV3, GEOMETRY, ROTARY, SHORT, Case, Settings
from benchmarks.fake_cuda.device import fake_gpu
from benchmarks.fake_cuda.watch import Event, Log
from tcpa_core.config import TrialConfig
from tcpa_core.data.base import ImageStore, Split
from tcpa_core.model.backbone import Backbone
from tcpa_core.model.load_backbone import load_backbone
from tcpa_core.settings import BackboneConfig
from tcpa_core.training import image_source
from tcpa_core.training.member import Member
from tcpa_core.training.pack import Pack
from tcpa_core.training.saved_member import restore_member, save_member
from tcpa_core.training.trial_data import TrialData, source_of

Until = Literal["step", "epoch", "end"]
STEPS = 3
"""Of an epoch: the second is the one that is looked at, from its sign of life to the third's. So it
holds a whole step, and nothing of how an epoch begins or ends."""
EVAL_BATCHES = 3
PICTURES = 2
"""With masks, in a batch of evaluation."""


def run_case(
    case: Case,
    *,
    members: int,
    base: Settings,
    backbone: str | None = None,
    batch: int = 8,
    eval_rows: int | None = None,
    classes: int = 10,
    until: Until = "epoch",
    with_sites: bool = False,
) -> Log:
    """Train a pack.

    Args:
        case: What.
        members: Of the pack.
        base: Settings of all.
        backbone: A name of timm, SHORT or ROTARY; None: the case's own.
        batch: Images of a step.
        eval_rows: Images of the val and of the test split; None: three batches of evaluation.
        classes: Of the data.
        until: How far: to the end of the step that is looked at; a whole epoch; or two of them,
            checkpoints, a step of members that were taken up again, their test and a result.
        with_sites: See `Log`.

    Returns:
        The log, with phases "begin E", "step E I", "eval E I" and "end E" of epoch E (from 1), and
        "save", "resume", "test" and "result".
    """
    log = Log(phase="start", with_sites=with_sites, values=_values())
    configs = case.configs(members, {"train.batch_size": batch, "train.epochs": 100, **base})
    with fake_gpu(log):
        name = backbone or case.backbone
        frozen = _short(name == ROTARY) if name in (SHORT, ROTARY) else _named(name)
        frozen = frozen.to("cuda")
        log.weights = {p.untyped_storage()._cdata for p in frozen.parameters()}
        rows = eval_rows or EVAL_BATCHES * max(1, 256 // members)
        if case.segments:  # one after the other, so that a few do
            rows = 2 * PICTURES
        data = _data(
            frozen,
            configs[0],
            classes,
            {"train": STEPS * batch, "val": rows, "test": rows},
            resident=case.resident,
        )
        run = _Run(frozen, data, log)
        if case.segments:
            run.pack._evaluation._by_rows._rows = PICTURES * members
        trials = [run.pack.new_member(str(m), config) for m, config in enumerate(configs)]
        if until == "step":
            run.steps(trials, STEPS)
            return log
        trials = run.epoch(trials)
        if until == "end":
            run.rest(run.epoch(trials))
    return log


class _Run:
    """A pack whose phases are told to the log."""

    def __init__(self, frozen: Backbone, data: TrialData, log: Log) -> None:
        self.pack = Pack(frozen, data, on_step=self._turn)
        self.pack.step.on_step = self._step
        self._frozen = frozen
        self._data = data
        self._log = log
        self._epoch = 0
        self._count = 0
        self._last: int | None = None
        """The step of a brief epoch that is left where it begins."""
        evaluation: Any = self.pack._evaluation
        score = evaluation.score

        def marked(*args: Any) -> Any:
            self._count, log.phase = 0, f"eval {self._epoch} 0"
            scores = score(*args)
            log.phase = f"end {self._epoch}"
            return scores

        evaluation.score = marked

    def _step(self) -> None:
        self._count += 1
        self._log.phase = f"step {self._epoch} {self._count}"
        if self._count == self._last:
            raise _Enough

    def _turn(self) -> None:
        if self._log.phase.startswith("eval"):
            self._count += 1
            self._log.phase = f"eval {self._epoch} {self._count}"

    def epoch(self, members: Sequence[Member]) -> list[Member]:
        """Train an epoch."""
        outcomes = self._begun(members)
        self._log.phase = "done"
        trained = [one for one in outcomes if isinstance(one, Member)]
        assert len(trained) == len(members), outcomes
        return trained

    def steps(self, members: Sequence[Member], last: int) -> None:
        """Train an epoch up to the beginning of a step."""
        self._last = last
        with suppress(_Enough):
            self._begun(members)
        self._last = None

    def rest(self, members: Sequence[Member]) -> None:
        """Write, take up again, train on, test, and make a result."""
        data, log = self._data, self._log
        with tempfile.TemporaryDirectory() as folder:
            log.phase = "save"
            for member in members:
                save_member(member, Path(folder) / member.trial, self._frozen, data)
            log.phase = "resume"
            members = [
                restore_member(Path(folder) / one.trial, one.trial, one.config) for one in members
            ]
        self.steps(members, 2)
        log.phase = "test"
        tested = self.pack.test(members)
        log.phase = "result"
        self.pack.result(members[-1], "completed", test=tested[-1])

    def _begun(self, members: Sequence[Member]) -> list[Any]:
        self._epoch, self._count = self._epoch + 1, 0
        self._log.phase = f"begin {self._epoch}"
        return list(self.pack.run_epoch(members))


class _Enough(Exception):
    """What was to be seen of an epoch was seen."""


def steady_step(log: Log, epoch: int = 1) -> list[Event]:
    """The second training step of an epoch: a whole one."""
    return log.of(log.phases(f"step {epoch} ")[1])


def steady_eval(log: Log, epoch: int = 1) -> list[Event]:
    """A batch of evaluation between two others; [] where there is one turn only."""
    phases = log.phases(f"eval {epoch} ")
    return log.of(phases[-2]) if len(phases) > 3 else []


def whole_epoch(log: Log, epoch: int) -> list[Event]:
    """An epoch with all its steps, its evaluation and its end."""
    starts = (f"begin {epoch}", f"step {epoch} ", f"eval {epoch} ", f"end {epoch}")
    return [event for event in log.events if event.phase.startswith(starts)]


def _values() -> dict[str, Any]:
    left = [0]

    def solved_after_six() -> bool:
        left[0] = (left[0] + 1) % 6
        return left[0] != 0

    return {"methods/lion.py:_read_later": solved_after_six}


def _short(is_rotary: bool) -> Backbone:
    torch.manual_seed(0)
    family, more = (Eva, DINOV3) if is_rotary else (VisionTransformer, {})
    vit = family(**GEOMETRY, **more, num_classes=0)
    width = GEOMETRY["embed_dim"]
    return Backbone(vit, classifier=[(torch.zeros(1000, width), torch.zeros(1000))])


@cache
def _named(name: str) -> Backbone:
    return load_backbone(BackboneConfig(name=name, weights="random"))


def _data(
    frozen: Backbone,
    config: TrialConfig,
    classes: int,
    sizes: dict[str, int],
    *,
    resident: bool,
) -> TrialData:
    """Black images of the backbone's size, larger ones where they are cropped."""
    side = frozen.img_size
    large = side if config.data.resize == "squash" else side * 8 // 7
    mean, std = frozen.norm_stats(config.data.norm_stats)
    splits: dict[str, Any] = {}
    for name, count in sizes.items():
        labels = (np.arange(count) % classes).astype(np.int64)
        split = Split(
            images=_black(count, large, 3),
            labels=labels,
            paths=tuple(map(str, range(count))),
            masks=_black(count, large, 1) if config.task.name == "segment" else None,
        )
        with patch.object(image_source, "RESIDENT_SHARE", float(resident)):
            make = source_of(split, config.data, name)
            splits[name] = make(side, mean, std, "cuda")
    return TrialData(**splits, class_names=tuple(map(str, range(classes))), fingerprint="fake")


def _black(count: int, side: int, planes: int) -> ImageStore:
    size = planes * side * side
    return ImageStore(
        np.zeros(count * size, np.uint8),
        np.arange(count, dtype=np.int64) * size,
        np.full(count, side, np.int64),
        np.full(count, side, np.int64),
        np.zeros(count, np.int64),
        np.zeros(count, np.int64),
        np.zeros(count, np.bool_),
        num_planes=planes,
    )
