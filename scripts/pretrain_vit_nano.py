"""Pre-train ``vit_nano``, the small vision transformer that is shipped with the package.

The backbone is a timm ``VisionTransformer`` for 32x32 pictures, trained from scratch as a 180-way
classifier on a subset of Tiny-ImageNet.  The training runs on a CPU: the pictures are decoded once
into memory and augmented as tensors, a batch at a time.

After every epoch two files are written, each through a rename so that a reader never sees half of
one: a resumable state in ``--work`` and the current backbone (float16 safetensors with timm's
parameter names, classifier head included) at ``--out``.  Running the same command again goes on
from the last finished epoch; a different ``--epochs`` then re-plans the rest of the schedule.

Example::

    python scripts/pretrain_vit_nano.py --data tiny_imagenet_180.npz \
        --out tcpa_core/weights/vit_nano.safetensors --work runs/nano --epochs 30 --threads 2
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import set_fused_attn
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

ARCHITECTURE: dict[str, int | bool] = {
    "img_size": 32,
    "patch_size": 8,
    "embed_dim": 128,
    "depth": 6,
    "num_heads": 4,
    "mlp_ratio": 4,
    "class_token": True,
    "num_classes": 180,
}
STATE_NAME = "state.pt"


@dataclass(frozen=True)
class Recipe:
    """Everything besides the data that decides the result of a training run."""

    epochs: int
    seed: int = 0
    batch_size: int = 256
    lr: float = 1.5e-3
    min_lr: float = 1e-5
    weight_decay: float = 0.05
    warmup_epochs: float = 1.5
    grad_clip: float = 1.0
    label_smoothing: float = 0.1
    crop_padding: int = 4
    colour: float = 0.2
    mix_prob: float = 0.2
    mixup_alpha: float = 0.2


@dataclass(frozen=True)
class Split:
    """Decoded pictures (uint8, N x H x W x 3) with their labels (int64, N)."""

    images: Tensor
    labels: Tensor


def load_split(path: Path, split: str, limit: int | None = None) -> Split:
    """Decode one split (``train`` or ``val``) of the packed JPEG archive into memory.

    Picture i of a split is the shared prefix followed by bytes ``offsets[i]:offsets[i + 1]``.
    """
    with np.load(path, allow_pickle=False) as archive:
        prefix = archive["jpeg_prefix"].tobytes()
        body = archive[f"{split}_bytes"].tobytes()
        offsets = archive[f"{split}_offsets"].astype(np.int64)
        labels = archive[f"{split}_labels"].astype(np.int64)
    count = len(labels) if limit is None else min(limit, len(labels))
    size = int(ARCHITECTURE["img_size"])
    images = np.empty((count, size, size, 3), dtype=np.uint8)
    for i in range(count):
        stream = io.BytesIO(prefix + body[offsets[i] : offsets[i + 1]])
        with Image.open(stream) as picture:
            images[i] = np.asarray(picture.convert("RGB"))
    return Split(torch.from_numpy(images), torch.from_numpy(labels[:count]))


def normalise(images: Tensor) -> Tensor:
    """Turn uint8 pictures (N x H x W x 3) into normalised float planes (N x 3 x H x W)."""
    mean = torch.tensor(IMAGENET_DEFAULT_MEAN).mul(255)
    scale = torch.tensor(IMAGENET_DEFAULT_STD).mul(255).reciprocal()
    return images.float().sub_(mean).mul_(scale).permute(0, 3, 1, 2).contiguous()


def crop_and_flip(images: Tensor, index: Tensor, padding: int, rng: torch.Generator) -> Tensor:
    """Gather the pictures ``index`` with a random shift (mirrored border) and horizontal flip."""
    size = images.shape[1]
    count = len(index)
    axis = torch.arange(size)
    shift = torch.randint(-padding, padding + 1, (2, count, 1), generator=rng)
    flip = torch.rand(count, 1, generator=rng) < 0.5
    rows = axis + shift[0]
    cols = torch.where(flip, axis.flip(0), axis) + shift[1]
    rows, cols = ((size - 1) - ((size - 1) - a.abs()).abs() for a in (rows, cols))
    return images[index[:, None, None], rows[:, :, None], cols[:, None, :]]


def jitter_colour(planes: Tensor, strength: float, rng: torch.Generator) -> Tensor:
    """Change brightness, contrast and saturation of each normalised picture a little."""
    if strength <= 0:
        return planes
    shape = (len(planes), 1, 1, 1)
    brightness, contrast, saturation = (
        (torch.rand(shape, generator=rng) * 2 - 1) * strength for _ in range(3)
    )
    grey = planes.mean(1, keepdim=True)
    centre = grey.mean((2, 3), keepdim=True)
    planes = torch.lerp(grey, planes, 1 + saturation)
    return (planes - centre) * (1 + contrast) + centre + brightness


def mix(planes: Tensor, recipe: Recipe, rng: torch.Generator) -> tuple[Tensor, float]:
    """Blend the batch with itself rolled by one (mixup or cutmix, half of the times each).

    Returns the pictures and the share that belongs to the unrolled labels.
    """
    if float(torch.rand((), generator=rng)) >= recipe.mix_prob:
        return planes, 1.0
    other = planes.roll(1, 0)
    if float(torch.rand((), generator=rng)) < 0.5:
        # Beta(a, a) as a ratio of gamma variates, which torch can draw from a generator.
        gamma = torch._standard_gamma(torch.full((2,), recipe.mixup_alpha), generator=rng)
        keep = float(gamma[0] / gamma.sum().clamp_min(1e-12))
        return torch.lerp(other, planes, keep), keep
    size = planes.shape[-1]
    side = int(size * math.sqrt(float(torch.rand((), generator=rng))))
    top, left = torch.randint(0, size - side + 1, (2,), generator=rng).tolist()
    window = (..., slice(top, top + side), slice(left, left + side))
    planes[window] = other[window]
    return planes, 1 - (side / size) ** 2


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Split the parameters: only matrices are decayed, not biases, norms, tokens or positions."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        tokens = name in ("cls_token", "pos_embed")
        (plain if parameter.ndim < 2 or tokens else decayed).append(parameter)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]


def learning_rate(progress: float, recipe: Recipe) -> float:
    """Linear warm-up, then half a cosine; ``progress`` counts epochs from 0 to the last."""
    if progress < recipe.warmup_epochs:
        return recipe.lr * max(progress / recipe.warmup_epochs, 1e-3)
    span = max(recipe.epochs - recipe.warmup_epochs, 1e-9)
    phase = min((progress - recipe.warmup_epochs) / span, 1.0)
    return recipe.min_lr + (recipe.lr - recipe.min_lr) * 0.5 * (1 + math.cos(math.pi * phase))


def train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: Split,
    recipe: Recipe,
    epoch: int,
    max_steps: int | None = None,
) -> tuple[float, int]:
    """Train for one epoch and return the mean loss with the number of pictures seen.

    All random choices of an epoch follow from the seed and its number, so a resumed run is the
    same as an uninterrupted one.
    """
    model.train()
    rng = torch.Generator().manual_seed(recipe.seed * 100_003 + epoch)
    order = torch.randperm(len(data.labels), generator=rng)
    steps = len(order) // recipe.batch_size
    planned = steps if max_steps is None else min(steps, max_steps)
    total = 0.0
    for step in range(planned):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(epoch + step / steps, recipe)
        index = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
        planes = normalise(crop_and_flip(data.images, index, recipe.crop_padding, rng))
        planes, keep = mix(jitter_colour(planes, recipe.colour, rng), recipe, rng)
        labels = data.labels[index]
        logits = model(planes)
        smoothing = recipe.label_smoothing
        loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
        if keep < 1:
            rolled = F.cross_entropy(logits, labels.roll(1), label_smoothing=smoothing)
            loss = keep * loss + (1 - keep) * rolled
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), recipe.grad_clip)
        optimizer.step()
        total += float(loss.detach())
        if not math.isfinite(total):
            raise RuntimeError(f"loss is not finite in epoch {epoch + 1}, step {step + 1}")
    return total / max(planned, 1), planned * recipe.batch_size


@torch.inference_mode()
def evaluate(model: nn.Module, data: Split, batch_size: int = 512) -> float:
    """Top-1 accuracy (0 to 1) on undistorted pictures."""
    model.eval()
    hits = 0
    for start in range(0, len(data.labels), batch_size):
        logits = model(normalise(data.images[start : start + batch_size]))
        hits += int((logits.argmax(1) == data.labels[start : start + batch_size]).sum())
    return hits / max(len(data.labels), 1)


def export(model: nn.Module, path: Path, metadata: dict[str, str]) -> None:
    """Write the whole model as float16 safetensors, replacing ``path`` in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    partial = path.with_name(path.name + ".partial")
    save_file(tensors, partial, metadata=metadata)
    partial.chmod(0o644)  # safetensors writes files that only their owner may read
    os.replace(partial, path)


