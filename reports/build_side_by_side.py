"""`tcpa report A B C`: several studies as one table, one page and the files of a paper."""

from collections.abc import Sequence
from pathlib import Path

from reports.build import Progress
from reports.frames import frames
from reports.page import data_set_tables, level_tables
from reports.page.side_by_side import write_side_by_side
from reports.parquet import write_table, write_text
from reports.records.journal import load_journal
from reports.side_by_side import side_by_side


def build_side_by_side(
    studies: Sequence[Path],
    out: Path,
    progress: Progress | None = None,
    live_s: float | None = None,
) -> list[str]:
    """Gather several studies into tables and a page in the folder `out`.

    Args:
        studies: Their folders.
        progress: Told of what is being done.
        live_s: Seconds until it is built again; the page then reloads itself. None: it stays.

    Returns:
        Lines for a terminal.

    Raises:
        StudyError: A study is missing, is given twice or has nothing completed, or the folder
            cannot be written.
        RecordError: A journal is damaged.
    """
    loaded = []
    for number, folder in enumerate(studies):
        if progress:
            progress("studies", number, len(studies))
        loaded.append(frames(load_journal(folder, progress), explain=False)[0])
    found = side_by_side(loaded)
    for name, table in found.tables.items():
        write_table(table, out, name)
    across = data_set_tables.data_set_tables(found.across, found.scores, found.ranks, found.groups)
    texts = {
        "levels.md": level_tables.to_markdown(found.levels),
        "levels.tex": level_tables.to_latex(found.levels),
    }
    if across:
        texts["across.md"] = data_set_tables.to_markdown(across)
        texts["across.tex"] = data_set_tables.to_latex(across)
    for name, text in texts.items():
        write_text(out / name, text)
    page = out / "report.html"
    sentences = write_side_by_side(found, across, page, studies, live_s)
    return [*sentences, *(f"note: {note}" for note in found.notes), f"report: {page}"]
