"""Text in Markdown and LaTeX: a name or a message reads as it is, whatever characters it has."""

from collections.abc import Iterable

import pandas as pd

from reports.labels import number


def escape_markdown(text: str) -> str:
    """Any text as it shall read inside a Markdown table."""
    return "".join(f"\\{c}" if c in "\\`*_|<>[]~$" else c for c in _one_line(text))


_TEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    **{c: f"\\{c}" for c in "&%$#_{}"}, "<": "$<$", ">": "$>$", "±": r"$\pm$", "−": "$-$",
    **{c: f"{{{c}}}" for c in "[]*"},  # after a line's end they would be its arguments
    "†": r"$^\dagger$", "‡": r"$^\ddagger$",
    "×": r"$\times$", "≤": r"$\le$", "≥": r"$\ge$", "→": r"$\to$",
    "Δ": r"$\Delta$",
    "α": r"$\alpha$", "β": r"$\beta$", "γ": r"$\gamma$", "λ": r"$\lambda$", "τ": r"$\tau$",
}  # fmt: skip


def escape_tex(text: str) -> str:
    """Any text as it shall read in LaTeX."""
    # one pass over the characters: a second replacement would escape what the first one wrote
    return "".join(_TEX.get(c, c) for c in _one_line(text))


def tex_cell(text: str) -> str:
    """A number of a table in LaTeX; what is not there is a dash."""
    return "--" if text == "-" else escape_tex(text)


def frame_markdown(frame: pd.DataFrame, columns: Iterable[str]) -> str:
    """Columns of a frame as a Markdown table, numbers with four digits."""
    names = list(columns)
    lines = ["| " + " | ".join(map(escape_markdown, names)) + " |", "|" + "---|" * len(names)]
    for row in frame[names].to_dict("records"):
        lines.append("| " + " | ".join(escape_markdown(number(row[name])) for name in names) + " |")
    return "\n".join(lines) + "\n"


def _one_line(text: str) -> str:
    """Line breaks and control characters as blanks."""
    return "".join(c if c.isprintable() else " " for c in text)
