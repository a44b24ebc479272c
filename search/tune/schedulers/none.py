"""All trials train to their end."""

from search.tune.schedulers import base


class Scheduler(base.Scheduler):
    """See the module."""
