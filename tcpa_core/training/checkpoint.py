"""Tiny checkpoints: trainable tensors and optimiser state in safetensors, never a pickle.

A file is replaced atomically, carries a schema version and a checksum over its tensors, and is
refused when either differs.
"""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from tcpa_core.errors import CheckpointError, DamagedCheckpointError
from tcpa_core.record.whole_file import write_whole

SCHEMA = 3


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], info: Mapping[str, Any]) -> None:
    """Write tensors and JSON values; the old file stays whole until the new one is on disk.

    Raises:
        StorageError: The disk is full, read-only or gone.
    """
    contiguous = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    text = json.dumps({"schema": SCHEMA, **info}, allow_nan=False)
    data = save(contiguous, metadata={"tcpa": text, "crc": str(_checksum(contiguous, text))})
    write_whole(path, data)


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint back.

    Raises:
        CheckpointError: The file is missing, torn, altered or of another schema.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        tensors = load_file(path)
        text, crc = metadata["tcpa"], metadata["crc"]
    except (OSError, KeyError, ValueError, RuntimeError, safetensors.SafetensorError) as err:
        raise DamagedCheckpointError(
            f"{path} is no readable checkpoint ({type(err).__name__}: {err}); "
            "delete it to train this trial from its start."
        ) from err
    if crc != str(_checksum(tensors, text)):
        raise DamagedCheckpointError(
            f"{path} is damaged: its checksum differs; delete it to train this trial again."
        )
    try:
        info: dict[str, Any] = {"schema": None, **json.loads(text)}
    except (ValueError, TypeError, RecursionError) as err:
        raise DamagedCheckpointError(
            f"{path} does not say what it holds ({type(err).__name__}); it was not written by "
            "this package."
        ) from err
    if info["schema"] != SCHEMA:
        raise CheckpointError(
            f"{path} has schema {info['schema']!r}, this version reads {SCHEMA}; "
            "continue the study with the version that wrote it."
        )
    return tensors, info


def _checksum(tensors: Mapping[str, Tensor], text: str) -> int:
    # safetensors checks the header's form, not the values; a flipped bit would train on in silence.
    crc = zlib.crc32(text.encode())
    for name in sorted(tensors):
        kind = f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}"
        crc = zlib.crc32(kind.encode(), crc)
        crc = zlib.crc32(tensors[name].flatten().view(torch.uint8).numpy().data, crc)
    return crc
