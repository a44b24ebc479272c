"""What there is: the studies of a root, read from their files alone, and the shipped spaces."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from search.study.working_copy import opened, stored_names
from search.verbs.look import Look
from tcpa_core.errors import StudyError
from tcpa_core.record import files

HEADINGS = ("study", "kind", "state", "trials", "failed", "best", "last event")


def study_lines(root: Path, storage: str | None = None) -> Iterator[str]:
    """A line for every study of a root, under a line of headings.

    One that cannot be read says why in its line and hides no other.

    Args:
        storage: Address of studies, whose copies below `root` are made or brought up to date.

    Raises:
        StudyError: There is no such folder.
    """
    rows: list[Sequence[str]] = [HEADINGS]
    rows += [_row(name, found) for name, found in looks(root, storage)]
    if len(rows) == 1:
        yield f"no studies in {storage or root}."
        return
    widths = [max(len(row[i]) for row in rows if len(row) > 3) for i in range(len(HEADINGS) - 1)]
    widths[0] = max(len(row[0]) for row in rows)
    for row in rows:
        cells = [text.ljust(width) for text, width in zip(row, widths, strict=False)]
        yield "  ".join([*cells, *row[len(cells) :]]).rstrip()


def looks(root: Path, storage: str | None = None) -> Iterator[tuple[str, Look | str]]:
    """Name of every study of a root, and a look at it, or why it cannot be read.

    Raises:
        StudyError: There is no such folder.
    """
    stored = stored_names(storage) if storage else []
    if not (root.is_dir() or stored):
        raise StudyError(f"--root: there is no folder {root}; give the one that holds the studies.")
    found = [*root.glob(f"*/{files.DESCRIPTION}"), *root.glob(f"*/{files.JOURNAL}")]
    # A hidden one is being made.
    here = {p.parent.name for p in found if not p.parent.name.startswith(".")}
    for name in sorted(here | set(stored)):
        try:
            yield name, Look.at(opened(root, name, storage if name in stored else None))
        except Exception as err:  # whatever is in the files of one
            yield name, str(err) or type(err).__name__


def _row(name: str, found: Look | str) -> Sequence[str]:
    if isinstance(found, str):
        return name, f"cannot be read: {found}"
    view, last = found.view, found.view.state.last
    event = ""
    if last:
        time = datetime.fromtimestamp(last.t).strftime("%Y-%m-%d %H:%M:%S")
        event = f"{time} {last.kind}"
    best = view.selected
    return (
        name,
        found.kind,
        found.phase,
        f"{view.num_ended} of {view.total}" if view.total else str(view.num_ended),
        str(view.counts.get("failed", 0)),
        f"{view.outline.metric} {best.text()}" if best else "",
        event,
    )
