"""What a process makes once, and that a plan's tensors without numbers reach no trial."""

import ast
from pathlib import Path

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from tcpa_core import streams
from tcpa_core.config import TrialConfig
from tcpa_core.made_once import made_once
from tcpa_core.model.pack_model import PackModel
from tcpa_core.streams import Stream
from tcpa_core.training.estimate import memory
from tests.tcpa_core.tiny import NUM_CLASSES, images, tiny_backbone, training_step

CORE = Path(__file__).parents[2] / "tcpa_core"


def test_results_are_kept_but_those_without_numbers_apart() -> None:
    calls = []

    @made_once
    def zeros(count: int) -> Tensor:
        calls.append(count)
        return torch.zeros(count)

    with FakeTensorMode():
        fake = zeros(3)
        assert zeros(3) is fake
    real = zeros(3)
    assert isinstance(fake, FakeTensor) and not isinstance(real, FakeTensor)
    assert zeros(3) is real
    with FakeTensorMode():
        assert zeros(3) is not fake, "of another mode"
    assert calls == [3, 3, 3]


def test_every_cached_function_of_tensors_is_made_once() -> None:
    wrong = []
    for path in sorted(CORE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.returns is not None:
                names = " ".join(ast.unparse(one) for one in node.decorator_list)
                of_tensors = "Tensor" in ast.unparse(node.returns)
                if of_tensors and ("cache" in names.split(".")[-1]):
                    wrong.append(f"{path.name}: {node.name}")
    assert not wrong, "a plan would leave tensors without numbers in them"


def test_a_plan_before_a_trial_leaves_no_number_of_it_unknown() -> None:
    """Prompts are dropped out by keys that the process keeps."""
    flat = {"methods": ["gated"], "seed": 4711, "backbone.weights": "random"}
    config = TrialConfig.from_flat(flat)
    assert memory(config, NUM_CLASSES, bf16=False) is not None
    backbone = tiny_backbone()
    step = training_step([config], [0], [0])
    PackModel(backbone, [config], NUM_CLASSES)(images(backbone), step)
    keys = streams._seeds((config.seed,), "gated.prompt_dropout", 1, backbone.device)
    assert not isinstance(keys, FakeTensor)
    assert int(keys[0, 0, 0].view(torch.uint64)) == Stream(4711).key("gated.prompt_dropout", 0)
