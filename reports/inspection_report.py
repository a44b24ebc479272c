"""The report of inspected trials: the figures of the TCPA and CVPT papers, and a table.

The numbers come from `tcpa_core.inspection`, which needs the network; here they are only drawn, so
that reports know no tensors. Trials are shown side by side. The figures are those of
`reports.plots` whose kind is "inspection".
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import matplotlib
import pyarrow as pa

from reports.columns import BOOL, INT, REAL, SCHEMA_VERSION, TEXT, Column
from reports.draw import broken, figures_and_faults
from reports.page.markup import frame_markdown
from reports.parquet import write_table, write_text
from reports.plots._inspected import POOLS, Array, Inspections
from reports.plots.base import FORMATS, STYLE, save
from reports.plots.prompt_usage import never_chosen
from reports.tables import frame_of, of_columns

COLUMNS = (
    Column("label", TEXT, "trial, as in the figures"),
    Column("block", INT, "transformer block, from 1"),
    Column("role", TEXT, "whose attention or pool: cls, image; shared: a pool of both"),
    Column("num_prompts", INT, "prompts of the block"),
    Column("prompt_share", REAL, "share of the softmax that prompts take", "fraction"),
    Column("kept", REAL, "share of the attention that the mask leaves", "fraction"),
    Column("rank", REAL, "effective rank of the image tokens' attention maps"),
    Column("groups", INT, "prompt groups of the pool"),
    Column("never_chosen", INT, "groups that no token of the images chose"),
    Column("has_mask", BOOL, "whether anything was masked"),
)


def write_inspection(trials: Inspections, study_dir: Path) -> list[str]:
    """Draw every figure that the trials give, and write the table behind them.

    Args:
        trials: One or more trials on the same data.
        study_dir: Figures go to report/inspection/NAME.svg, .png, .pdf, the numbers to
            tables/inspection.parquet, .csv, .md. Earlier ones are replaced.

    Returns:
        For a terminal: what was written, and a sentence for each figure that cannot be drawn.

    Raises:
        StudyError: The folder cannot be written.
    """
    folder = study_dir / "report" / "inspection"
    table = inspection_table(trials)
    write_table(table, study_dir / "tables", "inspection")
    frame = frame_of(table)
    path = study_dir / "tables" / "inspection.md"
    write_text(path, frame_markdown(frame, frame.columns))
    figures, wrong = figures_and_faults("inspection")
    drawn, sentences = [], [one.sentence for one in wrong]
    for name, module in figures.items():
        try:
            with matplotlib.rc_context(STYLE):
                figure = module.draw(module.prepare(trials), trials)
        except Exception as err:  # whatever a file of the user does
            figure = broken(name, module, err).sentence
        if isinstance(figure, str):
            sentences.append(f"{name}: {figure}")
            for kind in FORMATS:  # a figure of other trials must not be taken for one of these
                (folder / f"{name}.{kind}").unlink(missing_ok=True)
        else:
            save(figure, folder / name)
            drawn.append(name)
    return [f"figures: {folder} ({', '.join(drawn)})", *sentences, f"table: {path}"]


def inspection_table(trials: Inspections) -> pa.Table:
    """Rows of COLUMNS: a block of a trial by role."""
    rows = [row for label, found in trials.items() for row in _rows(label, found)]
    about = {"tcpa.schema_version": str(SCHEMA_VERSION), "tcpa.table": "inspection"}
    return of_columns(rows, COLUMNS, about)


def _rows(label: str, found: Mapping[str, Array]) -> Iterator[dict[str, object]]:
    for block, num_prompts in enumerate(found["num_prompts"]):
        common = {"label": label, "block": block + 1, "num_prompts": int(num_prompts)}
        for role in POOLS:
            row: dict[str, object] = {}
            if f"kept_{role}" in found:
                kept = float(found[f"kept_{role}"][block])
                row |= {"kept": kept, "has_mask": kept < 1 - 1e-9}
                row["prompt_share"] = float(found[f"prompt_share_{role}"][block])
                # The rank is of the maps between image tokens, so the CLS token has none.
                row["rank"] = float(found["rank"][block]) if role == "image" else None
            if f"usage_{role}" in found:
                shares = found[f"usage_{role}"][block]
                row |= {"groups": len(shares), "never_chosen": int(never_chosen(shares).sum())}
            if row:
                yield {**common, "role": role, **row}
