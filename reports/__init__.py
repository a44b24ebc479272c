"""From records to Parquet tables, statistics, plots and reports."""

from reports.frames import Frames, load

__all__ = ["Frames", "load"]
