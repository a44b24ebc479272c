"""What a file of weights is, told by its first bytes whatever its name; what is none is named.

Nothing is unpacked or run here.
"""

import json
import re
import struct
import zipfile
from collections.abc import Sequence
from enum import Enum
from pathlib import Path

from tcpa_core.errors import WeightsError


class FileKind(Enum):
    """Formats that are read."""

    SAFETENSORS = "safetensors"
    NPZ = "npz"
    TORCH = "torch"
    TORCHSCRIPT = "TorchScript"


_HEAD = 512
"""Bytes that tell a format: the mark of a tar archive ends at 262."""
_TO_TORCH = "load it with the program that wrote it and save its tensors as .safetensors"
_TABLE = 100_000_000
"""Bytes of the longest table that safetensors reads."""
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How torch began its files before 1.6."""
_UNPACK = "unpack it and give the weights file in it"

_PART = re.compile(r"-\d{5}-of-\d{5}\.")
"""In names of files that hold a part of the weights."""
_JOIN = (
    "join them into one file: open each with safetensors.torch.load_file (or torch.load), put the "
    "tensors into one dict and write it with safetensors.torch.save_file"
)

_BEGINNINGS: Sequence[tuple[bytes, str, str]] = (
    (
        b"version https://git-lfs",
        "a pointer of Git LFS and not the weights themselves",
        "fetch them with 'git lfs pull', or download the file by itself",
    ),
    (b"GGUF", "a GGUF file of llama.cpp", "take the same model's .safetensors"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras, TensorFlow)", _TO_TORCH),
    (b"\x93NUMPY", "a single NumPy array", "give all tensors by name, as .npz or .safetensors"),
    (b"\x1f\x8b", "packed by gzip", _UNPACK),
    (b"BZh", "packed by bzip2", _UNPACK),
    (b"\xfd7zXZ", "packed by xz", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "packed by zstd", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"Rar!", "a RAR archive", _UNPACK),
    (b"\x89PNG", "a picture", "give a weights file"),
    (b"\xff\xd8\xff", "a picture", "give a weights file"),
    (b"%PDF", "a PDF", "give a weights file"),
    (b"model_checkpoint_path", "a TensorFlow checkpoint", _TO_TORCH),
)
"""First bytes of files that are no weights or of another program: what they are, what to do."""

_ENDINGS: Sequence[tuple[str, str, str]] = (
    (".index.json", "the table of weights in several files", _JOIN),
    (".onnx", "an ONNX graph", "take the weights that it was exported from"),
    (".msgpack", "Flax's msgpack", _TO_TORCH),
    (".tflite", "a TensorFlow Lite graph", _TO_TORCH),
    (".pb", "a TensorFlow graph", _TO_TORCH),
    (".index", "a TensorFlow checkpoint", _TO_TORCH),
    (".meta", "a TensorFlow checkpoint", _TO_TORCH),
    (".h5", "an HDF5 file (Keras, TensorFlow)", _TO_TORCH),
    (".keras", "a Keras model", _TO_TORCH),
    (".gguf", "a GGUF file of llama.cpp", "take the same model's .safetensors"),
    (".pdparams", "a PaddlePaddle file", _TO_TORCH),
    (".mlmodel", "a Core ML model", _TO_TORCH),
    (".engine", "a TensorRT engine", "take the weights that it was built from"),
    (".pt2", "an exported program of torch", "save its state_dict() with torch.save"),
    (".json", "a description in JSON", "give the weights file beside it"),
)
"""Endings of such files."""


def kind_of(path: Path) -> FileKind:
    """The format of a weights file, by its content.

    Raises:
        WeightsError: It is empty, torn, in several parts, or of a format that is not read.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        raise _refused(path, "empty (0 bytes)", "fetch it again")
    if head.startswith(b"PK") and zipfile.is_zipfile(path):
        return _kind_of_archive(path)
    # Before all else: its first bytes are a number, which may look like anything.
    if head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] < 1 << 32:
        return _safetensors(path, head)
    _refuse_known(path, head)
    if head.startswith(b"\x80") and not head.startswith(_LEGACY):
        what = "a pickle that torch.save did not write"
        raise _refused(path, what, "load it where it was made and write it with torch.save")
    # torch before 1.6 wrote pickles one after the other.
    is_torch = head.startswith(_LEGACY) or path.suffix != ".safetensors"
    return FileKind.TORCH if is_torch else FileKind.SAFETENSORS