def save_state(path: Path, state: dict[str, object]) -> None:
    """Write the resumable state, replacing ``path`` in one step."""
    partial = path.with_name(path.name + ".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--data", type=Path, required=True, help="packed JPEG archive (.npz)")
    parser.add_argument("--out", type=Path, required=True, help="backbone to write (.safetensors)")
    parser.add_argument("--work", type=Path, required=True, help="folder of the resumable state")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--batch-size", type=int, default=Recipe.batch_size)
    parser.add_argument("--lr", type=float, default=Recipe.lr)
    parser.add_argument("--weight-decay", type=float, default=Recipe.weight_decay)
    parser.add_argument("--mix-prob", type=float, default=Recipe.mix_prob)
    parser.add_argument("--limit", type=int, help="use only the first pictures (a quick check)")
    parser.add_argument("--max-steps", type=int, help="steps per epoch at most (a quick check)")
    return parser.parse_args()


def main() -> None:
    """Train, report a line per epoch and export after each."""
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(args.seed)
    recipe = Recipe(
        epochs=args.epochs,
        seed=args.seed,
        batch_size=args.batch_size,
        lr=args.lr,
        weight_decay=args.weight_decay,
        mix_prob=args.mix_prob,
    )
    set_fused_attn(False)  # for 17 tokens on a CPU plain attention trains 1.5 times faster
    model = VisionTransformer(**ARCHITECTURE)
    optimizer = torch.optim.AdamW(
        parameter_groups(model, recipe.weight_decay), lr=recipe.lr, fused=True
    )
    first, spent = 0, 0.0
    args.work.mkdir(parents=True, exist_ok=True)
    state_path = args.work / STATE_NAME
    if state_path.exists():
        state = torch.load(state_path, map_location="cpu", weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first, spent = state["epoch"], state["seconds"]
        print(f"resuming after epoch {first}", flush=True)

    started = time.perf_counter()
    train, val = (load_split(args.data, split, args.limit) for split in ("train", "val"))
    print(
        f"{len(train.labels)} train and {len(val.labels)} val pictures decoded in "
        f"{time.perf_counter() - started:.1f} s; "
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.3f} M parameters; "
        f"recipe {json.dumps(asdict(recipe))}",
        flush=True,
    )
    for epoch in range(first, recipe.epochs):
        started = time.perf_counter()
        loss, seen = train_epoch(model, optimizer, train, recipe, epoch, args.max_steps)
        seconds = time.perf_counter() - started
        accuracy = evaluate(model, val)
        spent += time.perf_counter() - started
        save_state(
            state_path,
            {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "epoch": epoch + 1,
                "seconds": spent,
            },
        )
        export(
            model,
            args.out,
            {
                "format": "pt",
                "architecture": json.dumps(ARCHITECTURE),
                "recipe": json.dumps(asdict(recipe)),
                "epoch": str(epoch + 1),
                "val_accuracy": f"{accuracy:.4f}",
                "mean": json.dumps(IMAGENET_DEFAULT_MEAN),
                "std": json.dumps(IMAGENET_DEFAULT_STD),
            },
        )
        print(
            f"epoch {epoch + 1}/{recipe.epochs}  loss {loss:.4f}  val {100 * accuracy:.2f} %  "
            f"lr {optimizer.param_groups[0]['lr']:.2e}  {seen / seconds:.0f} img/s  "
            f"{spent / 60:.1f} min",
            flush=True,
        )


if __name__ == "__main__":
    main()
