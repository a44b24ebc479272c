"""Masks: which class each pixel of a picture has, from what a file's values or colours mean."""

# Axes: h, w of a mask as it lies in its file.

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from tcpa_core.data._decode import Pixels, is_deep, open_header
from tcpa_core.data._formats import unread
from tcpa_core.errors import DataError

IGNORED = 255
"""Value of a pixel without a class, in all masks that were read."""
REFUSED = -1
MOST_CLASSES = 254
"""With 0 for nothing and 255 for ignored in a file, as ADE20K counts."""
LOSSLESS = ("PNG", "BMP", "GIF", "TIFF", "PPM")
"""Formats whose values are those that were written."""
VOID = ("void", "unlabelled", "unlabeled", "ignore", "ignored")
"""What lists of classes call the value of pixels without one."""
_SHOWN = 5

Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class MaskValues:
    """What is in the mask files of a data set."""

    table: tuple[int, ...]
    """Of each value 0 to 255: a class, `IGNORED` or `REFUSED`."""
    says: str
    """The same in words: "0 to 10 are the classes of classes.txt"."""
    colours: tuple[tuple[Colour, int], ...] = ()
    """Class or `IGNORED` of each colour, where masks are painted; then `table` is not used."""

    @property
    def key(self) -> str:
        """What masks that were read depend on, beside their files."""
        return json.dumps([self.table, self.colours])


def counted_values(
    names: Sequence[str], source: str, *, first: int = 0, ignore: Collection[int] = ()
) -> tuple[tuple[str, ...], MaskValues]:
    """Values that count classes from 0, or from 1 where 0 means no class.

    Args:
        names: Of the values from `first` on, up to `MOST_CLASSES`.
        source: What says so.
        first: 1: 0 has no class (ADE20K).
        ignore: Values without a class, beside 255. So are those that are named after that (`VOID`).

    Returns:
        Names of the classes, and what the values mean.
    """
    nothing = {IGNORED, *ignore, *range(first)}
    table = [IGNORED if value in nothing else REFUSED for value in range(256)]
    classes: list[str] = []
    for value, name in enumerate(names, first):
        if name.strip().lower() in VOID:
            table[value] = IGNORED
        elif value not in nothing:
            table[value] = len(classes)
            classes.append(name)
    used = [value for value in range(256) if table[value] not in (IGNORED, REFUSED)]
    ignored = [value for value in range(256) if table[value] == IGNORED]
    says = (
        f"by {source} {_spans(used)} {'are' if len(used) > 1 else 'is'} "
        f"{_number(len(used))} and {_spans(ignored)} {'mean' if len(ignored) > 1 else 'means'} none"
    )
    return tuple(classes), MaskValues(tuple(table), says)


def listed_values(class_of: Mapping[int, int], last: int, source: str) -> MaskValues:
    """Values of which some have a class and the others up to `last`, and 255, none."""
    table = [class_of.get(v, IGNORED if v <= last or v == 255 else REFUSED) for v in range(256)]
    says = f"by {source} {_spans(sorted(class_of))} are {_number(len(class_of))} and the others"
    return MaskValues(tuple(table), f"{says} up to {last} mean none")


def painted_values(colours: Mapping[Colour, int], source: str) -> MaskValues:
    """Colours, each of which is a class or `IGNORED`."""
    says = f"the {len(colours)} of {source}"
    return MaskValues((REFUSED,) * 256, says, tuple(sorted(colours.items())))


def read_mask(data: bytes, place: str, values: MaskValues) -> Pixels:
    """Classes of a mask file's pixels.

    Args:
        data: Content of the file.
        place: Its path, for messages.
        values: What its values mean.

    Returns:
        uint8 [h, w]: a class, or `IGNORED`.

    Raises:
        DataError: Not a lossless image, damaged, too large, of a kind that holds no classes (16
            bits, alpha, colours where none are listed), or with a value that is no class.
    """
    try:
        image = open_header(data, place)
        _check_format(image, place)
        image.load()
    except DataError:
        raise
    except UnidentifiedImageError as err:
        raise DataError(f"mask {place}: {unread(data)}.") from err
    except Exception as err:  # Pillow's parsers raise of every kind on damaged bytes
        raise DataError(f"mask {place} is damaged or truncated ({err}); restore the file.") from err
    return _painted(image, place, values) if values.colours else _valued(image, place, values)


