"""Weights shipped with the package."""
