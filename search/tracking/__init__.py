"""MLflow: the mirror of a study's journal."""
