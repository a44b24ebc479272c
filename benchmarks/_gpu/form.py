"""How large everything is: the full form for a GPU, the small one that shows that it runs."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """Sizes of one run of the report."""

    name: str
    vits: Mapping[str, str]
    """Backbones that are measured, by the name that tables give them: names of timm."""
    exact: str
    """The backbone on which all methods are compared with themselves, by the same name."""
    img_size: int
    """Side of the stored images, in pixels."""
    classes: int
    train: int
    """Training images; VTAB-1k has 800, and 200 to validate."""
    val: int
    batch: int
    methods: tuple[str, ...]
    """That are timed."""
    compares_all: bool
    """Whether losses in bf16 are compared with those in fp32 for every method."""
    members: tuple[int, ...]
    """Sizes of the packs that are timed."""
    steps: int
    """Timed per epoch of a pack."""
    epochs: int
    """Trained of each trial of the search; what the rest of `trial_epochs` takes follows."""
    trial_epochs: int
    """Of a trial whose cost is stated."""
    most_members: Mapping[str, int]
    """Members of a pack in the search, by backbone, where the probe does not find fewer best."""
    rounds: int
    """Of comparisons that take turns."""
    step_cases: tuple[str, ...]
    """Names in `benchmarks.step.CASES`."""
    step_vits: tuple[str, ...]
    """Names in `benchmarks.step.VITS`."""
    step_size: int
    """Side of their images, in pixels."""


FULL = Form(
    name="full",
    vits={
        "ViT-B": "vit_base_patch16_224",
        "ViT-Ti": "vit_tiny_patch16_224",
        "vit_nano": "vit_nano",
    },
    exact="vit_nano",
    img_size=64,  # resized to 224 when they are decoded
    classes=100,
    train=800,
    val=200,
    batch=64,
    methods=("tcpa", "vpt", "cvpt"),
    compares_all=True,
    members=(1, 4, 16),
    steps=10,
    epochs=6,
    trial_epochs=100,
    most_members={"ViT-B": 4, "ViT-Ti": 16},
    rounds=20,
    step_cases=("tcpa 18/18 K10", "vpt 10", "cvpt 10"),
    step_vits=("B", "Ti"),
    step_size=224,
)
SMALL = Form(
    name="small",
    vits={"vit_nano": "vit_nano"},
    exact="vit_nano",
    img_size=32,
    classes=4,
    train=24,
    val=8,
    batch=4,
    methods=("tcpa",),
    compares_all=False,
    members=(1, 2),
    steps=5,
    epochs=4,
    trial_epochs=100,
    most_members={"vit_nano": 2},
    rounds=2,
    step_cases=("tcpa 18/18 K10",),
    step_vits=("Ti",),
    step_size=64,
)
FORMS = {form.name: form for form in (FULL, SMALL)}
