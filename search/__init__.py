"""Plan, sample, schedule, place, record and resume studies; the `tcpa` command."""

import os

# Before MLflow is imported: it would write into the home folder.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
