"""What trials that were scored take each image for, on its way to disk: beside the score, which
counts whatever becomes of it."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tcpa_core.errors import StorageError
from tcpa_core.record.files import PREDICTIONS, REGIONS
from tcpa_core.record.predictions import Predictions, write_predictions
from tcpa_core.record.regions import Regions, write_regions
from tcpa_core.training.faults import describe, is_device_fault
from tcpa_core.training.member import Member
from tcpa_core.training.pack import Pack
from tcpa_core.training.scored import Scored

Found = Predictions | Regions


def writing_predictions(
    pack: Pack,
    members: Sequence[Member],
    scored: Sequence[Scored],
    folders: Sequence[Path],
    retry: Callable[[Callable[[], Sequence[Found]]], Sequence[Found]] = lambda call: call(),
) -> list[Callable[[], str]]:
    """Find out what members take the images of val and test for.

    Args:
        scored: Of these members.
        folders: Of their trials; [] where nothing is to be written.
        retry: Calls a function, and again where memory was short.

    Returns:
        For each member what writes that, and gives a sentence where it cannot; "": all is well.

    Raises:
        Exception: The device has failed.
    """
    if not folders:
        return []
    try:
        found = retry(lambda: pack.predictions(members, scored))
    except Exception as err:
        if is_device_fault(err):
            raise
        return [partial(_missing, member.trial, describe(err)) for member in members]
    return [
        partial(_write, member.trial, folder, one)
        for member, folder, one in zip(members, folders, found, strict=True)
    ]


def _write(trial: str, folder: Path, found: Found) -> str:
    try:
        if isinstance(found, Regions):
            write_regions(folder / REGIONS, found)
        else:
            write_predictions(folder / PREDICTIONS, found)
    except StorageError as err:
        return _missing(trial, str(err.__cause__))
    return ""


def _missing(trial: str, why: str) -> str:
    return (
        f"trial {trial} is scored, but what it took single images for is not kept ({why}); the "
        "report says nothing of them"
    )
