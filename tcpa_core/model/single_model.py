"""One trial as an ordinary module, the form in which a user holds it."""

from collections.abc import Mapping

from torch import Tensor, nn

from tcpa_core.config import TrialConfig
from tcpa_core.methods.base import MemberState, Step
from tcpa_core.model.backbone import Backbone
from tcpa_core.model.load_backbone import load_backbone
from tcpa_core.model.pack_model import PackModel
from tcpa_core.streams import Stream


class SingleModel(nn.Module):
    """One trial as an ordinary module.

    In train mode prompts are dropped out and TCPA selects at random in its first epochs; set
    `epoch` when an epoch begins. The number of training passes so far is `steps`.

    Args:
        pack: A pack of one.
    """

    def __init__(self, pack: PackModel) -> None:
        super().__init__()
        self.pack = pack
        self.epoch = 0
        self.steps = 0

    @property
    def config(self) -> TrialConfig:
        """Settings of the trial."""
        return self.pack.configs[0]

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, C), or (B, C, rows, columns) of a segmentation, of normalised images
        (B, 3, height, width)."""
        return self.forward_with_penalty(images)[0]

    def forward_with_penalty(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and the methods' weighted extra loss (a scalar) to add to the training loss."""
        step = Step.evaluation(1)
        if self.training:
            # As in a search: the draws of a pass follow from seed, epoch and step alone.
            stream = Stream(self.config.seed)
            step = Step(training=True, epochs=(self.epoch,), steps=(self.steps,), streams=(stream,))
            self.steps += 1
        # A pack of one computes the same numbers as any pack that the trial is a member of.
        output = self.pack(images[None], step)
        return output.logits[0], output.penalty[0]


def build_model(
    config: TrialConfig | Mapping[str, object],
    *,
    num_classes: int,
    backbone: Backbone | None = None,
    state: MemberState | None = None,
) -> SingleModel:
    """Build the model of one trial.

    Args:
        config: Settings, or a mapping of dotted paths.
        num_classes: Outputs of the head.
        backbone: Frozen network; None loads the one that the settings name.
        state: Trainable tensors; None draws them from the seed.

    Raises:
        ConfigError: A setting is wrong or does not fit the backbone.
        WeightsError: The backbone's weights are missing or do not fit.
    """
    if not isinstance(config, TrialConfig):
        config = TrialConfig.from_flat(config)
    backbone = backbone or load_backbone(config.backbone)
    states = None if state is None else [state]
    return SingleModel(PackModel(backbone, [config], num_classes, states))
