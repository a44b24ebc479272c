"""Figures: one public module each, exporting prepare and draw."""
