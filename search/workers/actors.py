"""Ray actors that import the installed packages, wherever their processes were started.

Ray puts the driver's current folder, that of its script and the node's PYTHONPATH before everything
else, and an actor's class travels as the name of its module. A worker would take a user's
`search.py` for the package. So a function that mends the path travels first, by value.
"""

from collections.abc import Callable
from types import FunctionType
from typing import Any

import ray

from tcpa_core.command import HOME, prefer_installed


def _copy(function: Callable[..., Any]) -> FunctionType:
    """Ray sends as code what no module holds under its name."""
    assert isinstance(function, FunctionType)
    return FunctionType(function.__code__, function.__globals__)


class _Mend:
    """Becomes a call of `prefer_installed` where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _copy(prefer_installed), (HOME,)  # workers take our packages from there if they can


def actor_class(cls: type, *, as_code: bool = False, **options: Any) -> Any:
    """`ray.remote(**options)(cls)`, unpickled only after the path is mended.

    Args:
        as_code: The class itself travels, for nodes that may not have our package. Its methods
            may have no defaults and use nothing of their module but what it imports.
    """

    class First:  # bases are pickled in their order, and local classes by value
        mended = _Mend()

    base = _as_code(cls) if as_code else cls
    sent = type(cls.__name__, (First, base), {"__module__": cls.__module__, "__doc__": cls.__doc__})
    return ray.remote(**options)(sent) if options else ray.remote(sent)


def _as_code(cls: type) -> type:
    """A copy of a class, methods included, so that neither is found by its name."""
    body: dict[str, Any] = {}
    for name, value in vars(cls).items():
        if isinstance(value, FunctionType):
            body[name] = _copy(value)
        elif isinstance(value, staticmethod):
            body[name] = staticmethod(_copy(value.__func__))
        elif not name.startswith("__"):
            body[name] = value
    return type(cls.__name__, cls.__bases__, body | {"__module__": cls.__module__})
