"""tcpa doctor."""

from typing import Annotated

import typer
from rich.console import Console

from search.options import DEFAULT_ROOT, Address, Device, Root, Uri
from search.terminal import leave

NodesSpace = Annotated[
    str | None,
    typer.Option("--space", help="Look for its data and weights on every node of the cluster."),
]


def command(
    root: Root = DEFAULT_ROOT,
    address: Address = None,
    tracking_uri: Uri = None,
    device: Device = "auto",
    space: NodesSpace = None,
) -> None:
    """Say whether this machine is ready, and with --address every node of a cluster."""
    from search.verbs.doctor import examine

    leave(
        examine(
            root,
            Console(),
            address=address,
            tracking_uri=tracking_uri,
            device=device,
            space=space,
        )
    )