def _refuse_known(path: Path, head: bytes) -> None:
    for beginning, what, advice in _BEGINNINGS:
        if head.startswith(beginning):
            raise _refused(path, what, advice)
    if head.startswith(b"PK\x03\x04"):
        raise _refused(path, "an archive whose end is missing", "the download broke off: repeat it")
    if head[257:262] == b"ustar":
        raise _refused(path, "a tar archive", _UNPACK)
    if head[4:8] == b"TFL3":
        raise _refused(path, "a TensorFlow Lite graph", _TO_TORCH)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if path.suffix == ".xml":
        raise _refused(path, "an OpenVINO description", _TO_TORCH)
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<error", b"<head")):
        raise _refused(
            path,
            "a web page or an error message of a server",
            "download the weights themselves: the address may ask for a login or a confirmation",
        )
    _refuse_ending(path, text)
    _refuse_text(path, head)


def _refuse_ending(path: Path, text: bytes) -> None:
    name = path.name.lower()
    for ending, what, advice in _ENDINGS:
        if name.endswith(ending):
            raise _refused(path, what, advice)
    if ".data-0000" in name:
        raise _refused(path, "a TensorFlow checkpoint", _TO_TORCH)
    if text.startswith(b"{"):
        what, advice = "text in JSON", "give the weights file beside it"
        is_table = b"weight_map" in text or b"total_size" in text
        raise _refused(path, *((_ENDINGS[0][1], _JOIN) if is_table else (what, advice)))
    if b"onnx" in text[:200] or (text[:1] == b"\x08" and b"\x12\x07pytorch" in text[:64]):
        raise _refused(path, "an ONNX graph", "take the weights that it was exported from")
    if len(text) > 1 and 0x81 <= text[0] <= 0x8F and text[1] in range(0xA1, 0xC0):
        raise _refused(path, "Flax's msgpack", _TO_TORCH)


def _refuse_text(path: Path, head: bytes) -> None:
    if len(head) < _HEAD and head.isascii() and all(c >= 32 or c in b"\t\r\n" for c in head):
        shown = head.decode("ascii").strip()[:60]
        raise WeightsError(
            f"backbone.weights: {path.name} cannot be read as weights: it is text ({shown!r}); "
            "download the weights themselves."
        )


def _safetensors(path: Path, head: bytes) -> FileKind:
    if _PART.search(path.name):
        raise _refused(path, "one of several files", _JOIN)
    size, length = path.stat().st_size, struct.unpack("<Q", head[:8])[0]
    needed = length + 8
    try:
        with path.open("rb") as file:
            table = json.loads(file.read(needed)[8:]) if needed <= min(size, _TABLE) else {}
        offsets = [v["data_offsets"][1] for k, v in table.items() if k != "__metadata__"]
        needed += max(map(int, offsets), default=0)
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError):
        return FileKind.SAFETENSORS  # its own reader says what is wrong
    if needed > size:
        what = f"torn: it has {size:,} of {needed:,} bytes"
        raise _refused(path, what, "the download broke off: repeat it")
    return FileKind.SAFETENSORS


def _kind_of_archive(path: Path) -> FileKind:
    """Of a zip archive: NumPy's, torch's or TorchScript's."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if _PART.search(path.name):
        raise _refused(path, "one of several files", _JOIN)
    inner = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inner:
        return FileKind.TORCHSCRIPT
    if "data.pkl" in inner:
        return FileKind.TORCH
    if names and all(name.endswith(".npy") for name in names):
        return FileKind.NPZ
    if any(name.endswith(".weights.h5") for name in names):
        raise _refused(path, "a Keras model", _TO_TORCH)
    if "archive_format" in inner or any(name.startswith("models/") for name in inner):
        raise _refused(path, _ENDINGS[-2][1], _ENDINGS[-2][2])
    raise _refused(path, "a zip archive without weights in it", _UNPACK)


def _refused(path: Path, what: str, advice: str) -> WeightsError:
    return WeightsError(
        f"backbone.weights: {path.name} is {what}; {advice}. Files that are read: .safetensors, "
        ".pth (tensors only), .npz."
    )
