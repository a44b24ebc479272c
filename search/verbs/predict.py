"""Classify pictures with a trained trial: what was said of each, and how often it was right."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from search.driver.placement import DeviceKind
from search.verbs.stages import Stages
from search.verbs.trained import Source
from tcpa_core.data.base import SUFFIXES
from tcpa_core.errors import ConfigError, DataError, not_written
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
    """Likeliest classes and their probabilities."""
    truth: str = ""
    """Class whose folder it lies in; "": none."""
    error: str = ""
    """Why it cannot be read; "": it was."""


def predict(
    source: Source,
    console: Console,
    *,
    csv_file: Path | None = None,
    top: int = 5,
    device: DeviceKind = "auto",
    weights: Path | None = None,
    grey_bits: int | None = None,
) -> int:
    """Classify pictures and print or write what came out.

    A picture that cannot be read is named; the others go on.

    Args:
        source: The trial, and the files and folders with pictures behind it.
        csv_file: Where all rows are written.
        top: Classes named for each picture.

    Returns:
        0, or 1 where pictures could not be read.

    Raises:
        ConfigError: There are no pictures, or there is no such device.
        TcpaError: The trial cannot be loaded.
    """
    pictures = _pictures(source.rest)
    if csv_file is not None:
        _check_place(csv_file)
    place = None if device == "auto" else device
    model = load_trained(source.path, device=place, weights=weights, grey_bits=grey_bits)
    with Stages("classifying") as stages:
        rows = []
        for row in _rows(model, pictures, top):
            rows.append(row)
            stages("classify pictures", len(rows), len(pictures))
    if csv_file is not None:
        _write(csv_file, rows, min(top, len(model.class_names)))
    for line in _report(rows, csv_file):
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


def _rows(model: TrainedModel, pictures: Sequence[Path], top: int) -> Iterator[Row]:
    names = set(model.class_names)
    for path, said in zip(pictures, model.predict_each(pictures, top=top), strict=True):
        truth = path.absolute().parent.name
        truth = truth if truth in names else ""
        if isinstance(said, DataError):
            yield Row(path=path, truth=truth, error=str(said))
        else:
            yield Row(path=path, truth=truth, top=said)


def _report(rows: Sequence[Row], csv_file: Path | None) -> Iterator[str]:
    read = [row for row in rows if not row.error]
    if csv_file is None:
        for row in read[:SHOWN]:
            best = ", ".join(f"{name} {value:.3f}" for name, value in row.top)
            yield f"{row.path}: {best}"
        if len(read) > SHOWN:
            yield f"... and {len(read) - SHOWN:,} more; --csv FILE writes all."
    else:
        yield f"{len(rows):,} pictures: {csv_file}"
    known = [row for row in read if row.truth]
    if known:
        right = sum(row.top[0][0] == row.truth for row in known)
        of = "" if len(known) == len(rows) else f" of {len(rows):,}, those in folders of a class"
        yield f"accuracy {right / len(known):.4f} ({right:,} of {len(known):,} pictures{of})"


def _complaints(broken: Sequence[Row]) -> Iterator[str]:
    for row in broken[:NAMED]:
        yield f"not read: {row.error}"
    if len(broken) > NAMED:
        yield f"not read: {len(broken) - NAMED:,} more"


def _write(file: Path, rows: Sequence[Row], top: int) -> None:
    """All rows as CSV; an earlier file stays whole until then.

    Raises:
        ConfigError, StorageError: It cannot be written, or not where it is.
    """
    ranks = ["", *(f"_{rank}" for rank in range(2, top + 1))]
    header = ["path", *(f"{name}{rank}" for rank in ranks for name in ("class", "probability"))]
    # What is no plain file (/dev/null, a pipe, a link to a file) is written into: a rename would
    # put a file into its place.
    is_plain = not file.is_symlink() and (file.is_file() or not file.exists())
    temporary = file.with_name(f".{file.name}.part") if is_plain else file
    try:
        with temporary.open("w", newline="", encoding="utf-8") as stream:
            table = csv.writer(stream)
            table.writerow([*header, "folder", "error"])
            for row in rows:
                cells = [cell for name, value in row.top for cell in (name, f"{value:.6f}")]
                cells += [""] * (2 * top - len(cells))
                table.writerow([row.path, *cells, row.truth, row.error])
        if is_plain:
            temporary.replace(file)
    except OSError as err:
        raise not_written(f"--csv: {file}", err) from err
