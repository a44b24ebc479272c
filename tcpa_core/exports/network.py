"""A trained trial as one module from images to logits, as tracers want it."""

import warnings

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from tcpa_core.errors import ConfigError, TcpaError
from tcpa_core.methods.base import Method, Step
from tcpa_core.model.pack_model import PackModel
from tcpa_core.training.trained import TrainedModel

EXAMPLES = 3
"""Images of the batch that is traced; 1 would be taken for the only size."""


class Network(nn.Module):
    """Logits (n, C) in float32 of normalised images (n, 3, height, width).

    Args:
        model: In evaluation mode, on the CPU.
    """

    def __init__(self, model: TrainedModel) -> None:
        super().__init__()
        # The formula itself: kernels of one kind of device are no operations of a graph.
        self.pack = PackModel(
            model.pack.backbone,
            [model.config],
            len(model.class_names),
            [dict(model.source.tensors)],
            backend="dense",
        )

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        return self.pack.predict(images[None], Step.evaluation(1))[0]


def why_not_traced(model: TrainedModel) -> str | None:
    """Why a trial cannot be one graph of operations; None: it can."""
    for method in model.pack.methods.values():
        assert isinstance(method, Method)
        if not method.is_recordable and method.active:
            return (
                f"how often the solver of {method.name()!r} repeats itself depends on the images, "
                "which no fixed graph can say"
            )
    return None


def traced(model: TrainedModel, name: str) -> ExportedProgram:
    """The network as a graph with a batch of any size.

    Raises:
        ConfigError: A method computes what cannot be traced.
    """
    side = model.transform.img_size
    example = torch.zeros(EXAMPLES, 3, side, side)
    shapes = {"images": {0: Dim("batch", min=1)}}
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what comes out is compared
            return torch.export.export(
                Network(model), (example,), dynamic_shapes=shapes, strict=False
            )
    except TcpaError:
        raise
    except Exception as err:  # torch's own are of many kinds
        raise ConfigError(
            f"--format {name}: {list(model.config.methods)} cannot be traced by torch "
            f"{torch.__version__} ({type(err).__name__}: {str(err).splitlines()[0]}); --format "
            "tcpa has it."
        ) from err
