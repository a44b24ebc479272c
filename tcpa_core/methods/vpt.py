"""VPT: prompt tokens in the sequence, once (shallow) or fresh ones in every block (deep).

Trainable besides the head: P * D (shallow) or L * P * D (deep). With a projection the prompts have
width `project_dim` in place of D, and D * (project_dim + 1) is added. Under TCPA the method has no
prompts: TCPA on VPT is TCPA itself.

Source:
    Jia et al., Visual Prompt Tuning, ECCV 2022 (KMnP/vpt). Prompts stand behind all prefix tokens;
    the authors' code inserts them behind the first one also in distilled models and then reads a
    prompt as the distillation output.
"""

from tcpa_core.methods._prompt_tokens import PromptTokens, SequenceSettings


class Config(SequenceSettings):
    """Settings of VPT."""


class Method(PromptTokens):
    """VPT for a pack."""

    replaced_by = ("tcpa",)
