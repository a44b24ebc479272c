"""Linear probe of ``vit_nano``: are its frozen features worth more than raw pixels?

Logistic regression is fitted once on the class token after the final norm and once on the raw
pixels, in the same way: standardised inputs, weight decay chosen on the validation split, test
accuracy of the fit on train alone and of a second fit on train and validation together.

The task is a folder in the VTAB-1k list layout (``train800.txt``, ``val200.txt``, ``test.txt``
with lines ``path label``), scikit-learn's handwritten digits, or both.

Example::

    python scripts/probe_vit_nano.py --weights tcpa_core/weights/vit_nano.safetensors \
        --pack data/cifar10-1k --digits
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import safe_open
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from timm.models.vision_transformer import VisionTransformer

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
Features = NDArray[np.float32]

SPLITS = {"train": "train800.txt", "val": "val200.txt", "test": "test.txt"}
INVERSE_WEIGHT_DECAYS = tuple(float(c) for c in np.logspace(-6, 2, 17))


@dataclass(frozen=True)
class Task:
    """Pictures (uint8, N x H x W x 3) and labels of the splits train, val and test."""

    name: str
    images: dict[str, Images]
    labels: dict[str, Labels]


@dataclass(frozen=True)
class Scores:
    """Accuracies (0 to 1) of one kind of features on one task."""

    inverse_weight_decay: float
    val: float
    test: float
    test_refit: float


def as_rgb(picture: Image.Image, size: int) -> Images:
    """Convert a picture to RGB and, unless it has it already, to ``size`` by bicubic resizing."""
    picture = picture.convert("RGB")
    if picture.size != (size, size):
        picture = picture.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(picture, dtype=np.uint8)


def load_pack(folder: Path, size: int) -> Task:
    """Read a task folder in the VTAB-1k list layout."""
    images: dict[str, Images] = {}
    labels: dict[str, Labels] = {}
    for split, list_name in SPLITS.items():
        lines = (folder / list_name).read_text(encoding="utf-8").splitlines()
        rows = [line.rsplit(maxsplit=1) for line in lines if line.strip()]
        pictures = []
        for name, _ in rows:
            with Image.open(folder / name) as picture:
                pictures.append(as_rgb(picture, size))
        images[split] = np.stack(pictures)
        labels[split] = np.array([int(label) for _, label in rows], dtype=np.int64)
    return Task(folder.name, images, labels)


def load_digit_task(size: int, seed: int) -> Task:
    """Enlarge scikit-learn's 8x8 digits and split them into 800 train, 200 val and the rest."""
    bunch = load_digits()
    planes = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    pictures = np.stack([as_rgb(Image.fromarray(plane), size) for plane in planes])
    target = bunch.target.astype(np.int64)
    chosen, test = train_test_split(
        np.arange(len(target)), train_size=1000, stratify=target, random_state=seed
    )
    train, val = train_test_split(
        chosen, train_size=800, stratify=target[chosen], random_state=seed
    )
    parts = {"train": train, "val": val, "test": test}
    return Task(
        "digits",
        {split: pictures[index] for split, index in parts.items()},
        {split: target[index] for split, index in parts.items()},
    )


def load_backbone(path: Path) -> tuple[VisionTransformer, dict[str, str]]:
    """Rebuild the backbone from the file alone: its metadata hold the architecture."""
    with safe_open(path, framework="pt") as archive:
        metadata = dict(archive.metadata())
        state = {name: archive.get_tensor(name).float() for name in archive.keys()}  # noqa: SIM118
    model = VisionTransformer(**json.loads(metadata["architecture"]))
    model.load_state_dict(state)
    return model.eval(), metadata


@torch.inference_mode()
def class_tokens(
    model: VisionTransformer, metadata: dict[str, str], images: Images, batch_size: int = 256
) -> Features:
    """Class token after the final norm of every picture."""
    mean = torch.tensor(json.loads(metadata["mean"])).mul(255)
    std = torch.tensor(json.loads(metadata["std"])).mul(255)
    batches = []
    for start in range(0, len(images), batch_size):
        batch = torch.from_numpy(images[start : start + batch_size]).float()
        planes = ((batch - mean) / std).permute(0, 3, 1, 2)
        batches.append(model.forward_features(planes)[:, 0])
    return torch.cat(batches).numpy()


def raw_pixels(images: Images) -> Features:
    """All pixels of every picture, scaled to 0 to 1."""
    return images.reshape(len(images), -1).astype(np.float32) / np.float32(255)


def fit(features: Features, labels: Labels, inverse_weight_decay: float) -> Pipeline:
    """Fit a multinomial logistic regression on standardised features."""
    classifier = LogisticRegression(C=inverse_weight_decay, max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return make_pipeline(StandardScaler(), classifier).fit(features, labels)


def probe(task: Task, extract: Callable[[Images], Features]) -> Scores:
    """Choose the weight decay on val (on a tie the strongest) and measure on test."""
    x = {split: extract(images) for split, images in task.images.items()}
    y = task.labels
    fits = {c: fit(x["train"], y["train"], c) for c in INVERSE_WEIGHT_DECAYS}
    val = {c: float(model.score(x["val"], y["val"])) for c, model in fits.items()}
    best = max(INVERSE_WEIGHT_DECAYS, key=lambda c: (val[c], -c))
    both = fit(np.concatenate([x["train"], x["val"]]), np.concatenate([y["train"], y["val"]]), best)
    return Scores(
        inverse_weight_decay=best,
        val=val[best],
        test=float(fits[best].score(x["test"], y["test"])),
        test_refit=float(both.score(x["test"], y["test"])),
    )


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--weights", type=Path, required=True, help="backbone (.safetensors)")
    parser.add_argument("--pack", type=Path, help="task folder in the VTAB-1k list layout")
    parser.add_argument("--digits", action="store_true", help="probe on scikit-learn's digits")
    parser.add_argument("--seed", type=int, default=0, help="seed of the split of the digits")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    args = parser.parse_args()
    if args.pack is None and not args.digits:
        parser.error("nothing to probe on: give --pack, --digits or both")
    return args


def main() -> None:
    """Probe the given tasks and print a line per task and kind of features."""
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    model, metadata = load_backbone(args.weights)
    size = int(json.loads(metadata["architecture"])["img_size"])
    print(
        f"backbone after epoch {metadata['epoch']}, "
        f"pre-training val accuracy {100 * float(metadata['val_accuracy']):.2f} %"
    )
    tasks = [load_pack(args.pack, size)] if args.pack is not None else []
    if args.digits:
        tasks.append(load_digit_task(size, args.seed))
    kinds: dict[str, Callable[[Images], Features]] = {
        "vit_nano": lambda images: class_tokens(model, metadata, images),
        "raw pixels": raw_pixels,
    }
    for task in tasks:
        for kind, extract in kinds.items():
            scores = probe(task, extract)
            print(
                f"{task.name:12s} {kind:10s}  val {100 * scores.val:5.1f} %  "
                f"test {100 * scores.test:5.1f} %  "
                f"test after train+val {100 * scores.test_refit:5.1f} %  "
                f"(C = {scores.inverse_weight_decay:.2g})",
                flush=True,
            )


if __name__ == "__main__":
    main()
