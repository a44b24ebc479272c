"""Classify or segment pictures with a trained trial: what was said of each, and how often it was
right."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from search.driver.placement import DeviceKind
from search.verbs.mask_files import MaskFiles
from search.verbs.stages import Stages
from search.verbs.trained import Source
from tcpa_core.data.base import SUFFIXES
from tcpa_core.errors import ConfigError, DataError, not_written
from tcpa_core.training.known_masks import FoundMasks, KnownMasks
from tcpa_core.training.trained import TrainedModel, load_trained

SHOWN = 20
"""Pictures that the terminal shows; --csv has all."""
NAMED = 5
"""Pictures that cannot be read that are named one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One picture."""

    path: Path
    top: Sequence[tuple[str, float]] = ()
    """Likeliest classes and their probabilities; of a segmentation the largest ones and their
    shares of its pixels."""
    truth: str = ""
    """Class whose folder it lies in; "": none. Of a segmentation the file of its mask."""
    error: str = ""
    """Why it cannot be read; "": it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What comes out."""

    csv_file: Path | None = None
    """Where all rows are written."""
    masks: Path | None = None
    """Folder for the masks of a segmentation."""
    top: int = 5
    """Classes named for each picture."""


def predict(
    source: Source,
    console: Console,
    wanted: Wanted,
    *,
    device: DeviceKind = "auto",
    weights: Path | None = None,
    grey_bits: int | None = None,
) -> int:
    """Classify or segment pictures and print or write what came out.

    A picture that cannot be read is named; the others go on.

    Args:
        source: The trial, and the files and folders with pictures behind it.
        wanted: What is shown or written.

    Returns:
        0, or 1 where pictures could not be read.

    Raises:
        ConfigError: There are no pictures, or there is no such device, or masks are asked of a
            trial that classifies.
        TcpaError: The trial cannot be loaded.
    """
    pictures = _pictures(source.rest)
    if wanted.csv_file is not None:
        _check_place(wanted.csv_file)
    place = None if device == "auto" else device
    model = load_trained(source.path, device=place, weights=weights, grey_bits=grey_bits)
    said = _Segmenting(model, pictures, wanted) if model.segments else _Classifying(model, wanted)
    with Stages(said.doing) as stages:
        rows = []
        for row in said.rows(pictures):
            rows.append(row)
            stages(said.stage, len(rows), len(pictures))
    if wanted.csv_file is not None:
        _write(wanted.csv_file, rows, said.columns)
    for line in (*_shown(rows, wanted.csv_file), *said.scores(rows)):
        console.print(line, markup=False, soft_wrap=True)
    broken = [row for row in rows if row.error]
    for line in _complaints(broken):
        Console(stderr=True).print(line, markup=False, soft_wrap=True)
    return 1 if broken else 0


def _check_place(file: Path) -> None:
    """Refuse a place for the table before anything is computed."""
    if not file.absolute().parent.is_dir():
        raise ConfigError(f"--csv: {file.absolute().parent} is no folder; make it first.")
    if file.is_dir():
        raise ConfigError(f"--csv: {file} is a folder; name a file in it.")


def _pictures(places: Sequence[str]) -> list[Path]:
    """Files, and of folders all pictures in them and below."""
    found: list[Path] = []
    for place in map(Path, places):
        if not place.exists():
            raise ConfigError(f"no file or folder {str(place)!r}; correct the path.")
        inside = sorted(place.rglob("*")) if place.is_dir() else [place]
        found += [p for p in inside if p == place or p.suffix.lower() in SUFFIXES]
    if not found:
        where = ", ".join(places) or "what was given"
        raise ConfigError(
            f"no pictures in {where}; give files or a folder, after STUDY TRIAL or an exported "
            "folder."
        )
    return found


class _Classifying:
    """A class for each picture."""

    doing, stage = "classifying", "classify pictures"

    def __init__(self, model: TrainedModel, wanted: Wanted) -> None:
        if wanted.masks is not None:
            raise ConfigError(
                f"--masks {wanted.masks}: the trial gives pictures a class and has no masks "
                "(task.name=classify); leave it out."
            )
        self._model, self._top = model, wanted.top
        ranks = _ranks(min(wanted.top, len(model.class_names)))
        self.columns = [*(f"{n}{r}" for r in ranks for n in ("class", "probability")), "folder"]

    def rows(self, pictures: Sequence[Path]) -> Iterator[Row]:
        """What is said of each."""
        names = set(self._model.class_names)
        found = self._model.predict_each(pictures, top=self._top)
        for path, said in zip(pictures, found, strict=True):
            truth = path.absolute().parent.name
            truth = truth if truth in names else ""
            if isinstance(said, DataError):
                yield Row(path=path, truth=truth, error=str(said))
            else:
                yield Row(path=path, truth=truth, top=said)

    def scores(self, rows: Sequence[Row]) -> Iterator[str]:
        """The accuracy, where folders are named like classes."""
        known = [row for row in rows if row.truth and not row.error]
        if known:
            right = sum(row.top[0][0] == row.truth for row in known)
            of = (
                "" if len(known) == len(rows) else f" of {len(rows):,}, those in folders of a class"
            )
            yield f"accuracy {right / len(known):.4f} ({right:,} of {len(known):,} pictures{of})"


class _Segmenting:
    """A class for each pixel."""

    doing, stage = "segmenting", "segment pictures"

    def __init__(self, model: TrainedModel, pictures: Sequence[Path], wanted: Wanted) -> None:
        self._model, self._top = model, min(wanted.top, len(model.class_names))
        self._files = MaskFiles(wanted.masks, pictures)
        self._known = KnownMasks(model.config.data, model.class_names)
        self._found = FoundMasks(self._known, len(model.class_names))
        self.columns = [*(f"{n}{r}" for r in _ranks(self._top) for n in ("class", "share")), "mask"]

    def rows(self, pictures: Sequence[Path]) -> Iterator[Row]:
        """What is found in each; its mask is written."""
        for path, mask in zip(pictures, self._model.masks_each(pictures), strict=True):
            if isinstance(mask, DataError):
                yield Row(path=path, error=str(mask))
                continue
            place = self._files.write(path, mask)
            top = self._model.largest(mask, self._top)
            try:
                self._found.add(path, mask)
            except DataError as err:
                yield Row(path=path, top=top, truth=place, error=str(err))
            else:
                yield Row(path=path, top=top, truth=place)

    def scores(self, rows: Sequence[Row]) -> Iterator[str]:
        """Where masks are, and what they are worth where the pictures' own are beside."""
        if self._files.folder is not None:
            written = sum(bool(row.truth) for row in rows)
            yield f"{written:,} masks: {self._files.folder}"
        yield from self._known.notes
        if self._found.pictures:
            found, count = self._found.scores, self._found.pictures
            of = "" if count == len(rows) else f" of {len(rows):,}"
            which = ", those with a mask beside" if of else ""
            yield (
                f"mIoU {found.miou:.4f}, mean accuracy {found.mean_accuracy:.4f}, pixels right "
                f"{found.accuracy:.4f} ({count:,}{of} pictures{which})"
            )


