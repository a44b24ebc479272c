"""A wrong command line, told with the verb or the option that was probably meant."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from typer import Context
from typer.core import TyperGroup
from typer.exceptions import TyperException

from tcpa_core.errors import nearest
from tcpa_core.hints import same_meaning

OTHER_VERBS: Mapping[str, tuple[str, ...]] = {
    "search": ("run", "train", "tune", "optimize", "optimise", "start", "hpo", "sweep"),
    "ablate": ("ablation",),
    "resume": ("continue", "restart"),
    "stop": ("kill", "cancel", "abort"),
    "status": ("show", "info", "progress"),
    "list": ("ls", "studies", "ps"),
    "dashboard": ("ui", "serve", "mlflow", "board"),
    "doctor": ("check", "diagnose", "env"),
    "backbones": ("models", "backbone"),
    "presets": ("spaces", "preset"),
    "data": ("dataset", "datasets"),
    "get": ("download", "fetch", "pull", "install"),
    "check": ("verify", "validate", "describe"),
}
OTHER_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "--root": ("output", "output-dir", "out", "out-dir", "dir", "folder", "logdir", "studies"),
    "--study": ("name", "study-name", "experiment", "experiment-name", "run-name"),
    "--set": ("override", "overrides", "param", "params"),
    "--trials": ("trial", "n-trials", "num-trials", "max-trials", "num-samples", "n", "budget"),
    "--address": ("ray-address", "cluster", "ray"),
    "--tracking-uri": ("mlflow", "mlflow-uri", "mlflow-tracking-uri", "tracking", "uri"),
    "--dry-run": ("check", "plan"),
    "--seeds": ("seed", "n-seeds", "num-seeds", "replicates"),
    "--top": ("k", "top-k", "best"),
    "--from": ("base", "winner", "from-study", "from-search"),
    "--images": ("num-images", "n-images"),
    "--every": ("interval", "refresh", "seconds"),
}
"""What verbs and options are called elsewhere."""


class Verbs(TyperGroup):
    """The verbs of `tcpa`, of which an unknown one is told with the one that was meant."""

    def knows(self, word: str) -> bool:
        """Whether a word is a verb, or what one is called elsewhere."""
        return word in self.commands or bool(_called(word, OTHER_VERBS, self.commands))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The verb and its arguments."""
        verb = args[0]
        if verb not in self.commands and not verb.startswith("-"):
            meant = _called(verb, OTHER_VERBS, self.commands)
            ctx.fail(f"No such command {verb!r}{meant or nearest(verb, self.commands)}.")
        return super().resolve_command(ctx, args)


def explain(err: TyperException) -> str:
    """What is wrong with a command line, what was probably meant and where to look."""
    context: Context | None = getattr(err, "ctx", None)
    # A parser's own sentence names the option itself.
    text = re.sub("^Invalid value for '[^']*': Value error, ", "", err.format_message())
    option = getattr(err, "option_name", "")
    if context and hasattr(err, "possibilities"):
        text = f"No such option: {option}{_meant_option(option, context)}."
    where = context.command_path if context else "tcpa"
    return f"{text.rstrip(' .')}. '{where} --help' lists what there is."


def _meant_option(option: str, context: Context) -> str:
    """As a clause: an option of this verb or a setting, by meaning, else one spelled alike."""
    known = [name for one in context.command.params for name in one.opts if name.startswith("--")]
    word = option.lower().replace("_", "-").lstrip("-")
    meant = f"; closest name: '--{word}'" if f"--{word}" in known else ""
    meant = meant or _called(word, OTHER_OPTIONS, known)
    # Read only now: a wrong option is rare, and the settings of all methods take a second.
    if not meant and "--set" in known:
        from spaces.reference import settings

        paths = same_meaning(word, ["seeds", *(setting.path for setting in settings())])
        meant = f"; a setting of the space is given with '--set {paths[0]}=VALUE'" if paths else ""
    verbs = context.parent.command.commands if context.parent else {}  # type: ignore[attr-defined]
    others = [name for name, verb in verbs.items() if any(option in p.opts for p in verb.params)]
    if not meant and others:
        return f"; it is an option of {', '.join(others)}"
    return meant or nearest(f"--{word}", known)


def _called(name: str, others: Mapping[str, tuple[str, ...]], known: Collection[str]) -> str:
    found = [one for one, names in others.items() if name.lower() in names and one in known]
    return f"; closest name: {found[0]!r}" if found else ""
