"""The licence of a backbone's weights, as far as it is known; none is made up."""

import timm

from tcpa_core.model.timm_names import NANO
from tcpa_core.settings import BackboneConfig

NOT_RECORDED = "not recorded"


def licence_of(cfg: BackboneConfig) -> str:
    """What is known of a licence: an identifier as timm records it for weights of the hub, a
    sentence for the shipped ones, else "not recorded"."""
    if cfg.weights is None and cfg.full_name == NANO:
        return "non-commercial research and education, as Tiny-ImageNet on which they were trained"
    if cfg.weights == "random":
        return "none: the weights are random"
    known = timm.get_pretrained_cfg(cfg.full_name) if cfg.weights is None else None
    return (known.license if known else None) or NOT_RECORDED
