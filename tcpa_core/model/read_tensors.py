"""Tensors of a weights file as they stand in it, with nothing of the file run.

A torch file is a pickle. torch's own restricted reader takes it apart; what is no tensor (options
of a training program, counters) becomes an empty object, whatever class it asks for. A TorchScript
archive is the same pickle beside code, and is read without the code.
"""

import io
import pickletools
import re
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from tcpa_core.errors import WeightsError
from tcpa_core.model.file_kinds import FileKind, kind_of

State = dict[str, Tensor]

_WRAPPERS = (
    "model", "state_dict", "teacher", "student", "encoder", "state_dict_ema", "model_ema",
    "ema_state_dict", "ema", "model_state_dict", "model_state", "network", "net", "params_ema",
    "params", "module", "target_encoder", "backbone", "visual", "vit", "weights",
)  # fmt: skip
"""Keys under which torch files keep the tensors; of several the first is read."""
_ROUND_ABOUT = 4
"""How deep such keys stand in each other at most."""

_KNOWN = (
    "collections.OrderedDict", "collections.Counter", "_codecs.encode", "builtins.bytearray",
    "builtins.complex", "builtins.set",
)  # fmt: skip
"""What torch's reader takes of Python."""
_CONTAINERS = ("builtins.dict", "collections.defaultdict")
_VALUES = (
    "argparse.Namespace", "builtins.float", "builtins.frozenset", "builtins.int", "builtins.list",
    "builtins.slice", "builtins.str", "builtins.tuple",
    "datetime.date", "datetime.datetime", "datetime.timedelta", "datetime.timezone",
    "decimal.Decimal", "fractions.Fraction", "functools.partial", "pathlib.Path",
    "pathlib.PosixPath", "pathlib.PurePosixPath", "pathlib.WindowsPath",
    "pathlib._local.PosixPath", "pathlib._local.PurePosixPath", "types.SimpleNamespace",
    "typing.Any", "uuid.UUID",
)  # fmt: skip
"""Classes of Python that options are kept in. Whatever else of Python a file asks for could only
be meant to be run."""
_MODULES = ("torch.nn.modules.", "torch.nn.parallel.", "torch.fx.", "torch.ao.")
"""Beginnings of class names of networks, which a file has where the whole program was saved, or
where options name a class."""


class _Object:
    """Takes the place of an object that is no tensor: nothing of its class is run."""

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class _Mapping:
    """As above, of an object that may have items: torch's reader gives them to plain dicts only.
    What else it holds stands in the dict's own attributes."""

    def __new__(cls, *args: object) -> OrderedDict[Any, Any]:  # type: ignore[misc]
        return OrderedDict()


@dataclass(frozen=True, slots=True)
class Tensors:
    """What was found in a file."""

    state: State
    wrapper: tuple[str, ...] = ()
    """Keys that the tensors stood under, from the outside."""
    beside: tuple[str, ...] = ()
    """Keys beside the last of them under which tensors stand too, which are not read."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Of a .safetensors file."""


def read_tensors(path: Path) -> Tensors:
    """Read .safetensors, .npz, a torch file or a TorchScript archive without running its code.

    Raises:
        WeightsError: It is none of them, or cannot be read.
    """
    try:
        if zipfile.is_zipfile(path):  # before anything unpacks it
            _refuse_bomb(path)
        kind = kind_of(path)
        if kind is FileKind.SAFETENSORS:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
            _refuse_trial(metadata, path)
            return Tensors(load_file(path), metadata=metadata)
        if kind is FileKind.NPZ:
            with np.load(path, allow_pickle=False) as arrays:
                _refuse_unnamed(arrays, path)
                # Integers are counters of steps, no weights.
                found = {k: torch.from_numpy(v) for k, v in arrays.items() if v.dtype.kind == "f"}
                return Tensors(found)
        if kind is FileKind.TORCHSCRIPT:
            return Tensors(_flat(vars(_load(_without_code(path), path))))
        return _unwrapped(_load(path, path), path)
    except WeightsError:
        raise
    except Exception as err:  # what parsers raise on foreign bytes is of every kind
        raise WeightsError(
            f"backbone.weights: {path.name} cannot be read as weights ({type(err).__name__}); "
            "give a whole .safetensors, .pth (tensors only) or .npz file."
        ) from err


