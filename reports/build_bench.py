"""`tcpa bench`: the studies of its cells as tables, files of a paper and one offline page."""

import re
from collections.abc import Callable
from pathlib import Path

from reports.bench import texts
from reports.bench.cells import look
from reports.bench.shown import main_table
from reports.bench.tables import BackboneTables, BenchTables, bench_tables
from reports.draw import Drawn, draw_kind
from reports.page.bench import write_bench
from reports.parquet import write_table, write_text
from spaces.bench_cells import Bench

Progress = Callable[[str, int, int], None]


def build_bench(
    bench: Bench, out: Path, progress: Progress | None = None, live_s: float | None = None
) -> list[str]:
    """Gather a bench, whole or not, into tables and a page in the folder `out`.

    Writes tables/*.parquet and .csv, bench.md, bench.tex, figures and report.html.

    Args:
        progress: Told of what is being done.
        live_s: Seconds until it is built again; the page then reloads itself. None: it stays.

    Returns:
        Lines for a terminal: what the table says, and where it is.

    Raises:
        StudyError: The folder cannot be written.
    """
    return write_tables(load_bench(bench, progress), out, progress, live_s)


def write_tables(
    tables: BenchTables, out: Path, progress: Progress | None = None, live_s: float | None = None
) -> list[str]:
    """Write what `build_bench` writes of tables that are there already."""
    for name, table in tables.arrow.items():
        write_table(table, out / "tables", name)
    shown = [
        main_table(tables, backbone, metric)
        for backbone in tables.backbones
        for metric in tables.metrics(backbone)
    ]
    write_text(out / "bench.md", texts.to_markdown(tables, shown))
    write_text(out / "bench.tex", texts.to_latex(tables, shown))
    drawn = _figures(tables, out, progress)
    page = out / "report.html"
    sentences = write_bench(tables, shown, drawn, page, live_s)
    return [*sentences, f"table: {page}"]


def load_bench(bench: Bench, progress: Progress | None = None) -> BenchTables:
    """Every number of a bench, from the journals of its cells."""
    found = []
    for number, cell in enumerate(bench.cells):
        if progress:
            progress("cells", number, len(bench.cells))
        found.append(look(cell, bench.num_seeds))
    return bench_tables(bench, found)


def _figures(tables: BenchTables, out: Path, progress: Progress | None) -> dict[str, list[Drawn]]:
    """The figures of each backbone that has a value."""
    found = {}
    for place, backbone in enumerate(tables.backbones):
        metrics = tables.metrics(backbone)
        folder = "figures"
        if len(tables.backbones) > 1:  # a name from a suite is no path: the number tells them apart
            folder += f"/{place + 1}_{re.sub('[^a-z0-9_-]', '', backbone.lower())[:40]}"
        if metrics:
            source = BackboneTables(tables, backbone, metrics[0])
            found[backbone] = draw_kind("bench", source, out / folder, progress)
    return found
