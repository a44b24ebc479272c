"""A trained trial as a folder that can be given away: tensors, settings, preprocessing, card.

The folder is made beside its place, loaded again and compared with the trial before it gets there:
what is given away computes what was trained. No path of this machine enters it.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tcpa_core.chain import deviations
from tcpa_core.config import file_settings
from tcpa_core.data.base import raw_images
from tcpa_core.errors import CheckpointError, ConfigError, DataError, not_written
from tcpa_core.exports.base import Form, Written, need
from tcpa_core.exports.card import Facts, Measured, card
from tcpa_core.exports.forms import FORMS, form_of
from tcpa_core.exports.licence import licence_of
from tcpa_core.model.transform import Picture
from tcpa_core.training.trained import TrainedModel, load_trained
from tcpa_core.training.trained_state import CARD, CONFIG, FORMAT, MODEL, SCHEMA

NUM_PICTURES = 8
"""Pictures by which an export is compared with its trial."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was written."""

    folder: Path
    files: Mapping[str, int]
    """Bytes by name."""
    difference: float
    """Largest absolute difference of a logit between the trial and what was read back."""
    pictures: str
    """Of which pictures that is."""
    notes: tuple[str, ...]
    """What the user of the folder has to know."""


def export_trial(
    checkpoint: Path | str,
    out: Path | str,
    *,
    format: str = FORMAT,
    facts: Facts | None = None,
    weights: Path | str | None = None,
    grey_bits: int | None = None,
    pictures: Sequence[Picture] = (),
) -> Exported:
    """Write a trained trial as a folder for others.

    Args:
        checkpoint: As `load_trained` takes it.
        out: The folder; it must not be there yet, or be empty.
        format: "tcpa" (read by `load_trained`), or another one of `tcpa_core.exports.forms.FORMS`.
        facts: What is known of the trial beyond its checkpoint, for the card.
        weights: Where the backbone's weights lie now, if not where the trial had them.
        grey_bits: See `load_trained`.
        pictures: To compare with; (): some of the trial's val split, or drawn ones where the data
            are not at hand.

    Raises:
        ConfigError: No such format, the trial cannot have it (what it can have is said), a package
            that it needs is not installed, or `out` has other things in it or no place where it
            may be made.
        CheckpointError: The checkpoint is damaged, or what was written computes something else.
        WeightsError: The backbone's weights are not found, or are not those of the training.
        StorageError: The disk is full or read-only.
    """
    form, out = form_of(format), Path(out)
    check_free(out)
    model = load_trained(checkpoint, weights=weights, grey_bits=grey_bits)
    reason = form.why_not(model)
    if reason is not None:
        possible = ", ".join(name for name, one in FORMS.items() if one.why_not(model) is None)
        raise ConfigError(f"--format {format}: {reason}; possible: {possible}.")
    need(format, form.packages)
    seen, name_of_seen = _pictures(model, pictures)
    with _new_folder(out) as folder:
        written = form.write(model, folder)
        about = _about(model, format, folder, facts)
        _write_config(folder, about, written)
        about["check"] = check = _compare(form, model, folder, seen, name_of_seen)
        _write_config(folder, about, written)
        text = card(about, written.usage.replace("DIR", out.name), written)
        (folder / CARD).write_text(text, encoding="utf-8")
        files = {one.name: one.stat().st_size for one in sorted(folder.iterdir())}
    return Exported(
        folder=out,
        files=files,
        difference=check["max_difference"],
        pictures=check["pictures"],
        notes=written.notes,
    )