def _check_format(image: Image.Image, place: str) -> None:
    if image.format not in LOSSLESS:
        raise DataError(
            f"mask {place} is a {image.format} file, whose values are not those that were written "
            "(lossy compression); take the mask as PNG."
        )
    if is_deep(image) or image.mode in ("I", "F", "LAB"):
        raise DataError(
            f"mask {place} has pixels of mode {image.mode!r} (16 bits or more, or float), but a "
            "class is a number of 8 bits; save the classes as 8-bit grey PNG, 255 for none."
        )
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa"):
        raise DataError(
            f"mask {place} has an alpha channel (mode {image.mode!r}), which is no class; save it "
            "as 8-bit grey or as PNG with a palette."
        )


def _valued(image: Image.Image, place: str, values: MaskValues) -> Pixels:
    if image.mode not in ("1", "L", "P"):
        raise DataError(
            f"mask {place} has colours (mode {image.mode!r}) where one number per pixel is needed; "
            "list the colours in class_dict.csv in data.root (a line 'name,r,g,b' for each class), "
            "or save the classes as 8-bit grey PNG."
        )
    stored = np.asarray(image).astype(np.uint8)
    found = np.array(values.table, np.int16)[stored]
    if (found == REFUSED).any():
        wrong = stored[found == REFUSED]
        row, column = np.argwhere(found == REFUSED)[0]
        raise DataError(
            f"mask {place} has {_joined(np.unique(wrong).tolist(), 'and')} at {len(wrong):,} of "
            f"{found.size:,} pixels, first in row {row}, column {column}, but {values.says}; "
            "correct data.num_classes or the list of classes, or name values without a class in "
            f"data.ignore.{_hint(stored, values)}"
        )
    return found.astype(np.uint8)


def _hint(stored: Pixels, values: MaskValues) -> str:
    used = np.unique(stored)
    beyond = [value for value in used if values.table[value] == REFUSED]
    if values.table[0] == 0 and used[0] > 0 and beyond == [1 + max(_classes(values))]:
        return (
            " It seems to count from 1; set data.reduce_zero_label=true if 0 stands for no class."
        )
    if len(used) == 2 and used[0] == 0:
        return f" 0 and {used[1]} look like a mask of two classes that is to be written as 0 and 1."
    return ""


def _classes(values: MaskValues) -> list[int]:
    """Values that are classes."""
    return [v for v, number in enumerate(values.table) if number not in (IGNORED, REFUSED)]


def _painted(image: Image.Image, place: str, values: MaskValues) -> Pixels:
    pixels = np.asarray(image.convert("RGB")).astype(np.int64)
    codes = _code(pixels)
    known = _code(np.array([colour for colour, _ in values.colours], np.int64))
    classes = np.array([number for _, number in values.colours], np.uint8)
    order = np.argsort(known)
    at = np.searchsorted(known[order], codes).clip(max=len(known) - 1)
    lost = known[order][at] != codes
    if lost.any():
        row, column = np.argwhere(lost)[0]
        raise DataError(
            f"mask {place} has colour {tuple(pixels[row, column].tolist())} in row {row}, column "
            f"{column} and at {int(lost.sum()):,} pixels a colour that is none of {values.says}; "
            "add it there, or take the mask as it was before it was scaled or compressed."
        )
    return np.asarray(classes[order][at])


def _code(pixels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """One number of a colour [..., 3]."""
    return pixels @ np.array([1 << 16, 1 << 8, 1])


def _joined(numbers: Sequence[int], word: str) -> str:
    """ "3, 4 and 7", the first few."""
    shown = [str(number) for number in numbers[:_SHOWN]]
    if len(numbers) > _SHOWN:
        return f"{', '.join(shown)} {word} {len(numbers) - _SHOWN} more"
    return f" {word} ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def _spans(numbers: Sequence[int]) -> str:
    """ "0 to 10, 12 and 255"."""
    parts: list[str] = []
    start = 0
    for end in range(1, len(numbers) + 1):
        if end == len(numbers) or numbers[end] != numbers[end - 1] + 1:
            low, high = numbers[start], numbers[end - 1]
            parts.append(str(low) if low == high else f"{low} to {high}")
            start = end
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _number(classes: int) -> str:
    return "one class" if classes == 1 else f"{classes} classes"


def nearest(mask: Pixels, width: int, height: int) -> Pixels:
    """A mask in another size: the value whose pixel has the centre of the new one."""
    if mask.shape == (height, width):
        return mask
    rows, columns = (
        (2 * np.arange(to) + 1) * size // (2 * to)
        for size, to in zip(mask.shape, (height, width), strict=True)
    )
    return mask[rows[:, None], columns]
