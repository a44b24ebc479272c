"""What selected states found on val and test, as it is kept beside the checkpoints."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from tcpa_core.model.pack_model import PackModel
from tcpa_core.record.predictions import Predictions
from tcpa_core.record.regions import Regions, SplitRegions
from tcpa_core.training.confusion import Counts
from tcpa_core.training.evaluation import Evaluation
from tcpa_core.training.member import Member
from tcpa_core.training.predicted import thumbnails
from tcpa_core.training.scored import Scored
from tcpa_core.training.trial_data import SplitName, TrialData


def selected(members: Sequence[Member]) -> list[Member]:
    """The members with the state of their selected epoch.

    Raises:
        ValueError: One has trained no epoch.
    """
    chosen = [replace(m, state=m.selected.state) for m in members if m.selected]
    if len(chosen) != len(members):
        raise ValueError("a member without a trained epoch cannot be tested")
    return chosen


def predictions(
    data: TrialData,
    members: Sequence[Member],
    scored: Sequence[Scored],
    evaluation: Evaluation,
    model_of: Callable[[Sequence[Member]], PackModel],
) -> list[Predictions]:
    """What each member takes the images of val and test for.

    Args:
        data: With labels.
        members: In their selected states.
        scored: Of these members.
        evaluation: Of the data.
        model_of: Stacks some members on the device.
    """
    splits = [{"test": one.images} for one in scored if one.images]
    known = [one.selected.val_classes for one in members if one.selected]
    with_val = [m for m, classes in enumerate(known) if classes is not None]
    if with_val:
        model = model_of([members[m] for m in with_val])
        classes = torch.stack([c for c in known if c is not None])
        _, images = evaluation.predict(model, "val", classes)
        for m, found in zip(with_val, images, strict=True):
            splits[m] |= {"val": found}
    names, source = data.class_names, data.test
    return [Predictions(names, of, thumbnails(source, of["test"])) for of in splits]


def regions(data: TrialData, members: Sequence[Member], scored: Sequence[Scored]) -> list[Regions]:
    """What each member takes the pixels of val and test for.

    Args:
        data: With masks.
        members: In their selected states.
        scored: Of these members.
    """
    found = []
    for member, of_test in zip(members, scored, strict=True):
        assert member.selected is not None
        counts: dict[SplitName, Counts | None] = {
            "val": member.selected.val_counts,
            "test": of_test.counts,
        }
        splits: dict[str, SplitRegions] = {
            name: of_split.regions(data.split(name).keys)
            for name, of_split in counts.items()
            if of_split is not None
        }
        found.append(Regions(data.class_names, splits, of_test.pictures))
    return found
