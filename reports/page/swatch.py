"""A colour with its marker as a small drawing, the same as matplotlib's in the figures."""

from markupsafe import Markup

PATHS = {
    "o": "M-1 0A1 1 0 1 1 1 0A1 1 0 1 1 -1 0Z",
    "s": "M-.9-.9H.9V.9H-.9Z",
    "D": "M0-1.15L1.15 0L0 1.15L-1.15 0Z",
    "^": "M0-1.1L1.1.9H-1.1Z",
    "v": "M0 1.1L1.1-.9H-1.1Z",
    "P": "M-.4-1.1H.4V-.4H1.1V.4H.4V1.1H-.4V.4H-1.1V-.4H-.4Z",
    "*": "M0-1.3L.32-.45L1.24-.4L.52.17L.76 1.05L0 .55L-.76 1.05L-.52.17L-1.24-.4L-.32-.45Z",
    "X": "M-.5-1.1L0-.6L.5-1.1L1.1-.5L.6 0L1.1.5L.5 1.1L0 .6L-.5 1.1L-1.1.5L-.6 0L-1.1-.5Z",
}
"""Outline of each of `reports.plots.base.MARKERS` around 0, about 1 to each side."""


def swatch(style: tuple[str, str]) -> Markup:
    """An SVG of a colour and marker from `reports.plots.base.styles_of`."""
    colour, marker = style
    return Markup(
        '<svg class="swatch" viewBox="-1.4 -1.4 2.8 2.8" aria-hidden="true">'
        '<path fill="{}" d="{}"/></svg>'
    ).format(colour, PATHS[marker])
