"""What a study recorded, read from its folder or from MLflow."""
