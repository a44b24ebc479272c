"""Attention over the images, which the figures of both roles draw alike."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from reports.plots._inspected import ROLES, Array, Inspections, wrapped

Maps = Mapping[str, tuple[Array, Array]]
"""By trial: images (N, height, width, 3) and the last block's maps over them (N, rows, columns)."""


def maps_of(role: str, trials: Inspections) -> Maps:
    """The trials that have maps of a role."""
    key = f"{role}_maps"
    return {n: (found["images"], found[key][-1]) for n, found in trials.items() if key in found}


def draw_maps(role: str, shown: Maps) -> Figure | str:
    """Each trial's attention in the last block over the images: a row an image, a column a trial.

    Colour runs from the lowest to the highest value of a map.
    """
    if not shown:
        return f"No trial has maps of the {ROLES[role]}: the backbone has no such token."
    count = min(len(images) for images, _ in shown.values())
    across = len(shown) + 1
    titles = [wrapped(label).split("\n") for label in shown]
    # as wide as the longest line of a title needs at 7 points
    side = max(0.85, 0.066 * max(len(line) for lines in titles for line in lines))
    height = side * count + 0.15 + 0.12 * max(map(len, titles))
    figure = Figure(figsize=(side * across, height), layout="constrained")
    panels = figure.subplots(count, across, squeeze=False)
    for row in range(count):
        first, _ = next(iter(shown.values()))
        panels[row][0].imshow(first[row])
        for axes, (images, maps) in zip(panels[row][1:], shown.values(), strict=True):
            image = images[row]
            height, width = image.shape[:2]
            # The image in grey, so that colour means attention only.
            axes.imshow(image.mean(axis=-1), cmap="gray", vmin=0, vmax=1)
            axes.imshow(maps[row], cmap="viridis", alpha=0.6,
                        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
                        interpolation="bilinear")  # fmt: skip
    for axes, title in zip(panels[0], ["image", *shown], strict=True):
        axes.set_title(wrapped(title), fontsize=7)
    for axes in figure.axes:
        axes.set_axis_off()
    return figure
