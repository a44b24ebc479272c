"""Shipped spaces and ablations, one YAML file each."""
