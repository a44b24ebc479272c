"""What a study will do, and every check that can fail before a trial starts."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import starmap
from pathlib import Path
from typing import Any

from search.planning import cost
from search.planning.cost import Estimate
from search.planning.reusable import Reusable, reusable
from search.planning.sizes import MethodSize, describe_backbone, method_sizes
from search.proposals.samplers.base import check_sampler, sampler_class
from search.study.address import local_folder, recorded_uri, resolved_uri
from search.study.earlier import Earlier, code_of
from search.study.folder import StudyDir
from search.study.identity import joined
from search.tracking.secrets import with_secrets, without_secrets
from search.workers.cargo import parts_to_send
from spaces.axes import ChoiceAxis, label
from spaces.idle import equal_levels, idle_axes
from spaces.load import trials_per_method
from spaces.space import Space
from tcpa_core.chain import check_data, deviations, method_class
from tcpa_core.config import Flat, TrialConfig
from tcpa_core.data.base import CacheNeed, Dataset, DataSummary, cache_root, load_dataset
from tcpa_core.errors import ConfigError
from tcpa_core.model.backbone import Backbone
from tcpa_core.model.load_backbone import (
    check_size,
    load_backbone,
    weights_fingerprint,
    weights_path,
)
from tcpa_core.model.pack_model import PackModel
from tcpa_core.model.preprocessing import Preprocessing
from tcpa_core.protocols.base import load_protocol
from tcpa_core.settings import BackboneConfig, DataConfig
from tcpa_core.training.estimate import epoch_seconds

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total)."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """What becomes of the images that a check decodes."""

    keep: bool = False
    """They stay in the cache, so that the study starts at once."""
    progress: Progress | None = None
    """Told of images decoded, as by `load_dataset`, of settings checked and methods probed."""
    told: Callable[[CacheNeed], None] | None = None
    """Told what a data set will take in the cache, before it is decoded."""


DECODED = Decoding()

LISTING = ("data.name", "data.root", "data.val_fraction", "data.split_seed", "data.group")
"""Settings that choose the images of the splits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A study that passed every check. Nothing has been written yet."""

    space: Space
    name: str
    root: Path
    tracking_uri: str
    """"": the database of `root`."""
    storage: str | None
    """Address of the studies to which it belongs; None: it lies in its folder alone."""
    fingerprints: Mapping[str, str]
    data: Mapping[DataConfig, DataSummary]
    """What is in each data set."""
    num_trials: int | None
    """None: the budget is in hours only."""
    num_points: int | None
    """Distinct points of the space; None: infinite."""
    most_epochs: int
    preprocessing: tuple[tuple[str, Preprocessing], ...]
    """Backbones by name, and what becomes of images in front of each."""
    networks: tuple[str, ...]
    """A sentence on the size of each backbone."""
    methods: tuple[MethodSize, ...]
    """What each chain of methods trains, and what a trial of it keeps in memory."""
    pictures: Mapping[DataConfig, str]
    """Sizes at which the pictures of each data set are kept, in words."""
    cost: str
    """A sentence on the time it will take."""
    estimate: Estimate | None
    """The same as numbers; None: not known."""
    warnings: tuple[str, ...]
    undecoded: CacheNeed
    """Images that the cache lacks, and what they will take there."""
    shipped: str
    """A sentence on what nodes without data or weights are sent; "": they are sent nothing."""
    reusable: Reusable | None
    """What earlier studies have of it; None: they are not asked."""
    deviations: tuple[str, ...]
    """Where trials differ from the protocol and the methods they claim, and what no setting of
    the protocol reproduces."""

    def create(self, **about: Any) -> StudyDir:
        """Make the study folder, once weights of the hub are fetched.

        Args:
            about: What its study.yaml says besides.

        Raises:
            WeightsError: The hub does not answer.
            StudyError: The folder cannot be written.
        """
        for config in dict.fromkeys(config.backbone for config in self.space.trials):
            if _from_hub(config):
                load_backbone(config)
        uri = without_secrets(self.tracking_uri)
        data = [
            summary.as_dict() | {"settings": {path: flat[path] for path in LISTING}}
            for config, summary in self.data.items()
            for flat in [{f"data.{key}": value for key, value in config.model_dump().items()}]
        ]
        preprocessing = [{"backbone": n, **found.as_dict()} for n, found in self.preprocessing]
        return StudyDir.create(
            self.root,
            self.name,
            self.space,
            self.fingerprints,
            uri,
            {
                "data": data,
                "preprocessing": preprocessing,
                "backbones": list(self.networks),
                "trained_backbone": self._training_backbones(),
                "code": dict(code_of(self.space.trials)),
                **self._most_trials(),
                **about,
            },
            self.storage,
        )

    def _training_backbones(self) -> list[str]:
        """Methods that train weights of the backbone itself; of all others it stays frozen."""
        names = dict.fromkeys(name for config in self.space.trials for name in config.methods)
        return [name for name in names if method_class(name).trains_backbone]

    def _most_trials(self) -> dict[str, int]:
        """What a search of a finite space ends with, whatever its budget is extended to."""
        if self.space.ablation or self.num_points is None:
            return {}
        return {"most_trials": self.num_points * len(self.space.seeds)}


def plan_space(
    space: Space,
    name: str,
    root: Path,
    *,
    tracking_uri: str | None = None,
    storage: str | None = None,
    probe: bool = False,
    decoding: Decoding = DECODED,
    ship_data: bool = False,
    reuse: Sequence[str] | None = None,
    is_shown: bool = True,
) -> Plan:
    """Check a space, its data, its weights, the folder and the tracker; nothing is written.

    Args:
        name: Of the study.
        storage: Address at which it is to lie, too.
        probe: Train a few steps of every method to tell the cost; otherwise it is told from the
            trials on record below `root`.
        decoding: What becomes of the images that the check decodes.
        ship_data: Nodes of a cluster that lack data or weights are to be sent the driver's.
        reuse: Folders beside `root` whose studies are asked for what they have completed; None: no
            study is.
        is_shown: Somebody reads it; else what takes long to tell is left out: sizes, time, memory.

    Raises:
        TcpaError: Something is wrong; nothing was started or written.
    """
    if not space.sampler.is_code:  # that is run when the study starts, not to be looked at
        check_sampler(space.sampler)
    # The cheapest checks first: a name that is taken is told before images are decoded.
    root = local_folder(root)
    StudyDir.check_free(root, name, storage)
    if ship_data:
        parts_to_send(space)  # refuses what cannot be listed
    of_space = (*_idle(space), *_drawn_apart(space), *_code(space))
    backbones, datasets, preprocessing, trained = _check_parts(space.trials, decoding)
    _check_sizes(space, backbones)
    data = {config: found.summary for (config, _), found in datasets.items()}
    uri = recorded_uri(resolved_uri(with_secrets(tracking_uri or "")), root)
    # Only an address that was given can be wrong; the own database of the folder is made by us.
    if uri:
        from search.tracking.mirror import check_tracker  # loads MLflow

        check_tracker(uri)
    size = space.size()
    num_trials = _num_trials(space, size)
    if probe:
        rates = cost.probed(space, measured_epoch, decoding.progress)
    else:
        rates = cost.recorded(root) if is_shown else cost.Rates()
    prints = {
        "data": joined(summary.fingerprint for summary in data.values()),
        "weights": joined(weights_fingerprint(config) for config in backbones),
    }
    return Plan(
        space=space,
        name=name,
        root=root,
        tracking_uri=uri,
        storage=storage,
        fingerprints=prints,
        data=data,
        num_trials=num_trials,
        num_points=size,
        most_epochs=space.most_epochs,
        preprocessing=preprocessing,
        networks=tuple(starmap(describe_backbone, backbones.items())),
        methods=tuple(
            method_sizes(space.trials, trained, max(one.num_classes for one in datasets.values()))
            if is_shown
            else ()
        ),
        pictures={config: _pictures(found) for (config, _), found in datasets.items()},
        cost=cost.describe(space, num_trials, rates),
        estimate=cost.estimate(space, num_trials, rates),
        warnings=(*_warnings(backbones.values(), data.values()), *of_space),
        undecoded=_undecoded(datasets.values()),
        shipped=_shipped(datasets, backbones) if ship_data else "",
        reusable=None if reuse is None else _reusable(space, prints, [root, *map(Path, reuse)]),
        deviations=_deviations(space.trials),
    )


def _reusable(space: Space, prints: Mapping[str, str], roots: Sequence[Path]) -> Reusable:
    earlier = Earlier(roots, None, code_of(space.trials), keep=False)
    return reusable(earlier, space, prints)


def _shipped(
    datasets: Mapping[tuple[DataConfig, int], Dataset], backbones: Iterable[BackboneConfig]
) -> str:
    """What a node that has nothing is sent."""
    entries = {
        entry
        for (config, _), dataset in datasets.items()
        for split in dataset.splits.values()
        for entry in split.images.entries
        if config.root is not None
    }
    pixels = sum({entry.key: entry.pixels.nbytes for entry in entries}.values())
    files = {weights_path(one) for one in backbones if one.weights not in (None, "random")}
    weights = sum(path.stat().st_size for path in files)
    return (
        f"to a node without them, data {pixels / 1e6:,.1f} MB and weights {weights / 1e6:,.1f} MB, "
        "once (--ship-data)"
    )


def _deviations(configs: Sequence[TrialConfig]) -> tuple[str, ...]:
    """Deviations of all trials, then what the protocols have that is not reproduced."""
    counts = Counter(text for config in configs for text in deviations(config))
    found = [text if n == len(configs) else f"{text}, in some trials" for text, n in counts.items()]
    for name in dict.fromkeys(config.protocol for config in configs):
        if name is not None:
            found += [f"{line} ({name})" for line in load_protocol(name).not_reproduced]
    return tuple(found)


def _idle(space: Space) -> list[str]:
    """Axes and levels that are told apart in vain.

    Raises:
        ConfigError: An axis changes nothing at all.
    """
    lines = []
    for path, at in ({} if space.ablation else idle_axes(space)).items():
        if at is None:
            raise ConfigError(
                f"axis {path} changes nothing: with the other settings of the space it is never "
                "read, so that its values are one and the same point; remove it, or change those."
            )
        shown = ", ".join(f"{other}={label(value)}" for other, value in at.items() if other != path)
        lines.append(
            f"axis {path} changes nothing at some points, for example at {shown}; its values there "
            "are one and the same point. A condition ('when') leaves it out."
        )
    for factor, levels in equal_levels(space).items():
        lines.append(
            f"levels {' and '.join(levels)} of {factor} are one and the same trial"
            f"{' at some points' if space.ablation and factor in space.ablation.paths() else ''}: "
            "what differs changes nothing there."
        )
    return lines


def _code(space: Space) -> list[str]:
    """What of a space is code that its study will run."""
    sampler = space.sampler
    if space.ablation or not sampler.is_code:
        return []
    options = f" with options {sampler.options}" if sampler.options else ""
    return [
        f"the sampler is code, {sampler.name!r}{options}: the driver imports and runs it when the "
        "study starts; this plan has not."
    ]


def _drawn_apart(space: Space) -> list[str]:
    """What the sampler of a search draws without what it knows."""
    sampler = sampler_class(space.sampler)
    if space.ablation or not sampler.is_joint:
        return []
    is_split = "methods" in space.axes and (space.sampler.per or sampler.is_per_chain)
    lines = []
    for chain in space.axes["methods"].ends() if is_split else [None]:
        apart = space.points.shifting(chain)
        corners = [c for c in space.points.corners if chain in (None, c.get("methods"))]
        why = "not in every trial, or their bounds follow other axes"
        if sampler.draws_choices_apart:
            choices = {p for c in corners for p in c if isinstance(space.axes[p], ChoiceAxis)}
            choices -= {"methods"} if is_split else set()
            apart = [path for path in space.axes if path in choices.union(apart)]
            why += ", or choices"
        if apart:
            lines.append(
                f"sampler {space.sampler.name!r} draws {', '.join(apart)} at random, each by itself"
                f"{f', for {label(chain)}' if chain else ''} ({why}); 'tpe' learns all axes."
            )
    return lines


def measured_epoch(params: Flat) -> tuple[float, str]:
    """Seconds of an epoch; weights of the hub would be fetched, and random ones take as long."""
    config = TrialConfig.from_flat(params)
    if _from_hub(config.backbone):
        config = config.replace_paths({"backbone.weights": "random"})
    return epoch_seconds(config)


def _num_trials(space: Space, size: int | None) -> int | None:
    if space.ablation:
        return len(space.design())
    limit = space.budget.trials
    if space.sampler.per and limit is not None:
        limit = (trials_per_method(space) or 0) * len(space.axes["methods"].ends())
    if size is None:
        return limit
    # A search of a finite space ends when every point has run with every seed.
    every = size * len(space.seeds)
    return every if limit is None else min(limit, every)


def _check_parts(
    configs: Sequence[TrialConfig], decoding: Decoding
) -> tuple[
    dict[BackboneConfig, Backbone],
    dict[tuple[DataConfig, int], Dataset],
    tuple[tuple[str, Preprocessing], ...],
    list[int],
]:
    """Decode the data, load the weights and fit the methods to them, before a trial has to.

    Returns:
        Backbones, data sets, what becomes of images, and the parameters that each trial trains.
    """
    trained: list[int] = []
    backbones: dict[BackboneConfig, Backbone] = {}
    data: dict[tuple[DataConfig, int], Dataset] = {}
    preprocessing: dict[tuple[str, Preprocessing], None] = {}
    for number, config in enumerate(configs, start=1):
        check_data(config)
        if config.backbone not in backbones:
            backbones[config.backbone] = load_backbone(config.backbone, device="meta")
        backbone = backbones[config.backbone]
        preprocessing[config.backbone.full_name, backbone.preprocessing(config.data)] = None
        source = (config.data, backbone.img_size)
        if source not in data:
            data[source] = load_dataset(
                config.data,
                backbone.img_size,
                progress=decoding.progress,
                told=decoding.told,
                keep=decoding.keep,
            )
        # Built and thrown away: what a method demands of the backbone is checked where it is used.
        model = PackModel(backbone, [config], data[source].num_classes)
        trained.append(model.tensors.num_trainable(0)[0])
        for name in config.methods:
            method_class(name).check_classes(config, data[source].class_names)
        if decoding.progress:
            decoding.progress("check settings", number, len(configs))
    return backbones, data, tuple(preprocessing), trained


def _pictures(dataset: Dataset) -> str:
    """Widths and heights at which pictures are kept: small ones at their own."""
    stores = [split.images for split in dataset.splits.values()]
    sides = [
        (int(min(sizes.min() for sizes in found)), int(max(sizes.max() for sizes in found)))
        for found in ([one.widths for one in stores], [one.heights for one in stores])
    ]
    return " x ".join(f"{low}" if low == high else f"{low}-{high}" for low, high in sides)


def _undecoded(data: Iterable[Dataset]) -> CacheNeed:
    """What the cache lacks of all data sets.

    Raises:
        DataError: Its disk has no room for all of them.
    """
    splits = [split for dataset in data for split in dataset.splits.values()]
    images, masks = (
        {entry for store in stores for entry in store.entries if not entry.is_kept}
        for stores in (
            [split.images for split in splits],
            [split.masks for split in splits if split.masks],
        )
    )
    num_bytes = sum(entry.pixels.nbytes for entry in images | masks)
    num_masks = sum(map(len, masks))
    num_images = sum(map(len, images)) + num_masks
    need = CacheNeed.of(num_images, num_bytes, cache_root(), masks=num_masks)
    need.check()
    return need


def _warnings(backbones: Iterable[Backbone], data: Iterable[DataSummary]) -> tuple[str, ...]:
    """What weights and data ask every user to know, each sentence once."""
    lines = [line for backbone in backbones for line in backbone.warnings]
    lines += [line for summary in data for line in summary.warnings()]
    return tuple(dict.fromkeys(lines))


def _check_sizes(space: Space, backbones: Mapping[BackboneConfig, Backbone]) -> None:
    """Refuse image sizes between the ends of an axis that do not fit a patch."""
    axis = space.axes.get("backbone.img_size")
    sizes = (axis.values() if axis else None) or ()
    for config, backbone in backbones.items():
        for size in sizes if config.img_size in sizes else ():
            check_size(backbone.vit, config.name, size)


def _from_hub(config: BackboneConfig) -> bool:
    return weights_fingerprint(config).startswith("hub:")
