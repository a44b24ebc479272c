"""Where the `tcpa` command begins: here it is settled what `import search` means.

`search`, `spaces` and `reports` are names that a user's folder or another distribution may have as
well. So this module imports none of them before that is clear.
"""

import os
import sys
from collections.abc import Iterator
from importlib import metadata
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path

DISTRIBUTION = "tcpa-search"
NAMES = ("tcpa_core", "spaces", "search", "reports")
"""What the distribution installs."""
HOME = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
"""Folder of our packages."""
_ADVICE = (
    f"uninstall that, then install {DISTRIBUTION} again; each in an environment of its own keeps "
    "both."
)


def prefer_installed(home: str = HOME) -> None:
    """Let imports mean our packages, whatever a script's folder or PYTHONPATH holds.

    Such folders stand before the standard library's; they go behind all others. One that holds a
    name of ours is left out, because editable installs are asked after all folders.

    Workers run it as well, before they import anything of ours: it travels as code, so it uses
    nothing of this module but constants (`search.workers.actors`).

    Args:
        home: Folder of our packages. On a node that has none there, what is installed is meant.
    """

    def file_of(spec: ModuleSpec | None) -> str:  # "": absent, or a folder without __init__.py
        return os.path.realpath(spec.origin) if spec and spec.origin else ""

    def in_folder(folder: str, name: str) -> ModuleSpec | None:
        return PathFinder.find_spec(name, [folder])

    stdlib = os.path.dirname(os.__file__)
    first = sys.path.index(stdlib) if stdlib in sys.path else 0
    before, sys.path[:] = sys.path[:first], sys.path[first:]
    if os.path.isfile(os.path.join(home, "search", "__init__.py")):
        if any(file_of(find_spec(name)) != file_of(in_folder(home, name)) for name in NAMES):
            sys.path.insert(0, home)
    ours = {name: file_of(find_spec(name)) for name in NAMES}
    for folder in before:
        found = {name: in_folder(folder, name) for name in NAMES}
        if all(spec is None or file_of(spec) == ours[name] for name, spec in found.items()):
            sys.path.append(folder)


def installation_fault() -> str | None:
    """Which file of ours is not ours, whose it is and what to do; None: all is well.

    Another distribution may have a package `spaces`, too. Installed later, it overwrites files of
    ours or, where ours are not in site-packages, comes first; uninstalled, it takes them along.
    """
    path = sys.path[1:] if sys.path[0] == HOME else sys.path  # as before `prefer_installed`
    for name in NAMES:
        if not os.path.isfile(ours := os.path.join(HOME, name, "__init__.py")):
            return _missing(Path(ours))
        spec = PathFinder.find_spec(name, path)
        found = Path(spec.origin) if spec and spec.origin else None
        owner = _owner(found) if found and not found.samefile(ours) else None
        if owner:
            return f"'import {name}' finds {found} of {owner} instead of {ours}; {_ADVICE}"
    for file, size in _recorded(DISTRIBUTION):
        if not file.exists():
            return _missing(file)
        owner = _owner(file) if file.stat().st_size != size else None
        if owner:  # else the user's own change
            return f"{file} of {DISTRIBUTION} was overwritten by {owner}; {_ADVICE}"
    return None


def entry() -> None:
    """The console script."""
    prefer_installed()
    fault = installation_fault()
    if fault:
        print(f"error: {fault}", file=sys.stderr)
        sys.exit(2)
    from search.cli import entry as run

    run()


def _recorded(distribution: str) -> Iterator[tuple[Path, int]]:
    """Files below our names that a distribution has installed, with their sizes in bytes.

    None of an editable install, and none of one that keeps no record.
    """
    for found in metadata.distributions(name=distribution):
        for file in found.files or ():
            if file.parts[0].removesuffix(".py") in NAMES and file.size is not None:
                yield Path(str(file.locate())), file.size


def _owner(file: Path) -> str | None:
    """The other distribution that has installed a file."""
    for found in metadata.distributions():
        name = found.metadata["Name"]
        if name and name != DISTRIBUTION and any(file == path for path, _ in _recorded(name)):
            return f"the distribution {name!r} {found.version}"
    return None


def _missing(file: Path) -> str:
    return (
        f"{file} of {DISTRIBUTION} is missing, as after another distribution with a package "
        f"{file.parent.name!r} was uninstalled; install {DISTRIBUTION} again."
    )


if __name__ == "__main__":
    entry()
