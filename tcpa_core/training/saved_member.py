"""Members on disk: last.safetensors to go on from, best.safetensors for users."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tcpa_core.config import TrialConfig
from tcpa_core.errors import CheckpointError, ConfigError, DamagedCheckpointError
from tcpa_core.methods.base import MemberState
from tcpa_core.model.backbone import Backbone
from tcpa_core.record.events import Parent
from tcpa_core.record.files import BEST, LAST, state_after
from tcpa_core.record.values import EpochReport
from tcpa_core.training.checkpoint import load_checkpoint, save_checkpoint
from tcpa_core.training.confusion import Counts
from tcpa_core.training.member import Member, Selected
from tcpa_core.training.trial_data import TrialData

_COUNTERS = (
    "epoch",
    "step",
    "peak",
    "stale_epochs",
    "stage_epoch",
    "stage_step",
    "duration_s",
)
STATE, SELECTED = "state:", "selected:"
"""How the names of a member's tensors begin in last.safetensors, and those of its selected epoch
where that is an earlier one."""
VAL_CLASSES = "val_classes"
"""What the selected epoch took the images of val for."""
VAL_COUNTS = "val_counts:"
"""How the names of the tensors begin that say what it took the pixels of val for."""
_SELECTED_FIELDS = ("epoch", "val_accuracy", "val_loss", "test_accuracy")
_OF_SEGMENTS = ("val_miou", "val_mean_accuracy")


LARGE_BYTES = 256 * 2**20
"""A member with more than this in state and moments is not written after every epoch: fine-tuning
a whole ViT-B has 1.0 GB, seconds of writing beside half a second of training an epoch."""
LARGE_EVERY_S = 300.0
"""How often it is written at most, as long as it trains on."""


def save_member(
    member: Member, folder: Path, backbone: Backbone, data: TrialData, *, keep: bool = False
) -> None:
    """Write last.safetensors: all that `restore_member` needs. With it, of a member that is done,
    best.safetensors.

    Args:
        member: Between two epochs.
        folder: Of the trial; made if need be.
        backbone: Whose weights and normalisation the state belongs to.
        data: That it is trained on.
        keep: Write the same under its epoch's name, which no later epoch replaces.

    Raises:
        StorageError: The disk is full, read-only or gone.
    """
    best = member.selected
    tensors = {f"{STATE}{k}": v for k, v in member.state.items()}
    tensors |= {f"moment:{k}": v for k, v in member.moments.items()}
    # Most often the last epoch is the selected one, and its tensors are stored once.
    if best and best.state is not member.state:
        tensors |= {f"{SELECTED}{k}": v for k, v in best.state.items()}
    if best and best.val_classes is not None:
        tensors[VAL_CLASSES] = best.val_classes
    if best and best.val_counts is not None:
        tensors |= {f"{VAL_COUNTS}{k}": v for k, v in best.val_counts._asdict().items()}
    info = _info(member, backbone, data)
    # last comes last: a process that dies before it trains this epoch again and writes all of them.
    if member.is_done:
        save_selected(member, folder, backbone, data)
    if keep:
        save_checkpoint(folder / state_after(member.epoch), tensors, info)
    save_checkpoint(folder / LAST, tensors, info)


def save_selected(member: Member, folder: Path, backbone: Backbone, data: TrialData) -> None:
    """Write best.safetensors, the selected state for users; nothing where no epoch was trained.

    Args: As of `save_member`.

    Raises:
        StorageError: The disk is full, read-only or gone.
    """
    if member.selected:
        info = _info(member, backbone, data)
        save_checkpoint(folder / BEST, member.selected.state, info)


def _info(member: Member, backbone: Backbone, data: TrialData) -> dict[str, Any]:
    best = member.selected
    return {
        "trial": member.trial,
        "config": member.config.flat(),
        "weights": backbone.fingerprint,
        "norm_stats": backbone.norm_stats(member.config.data.norm_stats),
        "data": data.fingerprint,
        "grey_bits": data.grey_bits,
        "classes": list(data.class_names),
        **{k: getattr(member, k) for k in _COUNTERS},
        "selected": best and _told(best),
        "reports": [asdict(report) for report in member.reports],
    }


def _told(best: Selected) -> dict[str, Any]:
    """The numbers of a selected epoch."""
    fields = _SELECTED_FIELDS if best.val_miou is None else (*_SELECTED_FIELDS, *_OF_SEGMENTS)
    return {k: getattr(best, k) for k in fields}


class SaveClock:
    """When a member has to be written, and which epoch was written last.

    Args:
        member: As it was taken up: what it has trained is on disk.
    """

    def __init__(self, member: Member) -> None:
        self.epoch = member.epoch
        self._at = time.monotonic()

    def is_due(self, member: Member, *, rests: bool) -> bool:
        """Whether the member has an epoch that has to be written now.

        Args:
            member: As it stands.
            rests: It is not known that it trains on.
        """
        if member.epoch == self.epoch:
            return False
        is_large = nbytes(member) > LARGE_BYTES
        return rests or not is_large or time.monotonic() - self._at >= LARGE_EVERY_S

    def note(self, member: Member) -> None:
        """The member is written as it stands."""
        self.epoch, self._at = member.epoch, time.monotonic()


def nbytes(member: Member) -> int:
    """Bytes of a member's state and moments."""
    return sum(tensor.nbytes for tensor in (*member.state.values(), *member.moments.values()))


