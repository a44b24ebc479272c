"""What a trial took each image of val and test for: a small file beside its checkpoints.

A worker writes it when it scores the trial on the test split, of the same state and in the same
pass. It is safetensors, and no JSON text of numbers, since 10,000 images are as usual as 500; it
needs numpy alone, so that reports read it without torch.
"""

# Axes: N images of a split, k classes kept of each.

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
from safetensors.numpy import load, save

from tcpa_core.errors import RecordError
from tcpa_core.record.whole_file import write_whole

SCHEMA = 1
MOST_CLASSES = 5
"""Classes that are kept of an image, at most."""
_PICTURES, _SIZES = "pictures", "picture_sizes"
"""The files of all pictures, and the number in the split and the bytes of each [n, 2]."""
_MOST_BYTES = 2**28
"""Of the names of a split's images: two million names of 128 characters."""

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class SplitPredictions:
    """What the images of one split were taken for."""

    keys: Sequence[str]
    """Name of each image [N], as of `tcpa_core.data`: its path below the data set's folder, or a
    running number."""
    labels: Array
    """Class of each image, int16 or int32 [N]."""
    classes: Array
    """The predicted class, as accuracy counts it, then those of the next highest probabilities;
    integers as of `labels` [N, k]."""
    probabilities: Array
    """Softmax of these classes, float32 [N, k]."""
    of_label: Array
    """Softmax of the label's class, float32 [N]."""

    @property
    def accuracy(self) -> float:
        """Share of the images whose predicted class is the label."""
        return int((self.classes[:, 0] == self.labels).sum()) / len(self.labels)


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """What the images of val and test were taken for by the selected state of a trial."""

    class_names: tuple[str, ...]
    splits: Mapping[str, SplitPredictions]
    """"test" and, except of trials that an older version has trained, "val"."""
    pictures: Mapping[int, bytes]
    """JPEG files of some images of test that were mistaken, by number in that split."""


def write_predictions(path: Path, found: Predictions) -> None:
    """Write the file as a whole.

    Raises:
        StorageError: The disk is full, read-only or gone.
    """
    tensors: dict[str, Array] = {}
    for name, split in found.splits.items():
        # Names of files share most of their letters.
        names = zlib.compress(json.dumps(list(split.keys)).encode())
        tensors |= {
            f"{name}.keys": np.frombuffer(names, np.uint8),
            f"{name}.labels": split.labels,
            f"{name}.classes": split.classes,
            f"{name}.probabilities": split.probabilities,
            f"{name}.of_label": split.of_label,
        }
    # One after the other: a tensor for each of many small files would take longer to read.
    tensors[_PICTURES] = np.frombuffer(b"".join(found.pictures.values()), np.uint8)
    sizes = [(index, len(picture)) for index, picture in found.pictures.items()]
    tensors[_SIZES] = np.array(sizes, np.int64).reshape(-1, 2)
    text = json.dumps({"schema": SCHEMA, "class_names": found.class_names})
    whole = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    about = {"tcpa": text, "crc": str(_checksum(whole, text))}
    write_whole(path, save(whole, metadata=about))


def read_predictions(path: Path) -> Predictions:
    """Read such a file.

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
        if document["schema"] != SCHEMA:
            raise ValueError(f"it has schema {document['schema']!r}, this version reads {SCHEMA}")
        return _of_tensors(tensors, document["class_names"])
    except FileNotFoundError:
        raise
    except (
        *(OSError, KeyError, ValueError, TypeError, RecursionError, zlib.error),
        safetensors.SafetensorError,
    ) as err:
        raise RecordError(f"{path} cannot be read ({type(err).__name__}: {err}).") from err


def _of_tensors(tensors: Mapping[str, Array], class_names: Sequence[str]) -> Predictions:
    # A file has no order of its own.
    splits = sorted({name.partition(".")[0] for name in tensors if "." in name})
    data, start, pictures = tensors[_PICTURES].tobytes(), 0, {}
    for index, size in tensors[_SIZES].tolist():
        pictures[index] = data[start : start + size]
        start += size
    found = {name: _split(tensors, name, len(class_names)) for name in splits}
    return Predictions(tuple(map(str, class_names)), found, pictures)


def _split(tensors: Mapping[str, Array], name: str, num_classes: int) -> SplitPredictions:
    keys = json.loads(_inflated(tensors[f"{name}.keys"].tobytes()))
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ValueError(f"the names of the images of {name} are no texts")
    labels, classes, probabilities, of_label = (
        tensors[f"{name}.{part}"] for part in ("labels", "classes", "probabilities", "of_label")
    )
    shapes = (labels.shape, of_label.shape, classes.shape[:1], probabilities.shape[:1])
    if set(shapes) != {(len(keys),)} or classes.shape != probabilities.shape or not classes.size:
        raise ValueError(f"the parts of {name} have different lengths")
    for numbers in (labels, classes):
        if numbers.dtype.kind != "i" or numbers.min() < 0 or numbers.max() >= num_classes:
            raise ValueError(f"{name} has other classes than its {num_classes} names")
    return SplitPredictions(keys, labels, classes, probabilities, of_label)


def _inflated(data: bytes) -> bytes:
    """Text that was compressed; a few bytes may stand for more than memory holds."""
    inflater = zlib.decompressobj()
    found = inflater.decompress(data, _MOST_BYTES)
    if not inflater.eof:
        raise ValueError("the names of its images do not end")
    return found


def _checksum(tensors: Mapping[str, Array], text: str) -> int:
    # safetensors checks the header's form, not the values.
    crc = zlib.crc32(text.encode())
    for name in sorted(tensors):
        kind = f"{name} {tensors[name].dtype.str} {tensors[name].shape}"
        crc = zlib.crc32(tensors[name].tobytes(), zlib.crc32(kind.encode(), crc))
    return crc
