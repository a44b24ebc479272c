"""Find parts by file name: a public module of a package is one method, dataset, preset or plot.

`base.py` is the package's contract and files that start with `_` are its helpers; neither counts.
"""

from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

from tcpa_core.errors import PluginError, nearest


def names(package: str) -> tuple[str, ...]:
    """List the plugin names of a package, sorted.

    Args:
        package: Dotted package name, for example "tcpa_core.methods".
    """
    path = import_module(package).__path__
    found = (module.name for module in iter_modules(path) if not module.ispkg)
    return tuple(sorted(n for n in found if n != "base" and not n.startswith("_")))


def load(package: str, name: str) -> ModuleType:
    """Import one plugin module.

    Raises:
        PluginError: The package has no public module of that name.
    """
    known = names(package)
    if name not in known:
        kind = package.rsplit(".", 1)[-1].rstrip("s")
        raise PluginError(
            f"no {kind} {name!r} in {package.replace('.', '/')}{nearest(name, known)}. "
            f"Available: {', '.join(known)}."
        )
    return import_module(f"{package}.{name}")
