"""Attention of the CLS token in the last block, over the images."""

from matplotlib.figure import Figure

from reports.plots._attention_maps import Maps, draw_maps, maps_of
from reports.plots._inspected import Inspections

TITLE = "Attention of the CLS token"
KINDS = ("inspection",)
PLACE = 1


def prepare(trials: Inspections) -> Maps:
    """Images and maps of the trials that have them."""
    return maps_of("cls", trials)


def draw(data: Maps, trials: Inspections) -> Figure | str:
    """A row for each image, a column for each trial."""
    return draw_maps("cls", data)
