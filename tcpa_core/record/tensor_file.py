"""Files of arrays beside a trial's checkpoints: safetensors with a checksum, names and pictures.

They are safetensors, and no JSON text of numbers, since 10,000 images are as usual as 500; they
need numpy alone, so that reports read them without torch.
"""

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import safetensors
from safetensors.numpy import load, save

from tcpa_core.errors import RecordError
from tcpa_core.record.whole_file import write_whole

Array = npt.NDArray[Any]
T = TypeVar("T")

_MOST_BYTES = 2**28
"""Of the names of a split's images: two million names of 128 characters."""


def write_tensors(path: Path, tensors: Mapping[str, Array], document: Mapping[str, Any]) -> None:
    """Write a file as a whole.

    Args:
        tensors: By name.
        document: What else there is to say; "schema" and "class_names" are in it.

    Raises:
        StorageError: The disk is full, read-only or gone.
    """
    text = json.dumps(document)
    whole = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    about = {"tcpa": text, "crc": str(_checksum(whole, text))}
    write_whole(path, save(whole, metadata=about))


def read_tensors(
    path: Path, schema: int, of_tensors: Callable[[Mapping[str, Array], tuple[str, ...]], T]
) -> T:
    """Read such a file.

    Args:
        schema: That it has to have.
        of_tensors: Takes the tensors and the names of the classes; a ValueError or KeyError of it
            says that they do not fit together.

    Raises:
        FileNotFoundError: There is none.
        RecordError: It is torn, altered or of another version.
    """
    try:
        data = path.read_bytes()
        tensors = load(data)
        about = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
        if about["crc"] != str(_checksum(tensors, about["tcpa"])):
            raise ValueError("its checksum differs")
        document = json.loads(about["tcpa"])
        if document["schema"] != schema:
            raise ValueError(f"it has schema {document['schema']!r}, this version reads {schema}")
        return of_tensors(tensors, tuple(map(str, document["class_names"])))
    except FileNotFoundError:
        raise
    except (
        *(OSError, KeyError, ValueError, TypeError, RecursionError, zlib.error),
        safetensors.SafetensorError,
    ) as err:
        raise RecordError(f"{path} cannot be read ({type(err).__name__}: {err}).") from err


def packed_names(names: Sequence[str]) -> Array:
    """Names of images as bytes: names of files share most of their letters."""
    return np.frombuffer(zlib.compress(json.dumps(list(names)).encode()), np.uint8)


def unpacked_names(packed: Array, split: str) -> list[str]:
    """The names of the images of a split.

    Raises:
        ValueError, zlib.error: They are none.
    """
    # A few bytes may stand for more than memory holds.
    inflater = zlib.decompressobj()
    text = inflater.decompress(packed.tobytes(), _MOST_BYTES)
    if not inflater.eof:
        raise ValueError("the names of its images do not end")
    names = json.loads(text)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"the names of the images of {split} are no texts")
    return names


def joined(files: Sequence[bytes]) -> Array:
    """Small files one after the other: a tensor for each would take longer to read."""
    return np.frombuffer(b"".join(files), np.uint8)


def parted(data: Array, sizes: Sequence[int]) -> list[bytes]:
    """Such files again."""
    whole, ends = data.tobytes(), np.cumsum([0, *sizes]).tolist()
    return [whole[start:stop] for start, stop in zip(ends, ends[1:], strict=False)]


def _checksum(tensors: Mapping[str, Array], text: str) -> int:
    # safetensors checks the header's form, not the values.
    crc = zlib.crc32(text.encode())
    for name in sorted(tensors):
        kind = f"{name} {tensors[name].dtype.str} {tensors[name].shape}"
        crc = zlib.crc32(tensors[name].tobytes(), zlib.crc32(kind.encode(), crc))
    return crc