def some(names: object) -> str:
    """The first three of some names, sorted."""
    listed = sorted(names)  # type: ignore[call-overload]
    return ", ".join(listed[:3]) + (", ..." if len(listed) > 3 else "") if listed else "none"


def _load(source: Path | io.BytesIO, path: Path) -> Any:
    """What the pickle of a torch file holds: tensors and plain values, else stand-ins."""
    asked = _classes(source)
    if isinstance(source, io.BytesIO):
        source.seek(0)
    modules = {name for name in asked if name.startswith(_MODULES)}
    options = {name for name in asked if name.startswith("torch.optim.")}
    known = {name for name in asked if name in _KNOWN or name.startswith("torch.")}
    known -= modules | options
    values = {name for name in asked if name in _VALUES or _is_number(name)} | options
    mappings = {name for name in asked if name in _CONTAINERS or not _is_of_python(name)} | modules
    code = sorted(asked - known - values - mappings)
    if code:
        raise WeightsError(
            f"backbone.weights: {path.name} cannot be read as weights (UnpicklingError): it asks "
            f"for {some(code)} to be run, which tensors do not need. Where it was made, save them "
            "alone: torch.save(model.state_dict(), 'weights.pth')."
        )
    allowed: list[Any] = [(_Object, name) for name in values]
    allowed += [(_Mapping, name) for name in mappings - values - known]
    try:
        # Opened here: of a path torch takes the ending for the format.
        with source if isinstance(source, io.BytesIO) else source.open("rb") as file:
            with torch.serialization.safe_globals(allowed):
                return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as err:
        if modules:  # more than the stand-ins can take: a network and what it consists of
            raise _whole(path, min(modules)) from err
        raise


def _refuse_trial(metadata: Mapping[str, str], path: Path) -> None:
    if "tcpa" in metadata:  # as `tcpa_core.training.checkpoint` writes it
        raise WeightsError(
            f"backbone.weights: {path.name} is the checkpoint of a trial, which holds what was "
            "trained and not the network; tcpa_core.load_trained(path) reads it."
        )


def _whole(path: Path, what: str) -> WeightsError:
    return WeightsError(
        f"backbone.weights: {path.name} holds a pickled model and not its tensors ({what}), and to "
        "read that would run its code; where it was made, save the tensors: "
        "torch.save(model.state_dict(), 'weights.pth')."
    )


def _refuse_unnamed(arrays: Mapping[str, Any], path: Path) -> None:
    """NumPy writes formats that it has no name for as bytes without a meaning."""
    unnamed = [key for key, value in arrays.items() if value.dtype.kind == "V"]
    if unnamed:
        raise WeightsError(
            f"backbone.weights: {path.name} holds {len(unnamed)} arrays in a format that NumPy has "
            f"no name for, such as bfloat16 ({some(unnamed)}); export them as float32 or float16."
        )


def _is_of_python(name: str) -> bool:
    """Whether a name is of Python itself, where what is no data is code."""
    return name.partition(".")[0] in sys.stdlib_module_names


def _is_number(name: str) -> bool:
    """Whether a name is of NumPy's numbers, or of TorchScript's lists of numbers."""
    numbers = r"numpy\.(_?core\.multiarray\.|dtype|ndarray$|random\.)|torch\.jit\._pickle\."
    return re.match(numbers, name) is not None


def _classes(source: Path | io.BytesIO) -> set[str]:
    """Names of all classes and functions that the pickle asks for."""
    if isinstance(source, Path) and not zipfile.is_zipfile(source):
        with source.open("rb") as file:
            return set(_asked(file, 4))  # mark, protocol, machine, and the tensors' tree
    with zipfile.ZipFile(source) as archive:
        (name,) = (n for n in archive.namelist() if n.partition("/")[2] == "data.pkl")
        return set(_asked(io.BytesIO(archive.read(name)), 1))


