"""Ray actors that import the installed packages, wherever their processes were started.

Ray puts the driver's current folder, that of its script and the node's PYTHONPATH before everything
else, and an actor's class travels as the name of its module. A worker would take a user's
`search.py` for the package. So a function that mends the path travels first, by value.
"""

from pathlib import Path
from typing import Any

import ray
from ray import cloudpickle

import tcpa_command

cloudpickle.register_pickle_by_value(tcpa_command)
HOME = str(Path(tcpa_command.__file__).parent)
"""Folder of this process's packages; workers take theirs from there if they have it."""


class _Mend:
    """Becomes a call of `prefer_installed` where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return tcpa_command.prefer_installed, (HOME,)


def actor_class(cls: type, **options: Any) -> Any:
    """`ray.remote(**options)(cls)`, unpickled only after the path is mended."""

    class First:  # bases are pickled in their order, and local classes by value
        mended = _Mend()

    sent = type(cls.__name__, (First, cls), {"__module__": cls.__module__, "__doc__": cls.__doc__})
    return ray.remote(**options)(sent) if options else ray.remote(sent)
