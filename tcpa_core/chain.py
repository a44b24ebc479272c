"""The methods of one trial taken together: may they be chained, may their trials share a pack."""

from __future__ import annotations

from functools import cache
from inspect import getattr_static
from typing import TYPE_CHECKING

from tcpa_core import plugins
from tcpa_core.config import METHODS, TrialConfig
from tcpa_core.errors import ConfigError, PluginError
from tcpa_core.methods.base import AnyMethod, Method
from tcpa_core.protocols.base import departures
from tcpa_core.settings import DATASETS, TASKS

if TYPE_CHECKING:
    from tcpa_core.model.backbone import TokenLayout
    from tcpa_core.tasks.base import Task


def method_class(name: str) -> type[AnyMethod]:
    """The `Method` class of a method file.

    Raises:
        PluginError: There is no such method, or its class is defined in another file.
    """
    found: type[AnyMethod] = plugins.load(METHODS, name).Method
    if found.name() != name:  # its settings and tensors would go by that other name
        raise PluginError(
            f"method {name!r} takes its class Method from {found.__module__!r}; define a class "
            "Method in the method's own file, derived from that one if need be."
        )
    return found


def task_class(config: TrialConfig) -> type[Task]:
    """The `Task` class of a trial's task."""
    found: type[Task] = plugins.load(TASKS, config.task.name).Task
    return found


def overrides(method: AnyMethod | type[AnyMethod], hook: str) -> bool:
    """Whether a method defines a hook itself."""
    kind: object = method if isinstance(method, type) else type(method)
    return _defines(kind, hook)


@cache  # asked several times in every forward pass
def _defines(kind: object, hook: str) -> bool:
    return getattr_static(kind, hook) is not getattr_static(Method, hook)


def check_data(config: TrialConfig) -> None:
    """Refuse a data set that has not what the task learns, and changes of pictures alone.

    Raises:
        ConfigError: Naming the settings.
    """
    task, data = config.task.name, config.data
    needs_masks: bool = plugins.load(TASKS, task).Task.needs_masks
    has_masks = data.has_masks
    if needs_masks and not has_masks:
        kinds = [
            k for k in plugins.names(DATASETS) if hasattr(plugins.load(DATASETS, k), "HAS_MASKS")
        ]
        raise ConfigError(
            f"task.name={task!r} learns a class of each pixel, but data.name={data.name!r} has one "
            f"of each picture; set data.name={' or '.join(kinds)}, which reads pictures with "
            "masks, or task.name=classify."
        )
    if has_masks and not needs_masks:
        raise ConfigError(
            f"data.name={data.name!r} has a class of each pixel, but task.name={task!r} learns one "
            "of each picture; set task.name=segment or another data.name."
        )
    moved = {
        "resized_crop": "data.scale_range scales and cuts both",
        "auto_augment": "leave it out",
        "color_jitter": "leave it out",
        "erase_prob": "leave it out",
    }
    for name, advice in moved.items() if has_masks else ():
        value = getattr(data, name)
        if value != type(data).model_fields[name].default:
            raise ConfigError(
                f"data.{name}={value!r} changes pictures without their masks, which "
                f"task.name={task!r} needs beside them; {advice}."
            )


def pack_key(config: TrialConfig) -> tuple[object, ...]:
    """Settings in which trials must agree to share a pack."""
    parts = [(name, *s.pack_key()) for name, s in config.method_settings.items()]
    if config.train.dropout > 0:  # draws cover all tokens: with padding they would be others
        parts += list(config.method_settings.items())
    parts.append((config.task.name, *config.task_settings.pack_key()))
    # One loop steps all members of a pack, so their batches have to end together.
    batches = config.train.batch_size, config.train.drop_last
    return (config.methods, *batches, config.optim.rule, *parts)


def pack_capacity(config: TrialConfig) -> int | None:
    """Most members of a pack: 1 where a method trains the backbone's weights, else no limit."""
    return 1 if any(method_class(name).trains_backbone for name in config.methods) else None


def splits_batch(config: TrialConfig) -> bool:
    """Whether a batch may be trained in parts: neither a method of the chain nor the head lets its
    samples meet."""
    return task_class(config).splits_batch(config) and all(
        method_class(name).splits_batch(config) for name in config.methods
    )


def check_chain(config: TrialConfig, layout: TokenLayout) -> None:
    """Refuse chains whose methods get in each other's way, and methods the backbone cannot carry.

    Raises:
        ConfigError: Naming the methods or the setting.
    """
    chain = {name: method_class(name) for name in config.methods}
    for hook, job in _SINGLE.items():
        # A method that is replaced leaves its hooks to the one that replaces it.
        found = [
            name
            for name, method in chain.items()
            if overrides(method, hook) and not method.is_replaced(config)
        ]
        if len(found) > 1:
            raise ConfigError(
                f"methods: {found[0]!r} and {found[1]!r} cannot be chained, both {job} ({hook}); "
                "keep one of them."
            )
    logits = [name for name, method in chain.items() if method.has_own_logits(config)]
    if len(logits) > 1:
        raise ConfigError(
            f"methods: {logits[0]!r} and {logits[1]!r} cannot be chained, both make the logits; "
            "keep one of them."
        )
    task_class(config).check(config, layout)
    for method in chain.values():
        method.check(config, layout)


def deviations(config: TrialConfig) -> tuple[str, ...]:
    """Where a trial differs from what it claims: from its protocol, from the splits that data.split
    names, and from its methods as they were published."""
    idle = set(config.idle_paths())
    told = {path: value for path, value in config.flat().items() if path not in idle}
    found = departures(config.protocol, told)
    of_data = getattr(plugins.load(DATASETS, config.data.name), "deviations", None)
    found += of_data(config.data) if of_data else ()
    for name in config.methods:
        found += method_class(name).deviations(config)
    return found


_SINGLE = {
    "on_block": "replace how a block runs",
    "weights": "train the backbone's weights",
    "side_features": "add a second branch to the loss",
    "after_epoch": "have a second stage",
}
"""Hooks that only one method of a chain may define, and what they do."""
