"""Find parts by file name: a public module of a package is one method, data set, protocol or plot.

`base.py` is the package's contract and files that start with `_` are its helpers; neither counts.
Folders outside the package are looked through as well: with TCPA_PLUGINS=DIR, DIR/methods/mine.py
is the method "mine" and DIR/data/mine.py a data set. Processes that a study starts on this machine
inherit the variable.
"""

import os
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType

from tcpa_core.errors import PluginError, nearest


def names(package: str) -> tuple[str, ...]:
    """List the plugin names of a package, sorted.

    Args:
        package: Dotted package name, for example "tcpa_core.methods".

    Raises:
        PluginError: A folder of TCPA_PLUGINS does not exist, or has a file of a name that is taken.
    """
    folders = _folders(package)
    found = [m.name for folder in folders for m in iter_modules([folder]) if not m.ispkg]
    public = sorted(n for n in found if n != "base" and not n.startswith("_"))
    for name, following in zip(public, public[1:], strict=False):
        if name == following:
            places = [folder for folder in folders if (Path(folder) / f"{name}.py").is_file()]
            raise PluginError(
                f"two files are called {name!r}: in {' and '.join(places)}; rename the one under "
                "TCPA_PLUGINS."
            )
    return tuple(public)


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


def _folders(package: str) -> list[str]:
    """Folders of a package, its own first; modules of the others become importable under it."""
    path = import_module(package).__path__
    for root in filter(None, os.environ.get("TCPA_PLUGINS", "").split(os.pathsep)):
        if not Path(root).is_dir():
            raise PluginError(
                f"TCPA_PLUGINS names {root!r}, which is no folder; give the folder that holds "
                "methods/ or data/."
            )
        folder = str(Path(root).resolve() / package.rsplit(".", 1)[-1])
        if folder not in path:
            path.append(folder)
    return list(path)
