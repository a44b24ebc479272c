"""From the classes of a backbone's own classifier to those of the data: by predictions or by names.

Source:
    Tsao et al., AutoVP, ICLR 2024, its mappings without weights of their own.
"""

# Axes: S source classes, C classes, E features of a name.

import json
import os
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tcpa_core.errors import ConfigError, WeightsError
from tcpa_core.made_once import made_once
from tcpa_core.methods import base


def need_source_classes(setup: base.Setup, asked: str, per_class: int = 1) -> None:
    """Refuse an output mapping where the backbone has too few classes of its own.

    Raises:
        ConfigError: Saying how many there are.
    """
    found, needed = setup.backbone.num_source_classes, max(1, per_class * setup.num_classes)
    if found < needed:
        raise ConfigError(
            f"{asked} needs a backbone with a classifier of at least {needed} classes, got {found} "
            f"({setup.config.backbone.full_name!r}; a projection, as CLIP's, is none); use a "
            "trained head instead, or a weights file that holds its classifier."
        )


def frequency_map(counts: Tensor, num_map: int) -> Tensor:
    """Source classes (C, num_map) of each class, each source class used once.

    The largest count is served first; classes that are never predicted take what is left, in order.

    Args:
        counts: (S, C), how often a source class was predicted for a class.
    """
    sources, classes = counts.shape
    found: list[list[int]] = [[] for _ in range(classes)]
    free = set(range(sources))
    # Stable: equal counts are served in order, whatever the machine.
    for flat in counts.flatten().argsort(descending=True, stable=True).tolist():
        source, target = divmod(flat, classes)
        if counts[source, target] == 0:
            break
        if source in free and len(found[target]) < num_map:
            found[target].append(source)
            free.remove(source)
    left = iter(sorted(free))
    for row in found:
        row += [next(left) for _ in range(num_map - len(row))]
    return torch.tensor(found)


def semantic_map(source_SE: Tensor, target_CE: Tensor, num_map: int) -> Tensor:
    """Source classes (C, num_map) of each class by the similarity of names, each used once.

    Round-robin: in every round each class, in order, takes the most similar source class that is
    still free.

    Args:
        source_SE: Features of the source classes' names, of any length.
        target_CE: Of the classes' names.
    """
    # In double precision, lest rounding decides between names that are equally similar.
    similarity = F.normalize(target_CE.double(), dim=-1) @ F.normalize(source_SE.double(), dim=-1).T
    found: list[list[int]] = [[] for _ in similarity]
    for _ in range(num_map):
        for row, scores in zip(found, similarity, strict=True):
            row.append(int(scores.argmax()))
            # Taken: no other class may have it.
            similarity[:, row[-1]] = float("-inf")
    return torch.tensor(found)


def count_predictions(batches: Iterable[tuple[Tensor, Tensor]], num_classes: int) -> Tensor:
    """How often (S, C) each source class is predicted for each class."""
    counts = torch.zeros(0)
    for logits, labels in batches:
        if not len(counts):
            counts = torch.zeros(logits.shape[-1], num_classes)
        pairs = torch.stack([logits.argmax(-1).cpu(), labels.cpu()])
        counts.index_put_(tuple(pairs), torch.ones(len(labels)), accumulate=True)
    return counts


@made_once
def read_text_features(path: str) -> tuple[Tensor, Tensor, list[str]]:
    """Features of source and target names, and the target names."""
    try:
        with safe_open(os.path.expanduser(path), "pt") as file:
            names = json.loads((file.metadata() or {}).get("classes", "null"))
            source, target = file.get_tensor("source"), file.get_tensor("target")
    except (OSError, SafetensorError, ValueError, RuntimeError) as err:
        raise WeightsError(
            f"autovp.text_features: {path!r} cannot be read ({err}); give a safetensors file with "
            "tensors 'source' and 'target' and metadata 'classes'."
        ) from err
    fits = source.ndim == target.ndim == 2 and source.shape[1] == target.shape[1]
    if not fits or not isinstance(names, list) or len(names) != len(target):
        raise WeightsError(
            f"autovp.text_features: {path!r} must hold 'source' (S, E), 'target' (C, E) and the C "
            f"names of the target as metadata 'classes', got {tuple(source.shape)}, "
            f"{tuple(target.shape)} and {names!r:.80}."
        )
    return source, target, names


def check_text_features(path: str, setup: base.Setup) -> None:
    """Refuse text features of another classifier, or of another number of classes.

    Raises:
        ConfigError: Saying what was found.
    """
    source, target, _ = read_text_features(path)
    wanted = (setup.backbone.num_source_classes, setup.num_classes)
    if (len(source), len(target)) != wanted:
        raise ConfigError(
            f"autovp.text_features: {path!r} has features of {len(source)} source and "
            f"{len(target)} target names, the backbone's classifier and the data set have "
            f"{wanted[0]} and {wanted[1]}; make it for them."
        )
