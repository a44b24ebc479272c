"""Find methods, data sets, samplers ... by name; each is a module, none is listed.

Three places are looked through, taking methods as the example:

1. The package tcpa_core/methods: every public file is a method. `base.py` is the contract and files
   that start with `_` are its helpers; neither counts.
2. Folders of the user: with TCPA_PLUGINS=DIR, DIR/methods/mine.py is the method "mine". Processes
   that a study starts get the variable.
3. Installed packages: an entry point `mine = "package.module"` of the group "tcpa.methods" makes
   that module the method "mine".
"""

import hashlib
import os
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType

from tcpa_core.errors import PluginError, nearest

EXPORTS: Mapping[str, tuple[str, ...]] = {
    "tcpa_core.methods": ("Config", "Method"),
    "tcpa_core.data": ("read",),
    "tcpa_core.tasks": ("Config", "Task"),
    "tcpa_core.protocols": ("PROTOCOL",),
    "reports.plots": ("TITLE", "KINDS", "PLACE", "prepare", "draw"),
    "search.proposals.samplers": ("Sampler",),
    "search.tune.schedulers": ("Scheduler",),
}
"""What a plugin of each package defines."""


def names(package: str) -> tuple[str, ...]:
    """List the plugin names of a package, sorted.

    Args:
        package: Dotted package name, for example "tcpa_core.methods".

    Raises:
        PluginError: A folder of TCPA_PLUGINS does not exist, an entry point names no module, or
            two plugins have one name.
    """
    places: dict[str, list[str]] = {}
    for folder in _folders(package):
        for found in iter_modules([folder]):
            if not found.ispkg and _is_public(found.name):
                places.setdefault(found.name, []).append(folder)
    for name, point in _installed(package).items():
        places.setdefault(name, []).append(_place(point))
    for name in sorted(places):
        if len(places[name]) > 1:
            is_installed = name in _installed(package)
            culprit = "that entry point" if is_installed else "the one under TCPA_PLUGINS"
            raise PluginError(
                f"two files are called {name!r}: in {' and '.join(places[name])}; rename {culprit}."
            )
    return tuple(sorted(places))


def load(package: str, name: str) -> ModuleType:
    """Import one plugin module.

    Raises:
        PluginError: There is no public module of that name, that of an entry point cannot be
            imported, or it lacks what its kind defines.
    """
    known = names(package)
    if name not in known:
        kind = package.rsplit(".", 1)[-1].rstrip("s")
        raise PluginError(
            f"no {kind} {name!r} in {package.replace('.', '/')}{nearest(name, known)}. "
            f"Available: {', '.join(known)}. TCPA_PLUGINS names folders with others."
        )
    point = _installed(package).get(name)
    if point is None:
        found = import_module(f"{package}.{name}")
    else:
        try:
            found = import_module(point.value)
        except ImportError as err:
            raise PluginError(
                f"{_place(point)} cannot be imported ({err}); repair or uninstall that package."
            ) from err
    needed = EXPORTS.get(package, ())
    if lacking := [one for one in needed if not hasattr(found, one)]:
        raise PluginError(
            f"{found.__file__} does not define {lacking[0]!r}; a file of "
            f"{package.replace('.', '/')} defines {', '.join(needed)}."
        )
    return found


def digest() -> str:
    """Hash of all Python files below the folders of TCPA_PLUGINS; "": there are none.

    Raises:
        PluginError: A folder does not exist.
    """
    found, roots = hashlib.sha256(), _roots()
    for root in roots:
        for path in sorted(root.rglob("*.py")):
            found.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return found.hexdigest() if roots else ""


@cache
def source_hash(package: str, name: str) -> str:
    """Hash of a plugin's file and of the helpers beside it; 16 hex digits.

    Raises:
        PluginError: There is no such plugin.
    """
    path = Path(str(load(package, name).__file__))
    found = hashlib.sha256(path.read_bytes())
    for helper in sorted(path.parent.glob("_*.py")):
        found.update(helper.name.encode() + helper.read_bytes())
    return found.hexdigest()[:16]


def name_of(package: str, module: str) -> str:
    """The name under which a plugin module is found: that of its file or of its entry point."""
    return _names_by_module(package).get(module) or module.rsplit(".", 1)[-1]


def _is_public(name: str) -> bool:
    return name != "base" and not name.startswith("_")


def _roots() -> list[Path]:
    """The folders of TCPA_PLUGINS.

    Raises:
        PluginError: One does not exist.
    """
    roots = [Path(root) for root in os.environ.get("TCPA_PLUGINS", "").split(os.pathsep) if root]
    for root in roots:
        if not root.is_dir():
            raise PluginError(
                f"TCPA_PLUGINS names {str(root)!r}, which is no folder; give the folder that holds "
                "methods/ or data/."
            )
    return roots


def _folders(package: str) -> list[str]:
    """Folders of a package, its own first; modules of the others become importable under it."""
    path = import_module(package).__path__
    for root in _roots():
        folder = str(root.resolve() / package.rsplit(".", 1)[-1])
        # The package's own search path: what is appended is imported as tcpa_core.methods.NAME.
        if folder not in path:
            path.append(folder)
    return list(path)


@cache  # reads the metadata of every installed package, which takes some milliseconds
def _installed(package: str) -> Mapping[str, EntryPoint]:
    """Entry points of installed packages by name; only their metadata are read, no module."""
    found: dict[str, EntryPoint] = {}
    by_module: dict[str, EntryPoint] = {}
    group = f"tcpa.{package.rsplit('.', 1)[-1]}"
    for point in sorted(entry_points(group=group), key=lambda p: (p.name, p.value)):
        if not point.name.isidentifier() or not _is_public(point.name) or point.attr:
            raise PluginError(
                f"{_place(point)} must give a module, without ':', a name of letters, digits and "
                "underscores that starts with a letter and is not 'base'; write for example "
                "gain = 'my_package.gain'."
            )
        other = found.get(point.name) or by_module.get(point.value)
        if other:  # a module's name is that of its one entry point, see `name_of`
            raise PluginError(
                f"{_place(other)} and {_place(point)} must differ in name and in module; rename "
                "one of them or uninstall its package."
            )
        found[point.name] = by_module[point.value] = point
    return found


@cache
def _names_by_module(package: str) -> Mapping[str, str]:
    return {point.value: name for name, point in _installed(package).items()}


def _place(point: EntryPoint) -> str:
    owner = f"{point.dist.name} {point.dist.version}" if point.dist else "an unnamed package"
    return f"the entry point {point.name} = {point.value!r} ({point.group}) of {owner}"
