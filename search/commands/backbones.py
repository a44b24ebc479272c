"""tcpa backbones."""

from typing import Annotated

import typer

from tcpa_core.errors import ConfigError


def command(
    pattern: Annotated[str, typer.Argument(help="Part of a name, with * as wildcard.")] = "*",
) -> None:
    """List the ViTs that can be used as backbone."""
    from tcpa_core.model.load_backbone import backbone_names

    found = backbone_names(pattern)
    if not found:
        raise ConfigError(f"no ViT matches {pattern!r}; 'tcpa backbones' lists all.")
    print("\n".join(found))
