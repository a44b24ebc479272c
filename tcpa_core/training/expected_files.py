"""Whether files of this machine are still those that a study was planned with.

A folder may vanish or change after it was looked at. Then no trial is at fault that meets it, and
none may train on what is there now.
"""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tcpa_core.config import TrialConfig
from tcpa_core.errors import DataError, NodeError, WeightsError
from tcpa_core.settings import BackboneConfig, DataConfig
from tcpa_core.training.stand_ins import StandIns


@dataclass(frozen=True, slots=True)
class ExpectedFiles:
    """Fingerprints as the plan found them; what is not among them is not judged."""

    data: Mapping[DataConfig, str] = field(default_factory=dict)
    weights: Mapping[BackboneConfig, str] = field(default_factory=dict)

    def check_loaded(self, config: TrialConfig, data: str, weights: str) -> None:
        """Refuse what was loaded for a trial if it is something else.

        Args:
            config: Settings of the trial.
            data: Fingerprint of the data that were loaded.
            weights: Of the weights.

        Raises:
            NodeError: It is something else.
        """
        if self.data.get(config.data, data) != data:
            raise NodeError(_changed("data", config.data.root or config.data.name))
        if self.weights.get(config.backbone, weights) != weights:
            raise NodeError(_changed("weights", config.backbone.weights or config.backbone.name))

    def check_again(
        self, stand_ins: StandIns, cache_dir: Path | None, sign: Callable[[], None]
    ) -> None:
        """Read every file again, those too whose hashes are remembered.

        Args:
            stand_ins: What stands for files that this machine lacks.
            cache_dir: Where copies of those are.
            sign: Called as files are read.

        Raises:
            NodeError: One cannot be read, or has changed.
        """
        try:
            with tempfile.TemporaryDirectory(prefix="tcpa-") as folder:
                empty = Path(folder)  # a cache that remembers nothing
                for data, expected in self.data.items():
                    sign()
                    found = stand_ins.data_fingerprint(
                        data, cache_dir, lambda *_: sign(), memory=empty
                    )
                    if found != expected:
                        raise NodeError(_changed("data", data.root or data.name))
                for backbone, expected in self.weights.items():
                    sign()
                    if stand_ins.weights_fingerprint(backbone, cache_dir) != expected:
                        raise NodeError(_changed("weights", backbone.weights or backbone.name))
        except (DataError, WeightsError) as err:
            raise NodeError(str(err)) from err


def _changed(what: str, where: str) -> str:
    return f"its {what} of {where} have changed since the study was planned; restore what was there"
