"""Training of trials in packs."""
