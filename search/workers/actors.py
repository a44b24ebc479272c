"""Ray actors that import the installed packages, wherever their processes were started.

Ray puts the driver's current folder, that of its script and the node's PYTHONPATH before everything
else, and an actor's class travels as the name of its module. A worker would take a user's
`search.py` for the package. So a function that mends the path travels first, by value.
"""

from types import FunctionType
from typing import Any

import ray

from tcpa_core.command import HOME, prefer_installed

_SENT = FunctionType(prefer_installed.__code__, prefer_installed.__globals__)
"""A copy: Ray sends as code what no module holds under its name."""


class _Mend:
    """Becomes a call of `prefer_installed` where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _SENT, (HOME,)  # workers take our packages from there if they have it


def actor_class(cls: type, **options: Any) -> Any:
    """`ray.remote(**options)(cls)`, unpickled only after the path is mended."""

    class First:  # bases are pickled in their order, and local classes by value
        mended = _Mend()

    sent = type(cls.__name__, (First, cls), {"__module__": cls.__module__, "__doc__": cls.__doc__})
    return ray.remote(**options)(sent) if options else ray.remote(sent)
