"""Cells of the tables that a paper prints: means, differences with intervals, stars, daggers."""

from collections.abc import Mapping

from reports.labels import STAR_LEVELS, Row, is_missing, p_text


def mean_text(row: Row, scale: float = 100, digits: int = 2) -> str:
    """'81.00 ± 2.48', '81.00 (one seed)', '81.00 (all equal)' or '-'."""
    if not row["n"]:
        return "-"
    mean = f"{scale * row['mean']:.{digits}f}"
    if is_missing(row["low"]):
        # Why there is no interval, since "± 0" would claim that there is no noise.
        return f"{mean} (one seed)" if row["n"] == 1 else f"{mean} (all equal)"
    return f"{mean} ± {scale * (row['high'] - row['low']) / 2:.{digits}f}"


def stars(row: Row) -> str:
    """Significance after Holm."""
    p = row["p_holm"]
    return "" if is_missing(p) else "*" * sum(p < level for level in STAR_LEVELS)


def adjusted_p(row: Row) -> str:
    """p after Holm, '<0.001' or '-'."""
    p = row["p_holm"]
    return "-" if is_missing(p) else p_text(p)


def with_interval(
    value: float, low: float, high: float, n: int, p: float, scale: float = 100
) -> str:
    """'+1.25 [+0.50, +2.00]'; '+1.25 (all equal)' of n > 1 differences that do not vary; or '-'."""
    if is_missing(value):
        return "-"
    text = signed(value, scale)
    if not is_missing(low):
        return f"{text} [{signed(low, scale)}, {signed(high, scale)}]"
    return f"{text} (all equal)" if n > 1 and is_missing(p) else text


def signed(value: float, scale: float = 1) -> str:
    """'+1.25', '−0.50' with a true minus sign, or '-' where there is none."""
    # + 0.0 turns a rounded -0.0 into 0.0, which would read as a decrease
    return "-" if is_missing(value) else f"{round(scale * value, 2) + 0.0:+.2f}".replace("-", "−")


def with_mark(level: str, deviation: str | None) -> str:
    """A level's name, with a dagger if its trials differ from what they claim."""
    return f"{level} †" if deviation else level


def deviation_notes(deviations: Mapping[str, str | None]) -> list[str]:
    """What the daggers of a table mean, by level."""
    return [f"† deviation, {level}: {text}." for level, text in deviations.items() if text]