def _ranks(count: int) -> list[str]:
    """What is behind the name of a column: nothing for the first of so many, then _2, ..."""
    return ["", *(f"_{rank}" for rank in range(2, count + 1))]


def _shown(rows: Sequence[Row], csv_file: Path | None) -> Iterator[str]:
    read = [row for row in rows if row.top]
    if csv_file is not None:
        yield f"{len(rows):,} pictures: {csv_file}"
        return
    for row in read[:SHOWN]:
        best = ", ".join(f"{name} {value:.3f}" for name, value in row.top)
        yield f"{row.path}: {best}"
    if len(read) > SHOWN:
        yield f"... and {len(read) - SHOWN:,} more; --csv FILE writes all."


def _complaints(broken: Sequence[Row]) -> Iterator[str]:
    for row in broken[:NAMED]:
        yield f"not read: {row.error}"
    if len(broken) > NAMED:
        yield f"not read: {len(broken) - NAMED:,} more"


def _write(file: Path, rows: Sequence[Row], columns: Sequence[str]) -> None:
    """All rows as CSV; an earlier file stays whole until then.

    Args:
        columns: Names of `Row.top`, two for each class, and of `Row.truth`.

    Raises:
        ConfigError, StorageError: It cannot be written, or not where it is.
    """
    # What is no plain file (/dev/null, a pipe, a link to a file) is written into: a rename would
    # put a file into its place.
    is_plain = not file.is_symlink() and (file.is_file() or not file.exists())
    temporary = file.with_name(f".{file.name}.part") if is_plain else file
    try:
        with temporary.open("w", newline="", encoding="utf-8") as stream:
            table = csv.writer(stream)
            table.writerow(["path", *columns, "error"])
            for row in rows:
                cells = [cell for name, value in row.top for cell in (name, f"{value:.6f}")]
                cells += [""] * (len(columns) - 1 - len(cells))
                table.writerow([row.path, *cells, row.truth, row.error])
        if is_plain:
            temporary.replace(file)
    except OSError as err:
        raise not_written(f"--csv: {file}", err) from err
