"""A trained trial as MLflow loads and serves it: this file is the code of the logged model.

MLflow copies it beside the trial's tensors and runs it when the model is loaded; nothing is
unpickled. It needs this package where it is loaded, and the backbone's weights, which are found by
their hash; `load_model(uri, model_config={"weights": FILE})` names them. A driver that logs the
model runs it, too, so that torch is loaded where a trial is.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow import models, pyfunc

ARTIFACT = "trial"
"""Name of the trial's checkpoint among the model's files."""


class ServedTrial(pyfunc.PythonModel):  # type: ignore[misc]
    """Classifies pictures as the trial's test did."""

    def load_context(self, context: Any) -> None:
        """Load the trial. `model_config` may have "weights" and "device"."""
        from tcpa_core.training.trained import load_trained

        settings: Mapping[str, Any] = context.model_config or {}
        self._model = load_trained(
            context.artifacts[ARTIFACT],
            device=settings.get("device") or "cpu",
            weights=settings.get("weights"),
        )

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Class and probability of each picture.

        Args:
            model_input: Paths of pictures, or of folders of them: a table of one column, which
                MLflow makes of a list or of one path.

        Returns:
            A row for each picture: "path", "label" (name of the class), "probability". Of a
            segmentation the largest class, and its share of the pixels.
        """
        paths = [path for given in model_input.iloc[:, 0] for path in _pictures(given)]
        found = self._model.predict(paths)
        probability = found.probabilities.max(-1).values.tolist() if paths else []
        return pd.DataFrame({"path": paths, "label": found.names, "probability": probability})


def _pictures(path: str) -> Iterator[str]:
    """A picture, or those below a folder in the order of their names."""
    if not os.path.isdir(path):
        yield path
        return
    from tcpa_core.data._formats import SUFFIXES

    for file in sorted(Path(path).rglob("*")):
        if file.suffix.lower() in SUFFIXES and file.is_file():
            yield str(file)


models.set_model(ServedTrial())