def check_free(out: Path) -> None:
    """Refuse a folder in which something is.

    Raises:
        ConfigError: It is a file, or not empty.
    """
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise ConfigError(f"{out} is no folder; name a new one.")
    inside = sorted(one.name for one in out.iterdir()) if out.exists() else []
    if inside:
        raise ConfigError(
            f"{out} has other things in it ({', '.join(inside[:3])}{', ...' * (len(inside) > 3)}); "
            "nothing is overwritten: name a new folder, or remove that one."
        )


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A folder that gets its place once all is in it."""
    try:
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.absolute().parent))
    except OSError as err:
        raise not_written(str(out), err) from err
    try:
        yield made
        made.chmod(0o755)
        for file in made.iterdir():
            file.chmod(0o644)
            descriptor = os.open(file, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        made.rename(out)  # of an empty folder it takes the place
    except OSError as err:
        raise not_written(str(out), err) from err
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _about(model: TrainedModel, format: str, folder: Path, facts: Facts | None) -> dict[str, Any]:
    """Our section of config.json: what a checkpoint says, and what a reader asks."""
    source, backbone = model.source, model.pack.backbone
    tensors = folder / MODEL
    trained, without_head = model.pack.tensors.num_trainable(0)
    return {
        "format": format,
        "schema": SCHEMA,
        "sha256": hashlib.sha256(tensors.read_bytes()).hexdigest() if tensors.exists() else None,
        "config": _without_paths(model.config.flat()),
        "classes": list(model.class_names),
        "weights": backbone.fingerprint,
        "norm_stats": backbone.norm_stats(model.config.data.norm_stats),
        "data": source.info.get("data"),
        "grey_bits": model.transform.grey_bits,
        "preprocessing": backbone.preprocessing(model.config.data).as_dict(),
        "licence_of_weights": licence_of(model.config.backbone),
        "trained_parameters": {"all": trained, "without_head": without_head},
        "selected": source.info.get("selected"),
        "facts": _facts(facts, model),
        "versions": {name: _version(name) for name in ("tcpa-search", "torch", "timm")},
    }


def _facts(facts: Facts | None, model: TrainedModel) -> dict[str, Any]:
    """What is known of the trial; an exported folder says itself what its study told."""
    info = model.source.info
    told = info.get("facts")
    if facts is None and told is not None:
        try:
            measured = tuple(Measured(**one) for one in told["measured"])
            facts = Facts(**{**told, "measured": measured})
        except (TypeError, KeyError) as err:
            raise CheckpointError(
                f"{model.source.path.parent}: what its {CONFIG} says of the trial's study cannot "
                f"be read ({err}); export the trial again."
            ) from err
    if facts is None:
        facts = Facts(trial=str(info.get("trial", "")), deviations=deviations(model.config))
    return asdict(facts)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed as a package"


def _without_paths(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Settings in which files and folders are named, but not where they lie on this machine."""
    return {
        path: Path(value).name if path in file_settings() and isinstance(value, str) else value
        for path, value in flat.items()
    }


def _write_config(folder: Path, about: Mapping[str, Any], written: Written) -> None:
    text = json.dumps({**written.config, FORMAT: about}, indent=2, allow_nan=False)
    (folder / CONFIG).write_text(f"{text}\n", encoding="utf-8")


def _pictures(model: TrainedModel, given: Sequence[Picture]) -> tuple[Tensor, str]:
    """Normalised images to compare with, and what they are."""
    name = f"{len(given)} given pictures"
    pictures: Sequence[Picture] = given
    if not pictures:
        try:
            pictures = raw_images(model.config.data, "val", NUM_PICTURES)
            name = f"{len(pictures)} pictures of the val split"
        except (ConfigError, DataError):
            pictures = _drawn()
            name = f"{len(pictures)} drawn pictures, as the data were not at hand"
    return torch.stack([model.transform(picture) for picture in pictures]), name


def _drawn() -> list[Picture]:
    """Colour noise, coarse to fine."""
    random = np.random.default_rng(0)
    sizes = [2**i for i in range(1, NUM_PICTURES + 1)]
    return [random.integers(0, 256, (size, size, 3), dtype=np.uint8) for size in sizes]


def _compare(
    form: Form, model: TrainedModel, folder: Path, images: Tensor, name: str
) -> dict[str, Any]:
    """Read the folder again and compare logits, for several batch sizes.

    Raises:
        CheckpointError: They differ by more than the form's rounding.
    """
    expected, read = model.logits(images), form.read(model, folder)
    largest = float(expected.abs().max())
    # One picture alone, too: a batch size that was written down as a number fails here.
    found = torch.cat([read(images[:1]), read(images[1:])]) if len(images) > 1 else read(images)
    whole = found if form.tolerance else read(images)
    difference = float((whole - expected).abs().max())
    if not difference <= form.tolerance * max(largest, 1.0):
        raise CheckpointError(
            f"the export computes other logits than the trial: they differ by {difference:.2e} on "
            f"{name} (largest logit {largest:.2f}); nothing was written."
        )
    return {"pictures": name, "max_difference": difference, "largest_logit": largest}
