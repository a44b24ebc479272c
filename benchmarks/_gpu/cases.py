"""Trials of every method, small enough for a short run."""

from typing import Any

from tcpa_core import plugins
from tcpa_core.config import METHODS, Flat, TrialConfig

SMALLER: dict[str, dict[str, Any]] = {
    "lion": {"lion.bottleneck": 8},
    "damvp": {"damvp.max_clusters": 4},
    "sa2vp": {"sa2vp.inner_dim": 4},
}
"""Where a method's defaults are for larger networks."""
UNEQUAL: dict[str, dict[str, Any]] = {
    "tcpa": {"tcpa.num_cls_prompts": 6, "tcpa.num_image_prompts": 14},
    "vpt": {"vpt.num_prompts": 6},
    "cvpt": {"cvpt.num_prompts": 6},
}
"""Other sizes for a second member, so that there is padding."""


def all_methods() -> list[str]:
    """Every method that there is."""
    return list(plugins.names(METHODS))


def trial(method: str, base: Flat, seed: int = 0) -> TrialConfig:
    """A trial of one method; a seed above 0 has other sizes."""
    sizes = UNEQUAL.get(method, {}) if seed else {}
    return TrialConfig.from_flat(
        {**base, "methods": [method], **SMALLER.get(method, {}), **sizes, "seed": seed}
    )
