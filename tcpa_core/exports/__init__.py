"""Forms in which a trained trial leaves this program: one module for each, and the model card."""
