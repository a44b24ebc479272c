"""Python's pickles, as CIFAR is stored in, read without running what they say.

A pickle is a program that may call any function. Here it finds a few names only, which are
stand-ins for NumPy's: they note what is said of an array, and make nothing.
"""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tcpa_core.errors import DataError

MAX_BYTES = 1 << 30


def read_values(path: Path) -> dict[str, Any]:
    """The dictionary in a pickle, with keys as text; read its values by the functions below.

    Raises:
        DataError: The file is missing, too large, damaged, asks for anything but arrays, texts and
            numbers, or holds no dictionary.
    """
    try:
        size = path.stat().st_size
        if not path.is_file() or size > MAX_BYTES:
            raise DataError(f"{path} must be a file of at most {MAX_BYTES:,} bytes.")
        content = path.read_bytes()
    except FileNotFoundError as err:
        raise DataError(
            f"file {path.name} is missing below {path.parent.absolute()}; unpack its archive again."
        ) from err
    except OSError as err:
        raise DataError(f"{path} cannot be read: {err.strerror}; check its rights.") from err
    try:
        # Bytes: what Python 2 wrote has no encoding.
        found = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as err:  # of every kind on damaged bytes
        raise DataError(
            f"{path} is damaged, or no file of arrays, texts and numbers ({err}); restore it."
        ) from err
    if not isinstance(found, dict):
        raise DataError(f"{path} must hold a dictionary, got a {type(found).__name__}.")
    return {_text(key): value for key, value in found.items()}


def value_of(path: Path, held: dict[str, Any], key: str) -> Any:
    """What stands under a key.

    Raises:
        DataError: There is no such key.
    """
    if key not in held:
        raise DataError(f"{path} has no {key!r}, it has {sorted(held)[:10]}; it is another file.")
    return held[key]


def pictures_of(path: Path, value: Any, width: int) -> npt.NDArray[np.uint8]:
    """An array of bytes [n, width].

    Raises:
        DataError: It is none.
    """
    found = _array(value)
    if found is None or found.dtype != np.uint8 or found.ndim != 2 or found.shape[1] != width:
        got = "none" if found is None else f"{found.dtype} of shape {found.shape}"
        raise DataError(
            f"{path}: pictures must be an array of bytes of shape (n, {width}), got {got}; restore "
            "the file."
        )
    return found


def names_of(path: Path, value: Any) -> tuple[str, ...]:
    """A list of names.

    Raises:
        DataError: It is none.
    """
    if not isinstance(value, list) or not all(isinstance(one, str | bytes) for one in value):
        raise DataError(f"{path}: class names must be a list of texts; restore the file.")
    return tuple(map(_text, value))


def numbers_of(path: Path, value: Any) -> tuple[int, ...]:
    """A list or array of whole numbers.

    Raises:
        DataError: It is none.
    """
    found = _array(value)
    values = value if found is None else found.ravel().tolist()
    if not isinstance(values, list) or not all(type(one) is int for one in values):
        raise DataError(f"{path}: labels must be a list of whole numbers; restore the file.")
    return tuple(values)


def _text(value: object) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def _array(value: Any) -> npt.NDArray[Any] | None:
    """The array that a stand-in notes; None: there is none, or it contradicts itself."""
    content, shape = getattr(value, "content", None), getattr(value, "shape", None)
    if not isinstance(content, bytes) or getattr(value, "dtype", None) not in ("u1", "i4", "i8"):
        return None
    try:
        return np.frombuffer(content, value.dtype).reshape(shape, order=value.order)
    except (TypeError, ValueError):
        return None


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        # Made anew for each name: a pickle may also set attributes of what it is given.
        known = _stand_ins().get((module.replace("numpy._core", "numpy.core"), name))
        if known is None:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return known


def _stand_ins() -> dict[tuple[str, str], Any]:
    class Array:
        content = shape = dtype = None
        order = "C"

        def __setstate__(self, state: tuple[Any, ...]) -> None:
            self.shape, self.dtype = state[1], getattr(state[2], "name", None)
            self.order = "F" if state[3] else "C"
            self.content = state[4]

    class Dtype:
        def __init__(self, name: object, *rest: object) -> None:
            self.name = _text(name)

        def __setstate__(self, state: object) -> None:
            pass  # a byte order, which is this machine's for all that is read here

    def from_buffer(buffer: bytes, dtype: object, shape: object, order: object) -> Array:
        found = Array()
        found.__setstate__((1, shape, dtype, order == "F", bytes(memoryview(buffer))))
        return found

    return {
        ("numpy", "ndarray"): Array,
        ("numpy", "dtype"): Dtype,
        ("numpy.core.multiarray", "_reconstruct"): lambda *args: Array(),
        ("numpy.core.multiarray", "scalar"): lambda dtype, content: int.from_bytes(
            content, "little", signed=dtype.name[0] == "i"
        ),
        ("numpy.core.numeric", "_frombuffer"): from_buffer,
        ("_codecs", "encode"): lambda text, codec: text.encode("latin1"),  # bytes for Python 2
    }
