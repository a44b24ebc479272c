"""Members on disk: last.safetensors to go on from, best.safetensors for users."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tcpa_core.config import TrialConfig
from tcpa_core.errors import CheckpointError, ConfigError, DamagedCheckpointError
from tcpa_core.methods.base import MemberState
from tcpa_core.model.backbone import Backbone
from tcpa_core.record.files import BEST, LAST
from tcpa_core.record.values import EpochReport
from tcpa_core.training.checkpoint import load_checkpoint, save_checkpoint
from tcpa_core.training.member import Member, Selected

_COUNTERS = (
    "epoch",
    "step",
    "peak",
    "stale_epochs",
    "stage_epoch",
    "stage_step",
    "duration_s",
)
_SELECTED_FIELDS = ("epoch", "val_accuracy", "val_loss", "test_accuracy")


def save_member(
    member: Member, folder: Path, backbone: Backbone, class_names: Sequence[str]
) -> None:
    """Write last.safetensors (all that `restore_member` needs) and best.safetensors (for users).

    Args:
        member: Between two epochs.
        folder: Of the trial; made if need be.
        backbone: Whose weights and normalisation best.safetensors belongs to.
        class_names: In the order of the head's outputs.

    Raises:
        StorageError: The disk is full, read-only or gone.
    """
    best = member.selected
    info = {
        "trial": member.trial,
        "config": member.config.flat(),
        "weights": backbone.fingerprint,
        "norm_stats": backbone.norm_stats(member.config.data.norm_stats),
        "classes": list(class_names),
        **{k: getattr(member, k) for k in _COUNTERS},
        "selected": best and {k: getattr(best, k) for k in _SELECTED_FIELDS},
        "reports": [asdict(report) for report in member.reports],
    }
    tensors = {f"state:{k}": v for k, v in member.state.items()}
    tensors |= {f"moment:{k}": v for k, v in member.moments.items()}
    # best before last: a process that dies between the two trains this epoch again and writes both.
    if best and best.epoch == member.epoch:
        save_checkpoint(folder / BEST, best.state, info)
    # Most often the last epoch is the selected one, and its tensors are stored once.
    if best and best.state is not member.state:
        tensors |= {f"selected:{k}": v for k, v in best.state.items()}
    save_checkpoint(folder / LAST, tensors, info)


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
    state = _with_prefix(tensors, "state:")
    info = {"peak": info.get("peak_accuracy"), **info}  # its name until best_val_loss came
    try:
        selected = info["selected"] and Selected(
            **info["selected"], state=_with_prefix(tensors, "selected:") or state
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

    Raises:
        CheckpointError: The folder holds a trial with other settings.
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
