"""The contract of a task. A new one is a public file of this folder, `<name>.py`, which exports

    class Config(TaskSettings)
    class Task(base.Task)

and whose settings are the paths `<name>.*` of trials whose `task.name` it is.
"""

from tcpa_core.settings import Settings


class TaskSettings(Settings):
    """Base of every task's `Config`."""

    def pack_key(self) -> tuple[object, ...]:
        """Members of one pack have equal keys: all settings, as these shape the head."""
        return tuple(getattr(self, name) for name in type(self).model_fields)


class Task:
    """What a trial is trained for."""
