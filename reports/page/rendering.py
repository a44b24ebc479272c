"""From templates to one self-contained page: styles, script and data are inside it."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

from reports.labels import methods_label
from reports.page.swatch import swatch


def render(
    name: str,
    *,
    styles: Sequence[str],
    scripts: Sequence[str],
    data: Mapping[str, Any] | None = None,
    live_s: float | None,
    **shown: Any,
) -> str:
    """A page as text.

    Args:
        name: Its template, NAME.html.j2.
        styles: Its style sheets, each STYLE.css.
        scripts: Its scripts, each SCRIPT.js.
        data: For the scripts; plain values.
        live_s: Seconds until it is written again, for a page that reloads itself; None: it stays.
        shown: What the template shows.
    """
    environment = jinja2.Environment(
        # the installed package may be a zip file
        loader=jinja2.FunctionLoader(_template),
        # Names and messages of a study are shown as text; StrictUndefined fails on a misspelt name.
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"methods": methods_label, "swatch": swatch}
    text = json.dumps(data or {}, allow_nan=False, separators=(",", ":"))
    return environment.get_template(f"{name}.html.j2").render(
        style=Markup("".join(_template(f"{part}.css") for part in styles)),
        script=Markup("".join(_template(f"{part}.js") for part in scripts)),
        # "<" cannot end the script element early, nor can a comment begin
        data=Markup(text.replace("<", "\\u003c")),
        made=datetime.now(UTC),
        live_s=live_s,
        **shown,
    )


def _template(name: str) -> str:
    return (files("reports.page.templates") / name).read_text(encoding="utf-8")
