"""What the nodes of a cluster have, as a table, before a search meets it."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from search.driver.placement import FACTORY
from search.planning.requested_space import requested_space
from search.study.identity import fingerprints_of
from search.verbs.stages import Stages
from search.workers.needs import Needs, needs_of
from search.workers.node_looks import NodeLook, look_at_nodes

LIBRARIES = ("python", "torch", "timm", "ray")


def show_nodes(root: Path, space: str | None, console: Console) -> int:
    """Have every node of the connected cluster looked at, and print what it has.

    Args:
        root: Folder of studies.
        space: YAML file or preset whose data and weights are looked for, too; None: none are.

    Returns:
        0 when a study could run on one of them, else 1.

    Raises:
        TcpaError: The space is wrong, or its data or weights cannot be read here.
    """
    looks = look_at_nodes(_needs(space), root.expanduser().absolute(), FACTORY)
    console.print(_table(looks, root))
    return int(all(look.fault for look in looks))


def _needs(space: str | None) -> Needs:
    if space is None:
        return needs_of((), {})
    trials = requested_space(space).trials
    with Stages("checking weights and data") as stages:
        return needs_of(trials, fingerprints_of(trials, progress=stages))


def _table(looks: Sequence[NodeLook], root: Path) -> Table:
    table = Table("host", "package", *LIBRARIES, str(root), "cache", "devices", "verdict")
    for look in sorted(looks, key=lambda look: look.host):
        table.add_row(
            *map(Text, (look.host, look.package or "missing")),
            *(Text(look.facts.get(name, "missing")) for name in LIBRARIES),
            *map(Text, (_root(look), _cache(look), look.devices)),
            Text(f"REFUSED: {look.fault}" if look.fault else "ok"),
        )
    return table


def _root(look: NodeLook) -> str:
    if not look.folders.get("names"):
        return "not there"
    return "seen" if look.sees_root else "another folder"


def _cache(look: NodeLook) -> str:
    if not look.folders:
        return "?"
    return f"{look.folders['cache']}, {look.folders['free'] / 1e9:.0f} GB free"
