"""The figures of a report: found by file name, and drawn only where they would look different.

Drawing takes most of a report's time, and a running study's report is made again and again. So each
figure keeps the numbers it shows, and these are compared before anything is drawn.
"""

import base64
import traceback
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pyarrow as pa

from reports.frames import Frames
from reports.parquet import write_atomic
from reports.plots import base
from reports.plots.base import DOTS, FORMATS, KINDS, PLOTS, STYLE, save
from tcpa_core import plugins
from tcpa_core.errors import PluginError, StudyError

NEW_POINTS = 0.01
"""Share of new points that a running study's figure of thousands of points may lack."""
Outline = Callable[[pd.DataFrame], pd.DataFrame]
"""From the data of a figure to its lines, limits and legend: all but the single points."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A figure of the page, or the sentence that stands in its place."""

    name: str
    title: str
    path: Path | None
    """Without suffix."""
    sentence: str = ""
    is_wide: bool = False
    """Two columns of a paper instead of one."""
    says: str = ""
    """What there is to see in it."""
    is_broken: bool = False
    """Whether its file, not the study, is why it is not drawn."""

    @property
    def image(self) -> str:
        """The SVG as an address that needs no file."""
        assert self.path is not None
        data = self.path.with_suffix(".svg").read_bytes()
        return "data:image/svg+xml;base64," + base64.b64encode(data).decode()


def draw_all(
    found: Frames, folder: Path, progress: Callable[[str, int, int], None] | None = None
) -> list[Drawn]:
    """Draw every figure that belongs to this kind of study.

    Args:
        progress: Called with ("figures", done, total).
    """
    is_running = bool(found.trials["status"].isin(["planned", "running"]).any())
    return draw_kind(found.study.kind, found, folder, progress, is_running=is_running)


def draw_kind(
    kind: str,
    found: Any,
    folder: Path,
    progress: Callable[[str, int, int], None] | None = None,
    *,
    is_running: bool = False,
) -> list[Drawn]:
    """Draw every figure of one kind of report.

    While a study runs, a figure of thousands of points is judged by its `outline`. A figure whose
    file fails becomes a sentence that names the file; the others are drawn.

    Args:
        found: What its figures are made of, see `reports.plots.base`.
        progress: Called with ("figures", done, total).
    """
    figures, drawn = figures_and_faults(kind)
    for number, (name, module) in enumerate(figures.items()):
        if progress:
            progress("figures", number, len(figures))
        try:
            drawn.append(_drawn(name, module, found, folder, is_running))
        except StudyError:
            raise  # a full disk is no fault of the figure's file
        except Exception as err:
            drawn.append(broken(name, module, err))
    return drawn


def _drawn(name: str, module: ModuleType, found: Any, folder: Path, is_running: bool) -> Drawn:
    path = folder / name
    data = module.prepare(found).copy(deep=False)
    data.attrs["drawn_by"] = _drawn_by(module)
    # A finished study's figures show every point, so they are compared by all of them.
    outline = getattr(module, "outline", None) if is_running and len(data) > DOTS else None
    if not looks_same(data, path, outline):
        with matplotlib.rc_context(STYLE):
            figure = module.draw(data, found)
        if isinstance(figure, str):
            return Drawn(name, module.TITLE, None, figure)
        save(figure, path)
        # after the figure: an interrupted run must not leave new numbers with an old figure
        write_atomic(path.with_suffix(".parquet"), data.reset_index(drop=True).to_parquet)
    says = module.sentence(data, found) if hasattr(module, "sentence") else ""
    return Drawn(name, module.TITLE, path, "", getattr(module, "WIDE", False), says)


def broken(name: str, module: ModuleType, err: Exception) -> Drawn:
    """What stands in the place of a figure whose file raised."""
    at = [one for one in traceback.extract_tb(err.__traceback__) if one.filename == module.__file__]
    line = f", line {at[-1].lineno}" if at else ""
    sentence = (
        f"Figure {name} is left out: {module.__file__}{line} raised {type(err).__name__}: {err}. "
        "Repair that file and make the report again; the rest of it is whole."
    )
    return Drawn(name, str(module.TITLE), None, sentence, is_broken=True)


