"""What is varied: axes, conditions, ablation designs."""
