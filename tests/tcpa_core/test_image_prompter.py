"""The image-level prompter equals the same network built from torch's own modules."""

import pytest
import torch
from torch import nn

from tcpa_core.config import TrialConfig
from tcpa_core.errors import ConfigError
from tcpa_core.methods import _image_prompter
from tcpa_core.streams import Stream


def _reference(state: dict[str, torch.Tensor]) -> nn.Sequential:
    net = nn.Sequential(nn.Conv2d(3, 9, 11, padding=5), nn.PReLU(), nn.Conv2d(9, 3, 11, padding=5))
    for parameter, tensor in zip(net.parameters(), state.values(), strict=True):
        parameter.data = tensor
    return net.double()


def test_members_equal_torch_modules() -> None:
    states = []
    for seed in range(3):
        states.append({})
        for name, spec in _image_prompter.specs().items():
            tensor = torch.empty(spec.shape, dtype=torch.float64)
            spec.init(tensor, Stream(seed).generator(name))
            states[-1][name] = tensor
    images = torch.randn(3, 2, 3, 16, 16, dtype=torch.float64)
    stacked = {name: torch.stack([s[name] for s in states]) for name in states[0]}
    out = _image_prompter.apply(images, stacked)
    for m, state in enumerate(states):
        expected = images[m] + _reference(state)(images[m])
        torch.testing.assert_close(out[m], expected, rtol=1e-12, atol=1e-12)


def test_initial_values_are_torchs() -> None:
    bound = (3 * 11**2) ** -0.5
    weight = torch.empty(9, 3, 11, 11)
    _image_prompter.specs()["prompter_conv1_weight"].init(weight, torch.Generator())
    assert 0.95 * bound < weight.abs().max() <= bound
    assert nn.Conv2d(3, 9, 11).weight.abs().max() <= bound


def test_it_needs_prompts() -> None:
    flat = {"tcpa.image_prompter": True, "tcpa.num_cls_prompts": 0, "tcpa.num_image_prompts": 0}
    with pytest.raises(ConfigError, match="tcpa.image_prompter needs prompts"):
        TrialConfig.from_flat({"methods": ["tcpa"], **flat})
