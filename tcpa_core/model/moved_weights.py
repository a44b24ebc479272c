"""The weights that a trained trial stands on, wherever they lie now.

A checkpoint says which weights file it was trained with and what the file's fingerprint was. Where
a project has moved, the file is looked for under its old name below the folders around the
checkpoint, the current folder and the cache, and under any name in few of them; its fingerprint
proves that it is the right one.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tcpa_core.data.base import cache_root
from tcpa_core.errors import CheckpointError, WeightsError
from tcpa_core.model.load_backbone import weights_fingerprint
from tcpa_core.model.weights_file import SUFFIXES
from tcpa_core.settings import BackboneConfig, norm_stats_value


def backbone_of(
    checkpoint: Path, cfg: BackboneConfig, info: Mapping[str, object], weights: Path | None
) -> BackboneConfig:
    """The backbone of a checkpoint, with weights that are there and those of the training.

    Args:
        checkpoint: The file.
        cfg: The backbone of the trial's settings.
        info: What the checkpoint says; older ones lack "weights" and "norm_stats".
        weights: Where the weights are, a file or its folder; None: they are looked for.

    Raises:
        CheckpointError: What it says of mean and std cannot be.
        WeightsError: No such weights, or they are others.
    """
    wanted = info.get("weights")
    if weights is not None:
        place = weights
        if weights.is_dir() and wanted is not None:
            place = next(_of_content([weights], cfg, wanted), weights)
        found = cfg.model_copy(update={"weights": str(place)})
        _compare(found, wanted, checkpoint)
    elif cfg.weights in (None, "random"):
        found = cfg
        _compare(found, wanted, checkpoint)
    else:
        found = cfg.model_copy(update={"weights": str(_search(cfg, wanted, checkpoint))})
    if info.get("norm_stats") is None:
        return found
    try:
        return found.model_copy(update={"norm_stats": norm_stats_value(info["norm_stats"])})
    except ValueError as err:
        raise CheckpointError(f"{checkpoint}: its mean and std cannot be.") from err


def _compare(found: BackboneConfig, wanted: object, checkpoint: Path) -> None:
    """Refuse weights of another content; names of the hub tell nothing of a file's."""
    is_file = found.weights not in (None, "random")
    if wanted is None or (is_file and not str(wanted).startswith("sha256:")):
        return
    got = weights_fingerprint(found)
    if not _equal(got, wanted):
        raise WeightsError(
            f"{checkpoint} was trained with the weights {wanted}, but "
            f"{found.weights or found.name} are {got}; give the right file with "
            "load_trained(path, weights=...), or --weights."
        )


def _equal(one: str, other: object) -> bool:
    """Whether two fingerprints are of one content, whatever lies beside a file."""
    # Behind "-" stands the mark of a description beside the file, which may not have moved with it;
    # mean and std of the training are in the checkpoint.
    if one.startswith("sha256:"):
        return one.partition("-")[0] == str(other).partition("-")[0]
    return bool(one == other)


def _search(cfg: BackboneConfig, wanted: object, checkpoint: Path) -> Path:
    """The file of the training, where it was or where it may have moved."""
    old = Path(os.path.expanduser(str(cfg.weights)))
    others = []
    for place in _places(old, checkpoint):
        got = weights_fingerprint(cfg.model_copy(update={"weights": str(place)}))
        if (wanted is None and place == old) or (wanted is not None and _equal(got, wanted)):
            return place
        others.append(f"{place} ({got})")
    if wanted is not None:
        for place in _of_content(_near(checkpoint), cfg, wanted):
            return place
    seen = f"; of its name there are {', '.join(others[:3])}" if others else ""
    told = "with a fingerprint that older versions did not record" if wanted is None else wanted
    raise WeightsError(
        f"{checkpoint} was trained with {old} ({told}), which is neither there nor below the "
        f"folders around the checkpoint, the current folder or the cache{seen}; give it with "
        "load_trained(path, weights=...), or --weights."
    )


def _places(old: Path, checkpoint: Path) -> Iterator[Path]:
    """Existing files that may be the old one: its path, then its last parts in other folders."""
    # Longest tails first: the more folders agree, the likelier it is the file.
    tails = [Path(*old.parts[i:]) for i in range(1, len(old.parts))] or [old]
    tails.append(Path("weights", old.name))
    folders = [*checkpoint.resolve().parents, Path.cwd(), *Path.cwd().parents, cache_root(None)]
    places = dict.fromkeys([old, *(folder / tail for folder in folders for tail in tails)])
    seen: set[Path] = set()
    for place in places:
        if os.path.isfile(place) and (real := place.resolve()) not in seen:
            seen.add(real)
            yield place


def _near(checkpoint: Path) -> Iterator[Path]:
    """Folders in which a file is taken whatever its name."""
    for folder in (checkpoint.resolve().parent, Path.cwd(), cache_root(None)):
        yield from (folder, folder / "weights")


def _of_content(folders: Iterable[Path], cfg: BackboneConfig, wanted: object) -> Iterator[Path]:
    """Weights files in folders that have the wanted fingerprint."""
    for folder in folders:
        inside = sorted(folder.iterdir()) if folder.is_dir() else []
        for place in inside:
            if place.suffix not in SUFFIXES or not place.is_file():
                continue
            if _equal(weights_fingerprint(cfg.model_copy(update={"weights": str(place)})), wanted):
                yield place
