"""Images and weights that the report makes for itself, so that it needs no network."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from benchmarks._gpu.form import Form
from tcpa_core.model.timm_names import NANO

SPLITS = ("train", "val", "test")


def image_folder(form: Form, folder: Path) -> Path:
    """Class folders of JPEG images: every class has a colour of its own, under noise."""

    def make(path: Path) -> None:
        random = np.random.default_rng(0)
        colours = random.integers(40, 216, (form.classes, 3))
        for split in SPLITS:
            for i in range(form.train if split == "train" else form.val):
                label = i % form.classes
                place = path / split / f"class{label:03d}"
                place.mkdir(parents=True, exist_ok=True)
                noise = random.normal(0, 40, (form.img_size, form.img_size, 3))
                pixels = (colours[label] + noise).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(place / f"{i:04d}.jpg")

    return _made(folder / "images", make)


def weights_of(name: str, folder: Path) -> dict[str, str]:
    """Settings of a backbone: random weights in a file, which loads as a published one does."""
    if name == NANO:
        return {"name": name}

    def make(path: Path) -> None:
        path.mkdir()
        torch.manual_seed(0)
        vit = timm.create_model(name, num_classes=0)
        save_file(vit.state_dict(), path / "weights.safetensors")

    path = _made(folder / name, make) / "weights.safetensors"
    return {"name": name, "weights": str(path), "norm_stats": "inception"}


def _made(path: Path, make: Callable[[Path], None]) -> Path:
    """A folder that is there whole or not at all: a part may be cut off while it makes it."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent)) / path.name
        make(temporary)
        os.replace(temporary, path)
        temporary.parent.rmdir()
    return path