def figures_of(kind: str) -> dict[str, ModuleType]:
    """Modules of the figures of one kind of report by name, in the order they are shown.

    Raises:
        PluginError: A folder of plug-ins is missing, or two figures have one name.
    """
    return figures_and_faults(kind)[0]


def figures_and_faults(kind: str) -> tuple[dict[str, ModuleType], list[Drawn]]:
    """The same, and a sentence for each file of the package or of the user that is no figure.

    Raises:
        PluginError: A folder of plug-ins is missing, or two figures have one name.
    """
    modules, wrong = {}, []
    for name in plugins.names(PLOTS):
        try:
            module = plugins.load(PLOTS, name)
            _check(module)
        except PluginError as err:
            wrong.append(
                Drawn(name, name, None, f"Figure {name} is left out: {err}", is_broken=True)
            )
        except Exception as err:  # whatever a file of the user does while it is imported
            says = (
                f"Figure {name} is left out: {name}.py cannot be imported, "
                f"{type(err).__name__}: {err}."
            )
            wrong.append(Drawn(name, name, None, says, is_broken=True))
        else:
            modules[name] = module
    ordered = sorted(modules.items(), key=lambda item: item[1].PLACE)
    return {name: module for name, module in ordered if kind in module.KINDS}, wrong


def _check(module: ModuleType) -> None:
    """Whether a figure says which reports show it, and where.

    Raises:
        PluginError: It does not.
    """
    kinds = module.KINDS
    is_list = isinstance(kinds, tuple | list | set | frozenset)
    unknown = sorted(map(str, set(kinds) - set(KINDS))) if is_list else [repr(kinds)]
    if unknown or not kinds:
        raise PluginError(
            f"KINDS of {module.__file__} has {', '.join(unknown) or 'nothing'}; it is a tuple of "
            f"some of {', '.join(KINDS)}."
        )
    if isinstance(module.PLACE, bool) or not isinstance(module.PLACE, int | float):
        raise PluginError(f"PLACE of {module.__file__} is {module.PLACE!r}; it is a number.")


def _drawn_by(module: ModuleType) -> int:
    """Checksum of the code that draws a figure: what another version drew is drawn again."""
    sources = (module.__file__, base.__file__)
    return zlib.crc32(b"".join(Path(str(source)).read_bytes() for source in sources))


def looks_same(data: pd.DataFrame, path: Path, outline: Outline | None = None) -> bool:
    """Whether a figure drawn earlier, of the data kept with it, would look the same.

    Numbers may differ by a five-hundredth of their column's range: less than a dot's width.

    Args:
        outline: Given that of a figure of thousands of points, a hundredth more points than were
            drawn do not matter.
    """
    try:
        before = pd.read_parquet(path.with_suffix(".parquet"))
    except (OSError, pa.ArrowException, ValueError, LookupError, TypeError):
        return False  # not drawn yet, or damaged
    if before.attrs.get("drawn_by") != data.attrs.get("drawn_by"):
        return False
    if not all(path.with_suffix(f".{kind}").is_file() for kind in FORMATS):
        return False
    if outline is not None and 0 <= len(data) - len(before) <= NEW_POINTS * len(before):
        data, before = outline(data), outline(before)
    return not data.empty and _nearly_equal(data, before)


def _nearly_equal(data: pd.DataFrame, before: pd.DataFrame) -> bool:
    if before.shape != data.shape or list(before) != list(data):
        return False
    for name in data:
        new, old = data[name], before[name]
        if not pd.api.types.is_numeric_dtype(new) or pd.api.types.is_bool_dtype(new):
            if new.astype(str).tolist() != old.astype(str).tolist():
                return False
            continue
        x, y = (one.to_numpy(float, na_value=np.nan) for one in (new, old))
        # A figure in column width has some 600 dots along an axis.
        seen = x[np.isfinite(x)]
        span = float(np.ptp(seen)) if len(seen) else 0.0
        if not np.allclose(x, y, rtol=0, atol=span / 500, equal_nan=True):
            return False
    return True
