"""Axes of JAX's tensors brought to torch's order."""

from torch import Tensor


def unstacked(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Blocks one by one, where the file keeps those of a name in one array."""
    stacked = "Transformer/encoderblock/"
    found = {k: v for k, v in state.items() if not k.startswith(stacked)}
    for name, values in state.items():
        if name.startswith(stacked):
            rest = name.removeprefix(stacked)
            found |= {f"Transformer/encoderblock_{i}/{rest}": v for i, v in enumerate(values)}
    return found


def from_jax(name: str, value: Tensor) -> Tensor:
    """Inputs first to outputs first, and heads side by side.

    Args:
        name: Of the tensor in the file.
        value: As it stands there.
    """
    place, _, leaf = name.rpartition("/")
    if leaf == "bias":
        return value.flatten()
    if leaf != "kernel":
        return value
    if value.ndim == 4:  # (height, width, in, out) of the patch embedding
        return value.permute(3, 2, 0, 1).contiguous()
    # Attention kernels keep heads apart: (in, H, E) of the projections, (H, E, out) of the output.
    flat = value.flatten(0, -2) if place.endswith("/out") else value.flatten(1)
    return flat.T.contiguous()
