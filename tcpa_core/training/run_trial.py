"""Run one trial in this process."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tcpa_core.config import TrialConfig
from tcpa_core.model.load_backbone import load_backbone
from tcpa_core.record.files import LAST
from tcpa_core.record.values import EpochReport, TrialResult
from tcpa_core.training.divergence import Diverged
from tcpa_core.training.member import Member
from tcpa_core.training.pack import Pack
from tcpa_core.training.saved_member import (
    SaveClock,
    restore_member,
    save_member,
    save_selected,
)
from tcpa_core.training.saved_predictions import writing_predictions
from tcpa_core.training.trial_data import load_trial_data


def run_trial(
    config: TrialConfig | Mapping[str, Any],
    *,
    on_epoch: Callable[[EpochReport], None] | None = None,
    folder: Path | str | None = None,
    cache_dir: Path | None = None,
    device: str | None = None,
    recorded: bool = False,
    ancestors: Sequence[tuple[TrialConfig, int]] = (),
) -> TrialResult:
    """Train, select on val and test one configuration: a pack of one.

    Args:
        config: Settings, or a mapping of dotted paths.
        on_epoch: Called after every epoch.
        folder: Where checkpoints go; a trial that was interrupted there goes on from its last
            epoch, a large one (see `SaveClock`) from one of the last minutes. None: nothing is
            written.
        cache_dir: Where decoded images are kept; None: the user's cache folder.
        device: A torch device; None: "cuda" where there is one, else "cpu".
        recorded: The trial was trained before; see `load_backbone`.
        ancestors: Settings with which the same training ran before those of `config`, each up to
            an epoch; with `folder` there are none.

    Returns:
        The result; a loss that stops being finite gives status "failed" with the reason.

    Raises:
        ConfigError, DataError, WeightsError: Before any training.
        CheckpointError: `folder` holds a damaged or foreign checkpoint.
    """
    if not isinstance(config, TrialConfig):
        config = TrialConfig.from_flat(config)
    folder = None if folder is None else Path(folder)
    told = on_epoch or (lambda report: None)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    backbone = load_backbone(config.backbone, device=device, recorded=recorded)
    data = load_trial_data(config, backbone, device=device, cache_dir=cache_dir)
    pack = Pack(backbone, data)
    # Whatever was trained in that folder before is not trained again, a finished trial not at all.
    if folder and (folder / LAST).exists():
        member = restore_member(folder, folder.name, config)
    else:
        member = pack.new_member("solo", config)
    for settings, epoch in ancestors:
        kin = load_trial_data(settings, backbone, device=device, cache_dir=cache_dir)
        found = _trained_until(epoch, Pack(backbone, kin), member.handed_to("solo", settings), told)
        if isinstance(found, Diverged):
            return pack.result(member, "failed", reason=found.reason)
        member = found.handed_to("solo", config)
    saved = SaveClock(member)
    try:
        while not member.is_done:
            (outcome,) = pack.run_epoch([member])
            if isinstance(outcome, Diverged):
                return pack.result(member, "failed", reason=outcome.reason)
            member = outcome
            if folder and saved.is_due(member, rests=member.is_done):
                saved.note(member)
                save_member(member, folder, backbone, data)
            told(member.reports[-1])
    finally:
        # Also where `on_epoch` or the user ends it: what was trained can be used and gone on from.
        if folder and not member.is_done:
            if saved.is_due(member, rests=True):
                save_member(member, folder, backbone, data)
            save_selected(member, folder, backbone, data)
    (scored,) = pack.test([member])
    folders = [folder] if folder else []
    lost = [write() for write in writing_predictions(pack, [member], [scored], folders)]
    result = pack.result(member, "completed", test=scored)
    return replace(result, warnings=[*result.warnings, *filter(None, lost)])


def _trained_until(
    epoch: int, pack: Pack, member: Member, told: Callable[[EpochReport], None]
) -> Member | Diverged:
    """A member after an epoch, or why there is none."""
    while member.epoch < epoch:
        (outcome,) = pack.run_epoch([member])
        if isinstance(outcome, Diverged):
            return outcome
        member = outcome
        told(member.reports[-1])
    return member
