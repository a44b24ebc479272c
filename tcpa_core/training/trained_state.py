"""What a trial has left behind, read from a checkpoint or from an exported folder."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import load

from tcpa_core.config import Flat
from tcpa_core.data._decode import DEPTHS
from tcpa_core.errors import CheckpointError, DamagedCheckpointError
from tcpa_core.methods.base import MemberState
from tcpa_core.record.files import BEST, LAST
from tcpa_core.training.saved_member import load_selected

CONFIG, MODEL, CARD = "config.json", "model.safetensors", "README.md"
"""Files of an exported folder: all but the trained tensors; these; and both for people."""
FORMAT = "tcpa"
"""How an exported folder names itself, of the kind that `read_trained` reads."""
SCHEMA = 1
MAX_CONFIG_BYTES = 1 << 24
SUFFIX = ".safetensors"
GIVE = "give STUDY/checkpoints/TRIAL, a checkpoint in it, or a folder of 'tcpa export'."


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedState:
    """Trained tensors, and what is known of the trial."""

    path: Path
    """The file with the tensors."""
    tensors: MemberState
    settings: Flat
    """By dotted path."""
    classes: tuple[str, ...]
    """Names, in the order of the logits."""
    grey_bits: int | None
    """Bits by which 16-bit grey pictures were scaled; None: an older version did not say it."""
    info: Mapping[str, Any]
    """All that the checkpoint or config.json says."""


def read_trained(path: Path) -> TrainedState:
    """Read what a trial has left behind.

    Args:
        path: See `tcpa_core.training.trained.load_trained`.

    Raises:
        CheckpointError: There is nothing of the kind, or it is damaged.
    """
    if not path.exists():
        raise CheckpointError(f"no file or folder {path}; {GIVE}")
    file = _file_in(path) if path.is_dir() else path
    if file.suffix != SUFFIX:
        raise CheckpointError(f"{file} is no {SUFFIX} file; {GIVE}")
    if file.name == MODEL and (file.parent / CONFIG).is_file():
        tensors, info = _read_exported(file.parent)
    else:
        tensors, info = load_selected(file)
    settings, classes = info.get("config"), info.get("classes")
    if not isinstance(settings, dict) or not isinstance(classes, list):
        raise CheckpointError(f"{file} lacks the settings or the classes of its trial.")
    bits = info.get("grey_bits")
    return TrainedState(
        path=file,
        tensors=tensors,
        settings=settings,
        classes=tuple(map(str, classes)),
        grey_bits=bits if type(bits) is int and bits in DEPTHS else None,
        info=info,
    )


def _file_in(folder: Path) -> Path:
    """The file with the tensors in a folder."""
    for name in (BEST, LAST, MODEL):
        if (folder / name).is_file():
            return folder / name
    if (folder / CONFIG).is_file() and (folder / CARD).is_file():  # of a format without MODEL
        return folder / MODEL
    raise CheckpointError(
        f"{folder} holds no trained trial: none of {BEST}, {LAST} and {MODEL} is in it; {GIVE}"
    )


def _read_exported(folder: Path) -> tuple[MemberState, dict[str, Any]]:
    """Tensors and config.json of an exported folder, which must belong together."""
    config, model = folder / CONFIG, folder / MODEL
    try:
        if config.stat().st_size > MAX_CONFIG_BYTES:
            raise ValueError(f"more than {MAX_CONFIG_BYTES:,} bytes")
        info = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as err:
        raise DamagedCheckpointError(
            f"{folder} cannot be read ({type(err).__name__}: {err}); export the trial again."
        ) from err
    about = info.get(FORMAT) if isinstance(info, dict) else None
    if not isinstance(about, dict):
        raise CheckpointError(f"{config} is not of an exported trial; it was not written by us.")
    if about.get("format") != FORMAT or about.get("schema") != SCHEMA:
        raise CheckpointError(
            f"{folder} is an export of format {about.get('format')!r}, schema "
            f"{about.get('schema')!r}; load_trained reads format {FORMAT!r}, schema {SCHEMA} "
            "('tcpa export STUDY TRIAL DIR'). README.md in it says how it is loaded."
        )
    try:
        data = model.read_bytes()
    except OSError as err:
        raise DamagedCheckpointError(
            f"{model} cannot be read ({err.strerror}); copy the folder again, or export the trial "
            "again."
        ) from err
    if about.get("sha256") != hashlib.sha256(data).hexdigest():
        raise DamagedCheckpointError(
            f"{model} is not what {CONFIG} beside it describes: its SHA-256 differs; copy the "
            "folder again, or export the trial again."
        )
    try:
        return load(data), about
    except (ValueError, RuntimeError, safetensors.SafetensorError) as err:
        raise DamagedCheckpointError(
            f"{model} cannot be read ({err}); export the trial again."
        ) from err