def _asked(file: Any, num_pickles: int) -> Iterator[str]:
    for _ in range(num_pickles):
        for operation, argument, _ in pickletools.genops(file):
            if operation.name == "GLOBAL":
                yield str(argument).replace("__builtin__ ", "builtins ").replace(" ", ".")


def _without_code(path: Path) -> io.BytesIO:
    """A TorchScript archive as torch.save would have written its tensors."""
    copy = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(copy, "w") as tensors:
        for member in archive.infolist():
            inner = member.filename.partition("/")[2]
            if inner in ("data.pkl", "byteorder", "version") or inner.startswith(
                ("data/", ".data/")
            ):
                tensors.writestr(member.filename, archive.read(member))
    copy.seek(0)
    return copy


def _flat(tree: Mapping[str, Any], prefix: str = "") -> State:
    """Tensors of a tree of modules by dotted names."""
    found: State = {}
    for key, value in tree.items():
        if isinstance(value, Tensor):
            found[f"{prefix}{key}"] = _plain(value)
        elif type(value) is OrderedDict:
            found |= _flat(vars(value), f"{prefix}{key}.")
    return found


def _unwrapped(loaded: Any, path: Path) -> Tensors:
    """The mapping of tensors in a torch file, and the keys that it stood under."""
    wrapper: list[str] = []
    beside: list[str] = []
    if _is_network(loaded):
        raise _whole(path, "no mapping of names to tensors")
    if not isinstance(loaded, Mapping):
        raise WeightsError(
            f"backbone.weights: {path.name} cannot be read as weights: it holds a "
            f"{type(loaded).__name__} and no mapping of names to tensors; save the network's "
            "state_dict()."
        )
    for _ in range(_ROUND_ABOUT):
        inner = [key for key in _WRAPPERS if isinstance(loaded.get(key), Mapping)]
        networks = [key for key in inner if _is_network(loaded[key])]
        if networks:
            raise _whole(path, f"under {networks[0]}")
        if not inner:
            break
        wrapper.append(inner[0])
        beside = [key for key in inner[1:] if _has_tensors(loaded[key])]
        loaded = loaded[inner[0]]
    tensors = {k: _plain(v) for k, v in loaded.items() if isinstance(v, Tensor)}
    if not all(isinstance(key, str) for key in tensors):
        raise TypeError("names of tensors are text")
    if {"state", "param_groups"} <= loaded.keys():
        raise WeightsError(
            f"backbone.weights: {path.name} holds the state of an optimiser; give the file with "
            "the network's weights."
        )
    if not tensors and loaded:
        raise WeightsError(
            f"backbone.weights: {path.name} has no tensors but under its keys "
            f"{some(map(str, loaded))}; they are read where they stand alone or under "
            f"{', '.join(_WRAPPERS)}."
        )
    return Tensors(tensors, tuple(wrapper), tuple(beside))


def _is_network(found: object) -> bool:
    """Whether a mapping is the stand-in of a network of torch."""
    return type(found) is OrderedDict and "_modules" in vars(found)


def _has_tensors(found: Mapping[Any, Any]) -> bool:
    return any(isinstance(value, Tensor | Mapping) for value in found.values())


def _refuse_bomb(path: Path) -> None:
    """Weights hardly shrink: an archive that grows a hundredfold is meant to fill the memory."""
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > 100 * path.stat().st_size:
        raise ValueError(f"{unpacked} bytes packed into {path.stat().st_size}")


def _plain(tensor: Tensor) -> Tensor:
    """The tensor, if its numbers stand in the file: not sparse, and not a few shown as many."""
    if tensor.is_quantized:
        return tensor.int_repr()  # codes, which are refused by name
    if tensor.layout != torch.strided or tensor.device.type != "cpu":
        raise ValueError(f"a {tensor.layout} tensor on {tensor.device}")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError(f"shape {tuple(tensor.shape)} of fewer numbers")
    return tensor
