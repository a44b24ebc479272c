"""Frozen backbones with the prompts of many trials."""