def load_selected(path: Path) -> tuple[MemberState, dict[str, Any]]:
    """State of the selected epoch and what is known of the trial.

    Args:
        path: A best.safetensors, or the last.safetensors of a trial that has not ended.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    tensors, info = load_checkpoint(path)
    if path.name == LAST:
        tensors = _with_prefix(tensors, SELECTED) or _with_prefix(tensors, STATE)
    return tensors, info


def restore_member(folder: Path, trial: str, config: TrialConfig) -> Member:
    """Take a member up from the last.safetensors that `save_member` wrote.

    Raises:
        CheckpointError: The file is missing or damaged, or belongs to other settings.
    """
    tensors, info = load_checkpoint(folder / LAST)
    if not _is_of(info.get("config"), config):
        raise CheckpointError(
            f"{folder} holds a trial with other settings than trial {trial}; "
            "move that folder away to train the trial from its start."
        )
    return _member(tensors, info, folder, trial, config)


def begun_member(folder: Path, trial: str, config: TrialConfig, parent: Parent) -> Member:
    """Begin a trial from the state that another one had after an epoch.

    Args:
        folder: Of the trial; that of its parent lies beside it. The state may be in either.

    Raises:
        CheckpointError: The state is missing or damaged, or is not of that trial and epoch.
    """
    name = state_after(parent.epoch)
    path = folder / name
    if not path.exists():
        path = folder.parent / parent.trial / name
    try:
        tensors, info = load_checkpoint(path)
    except DamagedCheckpointError as err:
        # Not as one of its own, whose loss costs time only: from its seed it is another trial.
        raise CheckpointError(
            f"trial {trial} begins from the state of trial {parent.trial} after epoch "
            f"{parent.epoch}, and {path} "
            f"{'cannot be read' if path.exists() else 'is missing'}; restore that file."
        ) from err
    if (info.get("trial"), info.get("epoch")) != (parent.trial, parent.epoch):
        raise CheckpointError(
            f"{path} is of trial {info.get('trial')} after epoch {info.get('epoch')}, not of "
            f"trial {parent.trial} after epoch {parent.epoch}; restore that file."
        )
    return _member(tensors, info, path.parent, parent.trial, config).handed_to(trial, config)


def _member(
    tensors: Mapping[str, Any], info: dict[str, Any], folder: Path, trial: str, config: TrialConfig
) -> Member:
    """The member of a checkpoint.

    Raises:
        CheckpointError: It lacks a part.
    """
    state = _with_prefix(tensors, STATE)
    info = {"peak": info.get("peak_accuracy"), **info}  # its name until best_val_loss came
    try:
        selected = info["selected"] and Selected(
            **info["selected"],
            state=_with_prefix(tensors, SELECTED) or state,
            val_classes=tensors.get(VAL_CLASSES),
            val_counts=Counts(**counts) if (counts := _with_prefix(tensors, VAL_COUNTS)) else None,
        )
        return Member(
            trial=trial,
            config=config,
            state=state,
            moments=_with_prefix(tensors, "moment:"),
            selected=selected,
            reports=tuple(EpochReport(**report) for report in info["reports"]),
            **{k: info[k] for k in _COUNTERS},
        )
    except (KeyError, TypeError) as err:
        raise CheckpointError(
            f"{folder} lacks a part of the state of trial {trial} ({err}); "
            "move that folder away to train the trial from its start."
        ) from err


def restored_or_new(
    folder: Path, trial: str, config: TrialConfig, new: Callable[[], Member]
) -> tuple[Member, str]:
    """The trial as its checkpoint left it, or fresh; and what there is to say about that.

    A damaged checkpoint is set aside and the trial begins anew, which gives the same numbers.

    Args:
        new: Makes it as it begins.

    Raises:
        CheckpointError: The folder holds a trial with other settings, or `new` raises it.
    """
    last = folder / LAST
    if not last.exists():
        return new(), ""
    try:
        return restore_member(folder, trial, config), ""
    except DamagedCheckpointError as err:
        last.replace(folder / "damaged.safetensors")
        return new(), f"begins anew: {err}"


def _is_of(stored: Any, config: TrialConfig) -> bool:
    """Whether settings of a checkpoint, maybe of an older version with fewer of them, are these."""
    try:
        return TrialConfig.from_flat(stored).flat() == config.flat()
    except (ConfigError, AttributeError):
        return False


def _with_prefix(tensors: Mapping[str, Any], prefix: str) -> MemberState:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
