"""A class for each picture."""

from tcpa_core.tasks import base


class Config(base.TaskSettings):
    """Nothing to set."""


class Task(base.Task):
    """One vector of a picture, one distribution over classes."""
