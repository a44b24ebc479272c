"""What there is: the studies of a root, read from their files alone, and the shipped spaces."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from search.study.folder import StudyDir
from search.study.working_copy import opened, stored_names
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
    stored = stored_names(storage) if storage else []
    if not (root.is_dir() or stored):
        raise StudyError(f"--root: there is no folder {root}; give the one that holds the studies.")
    found = [*root.glob(f"*/{files.DESCRIPTION}"), *root.glob(f"*/{files.JOURNAL}")]
    # A hidden one is being made.
    here = {p.parent.name for p in found if not p.parent.name.startswith(".")}
    names = sorted(here | set(stored))
    if not names:
        yield f"no studies in {storage or root}."
        return
    rows = [HEADINGS, *(_row(root, name, storage if name in stored else None) for name in names)]
    widths = [max(len(row[i]) for row in rows if len(row) > 3) for i in range(len(HEADINGS) - 1)]
    widths[0] = max(len(row[0]) for row in rows)
    for row in rows:
        cells = [text.ljust(width) for text, width in zip(row, widths, strict=False)]
        yield "  ".join([*cells, *row[len(cells) :]]).rstrip()


def _row(root: Path, name: str, storage: str | None) -> Sequence[str]:
    try:
        return _described(opened(root, name, storage))
    except Exception as err:  # whatever is in the files of one
        return name, f"cannot be read: {err or type(err).__name__}"


def _described(study: StudyDir) -> Sequence[str]:
    outline = study.outline()
    state = study.state()
    results = outline.results(state)
    counts, last = state.counts(), ""
    if state.last:
        time = datetime.fromtimestamp(state.last.t).strftime("%Y-%m-%d %H:%M:%S")
        last = f"{time} {state.last.kind}"
    num_ended = sum(counts.values())
    # Rows of a design with equal settings are one trial: to count them, all of them are built.
    total = len(study.space().design()) if outline.ablation else outline.budget.trials
    best = results.ranking().selected
    return (
        study.name,
        "ablation" if outline.ablation else "search",
        "running" if study.driver() else state.phase,
        f"{num_ended} of {total}" if total else str(num_ended),
        str(counts.get("failed", 0)),
        f"{results.objective.metric} {best.text()}" if best else "",
        last,
    )
