"""tcpa doctor."""

from rich.console import Console

from search.options import DEFAULT_ROOT, Address, Device, Root, Uri
from search.terminal import leave


def command(
    root: Root = DEFAULT_ROOT,
    address: Address = None,
    tracking_uri: Uri = None,
    device: Device = "auto",
) -> None:
    """Say whether this machine is ready: versions, devices, disks, MLflow and Ray."""
    from search.verbs.doctor import examine

    leave(examine(root, Console(), address=address, tracking_uri=tracking_uri, device=device))
