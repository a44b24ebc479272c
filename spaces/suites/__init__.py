"""Suites that are shipped, found by name."""
