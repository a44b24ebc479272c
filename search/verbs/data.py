"""What is in a data set."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from search.verbs.stages import Stages
from tcpa_core.data.base import load_dataset
from tcpa_core.settings import DataConfig

LISTED_CLASSES = 20
"""Classes that are all listed; of more, the smallest ones."""
SMALLEST_CLASSES = 10


def show_data(config: DataConfig, console: Console) -> None:
    """Decode a data set at a small size, so that every image is checked, and describe it."""
    # Small, since what counts is that every image can be decoded.
    with Stages("reading lists") as stages:
        summary = load_dataset(config, 32, progress=stages).summary
    names, counts = summary.class_names, summary.counts
    console.print(
        f"{summary.name}: {len(names)} classes, {summary.fingerprint}", markup=False, soft_wrap=True
    )
    for split, found in counts.items():
        low, middle, high = min(found), sorted(found)[len(found) // 2], max(found)
        each = f"{low}" if low == high else f"{low} to {high}, median {middle},"
        console.print(f"  {split}: {sum(found):,} images, {each} a class", markup=False)
    total = [sum(of) for of in zip(*counts.values(), strict=True)]
    shown = list(range(len(names)))
    if len(names) > LISTED_CLASSES:
        shown = sorted(shown, key=lambda c: total[c])[:SMALLEST_CLASSES]
        console.print(f"the {SMALLEST_CLASSES} smallest of {len(names)} classes:")
    table = Table("class", *counts)
    for c in shown:
        table.add_row(Text(_printable(names[c])), *(str(found[c]) for found in counts.values()))
    console.print(table)
    for warning in summary.warnings():
        console.print(f"warning: {warning}", markup=False, soft_wrap=True)


def _printable(name: str) -> str:
    return name if name.isprintable() else ascii(name)
