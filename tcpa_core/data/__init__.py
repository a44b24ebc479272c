"""Data sets: one public module per kind, found by file name."""
