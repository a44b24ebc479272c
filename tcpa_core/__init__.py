"""TCPA Search core: frozen ViT backbones, prompt methods, packs of trials.

Names are loaded on first use, so that light processes (drivers, reports) can import settings and
record types without importing torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tcpa_core.config import TrialConfig
    from tcpa_core.model.single_model import build_model
    from tcpa_core.record.values import EpochReport, TrialResult
    from tcpa_core.training.export import export_trial
    from tcpa_core.training.run_trial import run_trial
    from tcpa_core.training.trained import load_trained

__all__ = [
    "EpochReport",
    "TrialConfig",
    "TrialResult",
    "build_model",
    "export_trial",
    "load_trained",
    "run_trial",
]
__version__ = "0.1.0"

_HOME = {
    "TrialConfig": "config",
    "EpochReport": "record.values",
    "TrialResult": "record.values",
    "build_model": "model.single_model",
    "export_trial": "training.export",
    "load_trained": "training.trained",
    "run_trial": "training.run_trial",
}


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"tcpa_core.{_HOME[name]}"), name)
    raise AttributeError(f"module 'tcpa_core' has no attribute {name!r}")
