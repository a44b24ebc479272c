"""What a space varies without changing a trial: axes, and levels of an ablation."""

from spaces.space import Space
from tcpa_core.config import Flat


def idle_axes(space: Space) -> dict[str, Flat | None]:
    """Axes of a search that change nothing at some corner, with that corner; None: at all."""
    at: dict[str, list[tuple[Flat, bool]]] = {path: [] for path in space.axes}
    for corner, config in zip(space.corners(), space.trials, strict=True):
        idle = config.idle_paths()
        for path in corner:
            at[path].append((corner, path in idle))
    out: dict[str, Flat | None] = {}
    for path, met in at.items():
        idle_at = [corner for corner, is_idle in met if is_idle]
        if idle_at:
            out[path] = None if len(idle_at) == len(met) else idle_at[0]
    return out


def equal_levels(space: Space) -> dict[str, list[str]]:
    """Factors of an ablation, and levels of them that are one trial in some place."""
    out: dict[str, list[str]] = {}
    for point in space.design() if space.ablation else ():
        for cell in point.cells:
            same = {
                other.level: None
                for other in point.cells
                if (other.factor, other.dataset) == (cell.factor, cell.dataset)
            }
            # Combinations that are one trial follow from levels that are.
            if len(same) > 1 and cell.factor != "combination":
                out.setdefault(cell.factor, list(same))
    return out
