"""Tuning methods: one public module each, found by file name."""
