"""How programs name the tensors of a vision transformer, and how timm does: one row per layout.

A row is found by the name of its patch embedding, which stands below whatever prefixes a training
program has put before it, and by marks that tell it from others with the same one. Names are those
of the programs' own files.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Act = Literal["gelu", "gelu_tanh", "quick_gelu"]
"""Kinds of GELU: exact, by tanh, by a sigmoid."""

Rules = tuple[tuple[str, str], ...]
"""Whole names as regular expressions, and what they become."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How a program writes its files."""

    title: str
    anchor: str
    """Name of the patch embedding, as a regular expression."""
    marks: tuple[str, ...] = ()
    """Regular expressions; each is found in the name of a tensor."""
    lacks: tuple[str, ...] = ()
    """Such as must not be found."""
    rules: Rules = ()
    """Names below the prefix; timm's own conversion follows."""
    unused: tuple[str, ...] = ()
    """Beginnings of names below the prefix that have no use after the training."""
    heads: Mapping[str, str] = field(default_factory=dict)
    """Classifiers that stand beside the prefix, and timm's name for them."""
    norm_stats: str | None = None
    """Mean and std that the program trains with, as `backbone.norm_stats`; None: it varies."""
    eps: float | None = None
    """Of the program's layer norms; None: timm's for the model."""
    act: Act | None = None
    """Of the program's MLPs; None: timm's for the model."""
    num_heads: Mapping[int, int] = field(default_factory=dict)
    """By width, where the program has others than timm."""
    has_projection: bool = False
    """What looks like a classifier is a projection beside texts."""


# timm's names

_TIMM = r"patch_embed\.proj\.weight"
_HEADS = {"head.": "head.", "head_dist.": "head_dist."}

PLAIN = Layout(title="plain", anchor=_TIMM, unused=("masked_embed", "fc."), heads=_HEADS)

# JAX

_LEAF = r"(kernel|scale|bias)"
_BLOCK = r"Transformer/encoderblock_(\d+)"
_ATTENTION = rf"{_BLOCK}/MultiHeadDotProductAttention_\d"
_JAX_RULES = (
    (r"cls", "cls_token"),
    (r"(?:Transformer/posembed_input/)?pos_embedding", "pos_embed"),
    (rf"embedding/{_LEAF}", r"patch_embed.proj.\1"),
    (rf"Transformer/encoder_norm/{_LEAF}", r"norm.\1"),
    (rf"head/{_LEAF}", r"head.\1"),
    (rf"{_BLOCK}/LayerNorm_0/{_LEAF}", r"blocks.\1.norm1.\2"),
    (rf"{_BLOCK}/LayerNorm_[12]/{_LEAF}", r"blocks.\1.norm2.\2"),
    (rf"{_BLOCK}/MlpBlock_\d/Dense_0/{_LEAF}", r"blocks.\1.mlp.fc1.\2"),
    (rf"{_BLOCK}/MlpBlock_\d/Dense_1/{_LEAF}", r"blocks.\1.mlp.fc2.\2"),
    (rf"{_ATTENTION}/(query|key|value)/{_LEAF}", r"blocks.\1.attn.\2.\3"),
    (rf"{_ATTENTION}/out/{_LEAF}", r"blocks.\1.attn.proj.\2"),
    (r"MAPHead_0/probe", "attn_pool.latent"),
    (rf"MAPHead_0/MultiHeadDotProductAttention_0/out/{_LEAF}", r"attn_pool.proj.\1"),
    (rf"MAPHead_0/MultiHeadDotProductAttention_0/query/{_LEAF}", r"attn_pool.q.\1"),
    (rf"MAPHead_0/MultiHeadDotProductAttention_0/(key|value)/{_LEAF}", r"attn_pool.\1.\2"),
    (rf"MAPHead_0/LayerNorm_0/{_LEAF}", r"attn_pool.norm.\1"),
    (rf"MAPHead_0/MlpBlock_0/Dense_0/{_LEAF}", r"attn_pool.mlp.fc1.\1"),
    (rf"MAPHead_0/MlpBlock_0/Dense_1/{_LEAF}", r"attn_pool.mlp.fc2.\1"),
)

JAX = Layout(
    title="JAX",
    anchor=r"embedding/kernel",
    rules=_JAX_RULES,
    unused=("pre_logits/",),
    norm_stats="inception",
)
JAX_TOWERS = Layout(
    title="big_vision SigLIP",
    anchor=r"embedding/kernel",
    marks=(r"img/MAPHead_0/probe$",),
    rules=_JAX_RULES,
    norm_stats="inception",
    act="gelu_tanh",
    has_projection=True,
)

# Hugging Face's transformers

_HF_BLOCK = r"encoder\.layer\.(\d+)"
_HF_SELF = rf"{_HF_BLOCK}\.attention"
_HF_RULES = (
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.distillation_token", "dist_token"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.(\w+)", r"patch_embed.proj.\1"),
    (rf"{_HF_BLOCK}\.layernorm_before\.(\w+)", r"blocks.\1.norm1.\2"),
    (rf"{_HF_BLOCK}\.layernorm_after\.(\w+)", r"blocks.\1.norm2.\2"),
    (rf"{_HF_SELF}\.attention\.(query|key|value)\.(\w+)", r"blocks.\1.attn.\2.\3"),
    (rf"{_HF_SELF}\.output\.dense\.(\w+)", r"blocks.\1.attn.proj.\2"),
    (rf"{_HF_BLOCK}\.intermediate\.dense\.(\w+)", r"blocks.\1.mlp.fc1.\2"),
    (rf"{_HF_BLOCK}\.output\.dense\.(\w+)", r"blocks.\1.mlp.fc2.\2"),
    (r"layernorm\.(\w+)", r"norm.\1"),
)
_HF_DINOV2 = (
    *_HF_RULES[:4],
    (r"embeddings\.(register_tokens|mask_token)", r"\1"),
    (rf"{_HF_BLOCK}\.(norm[12])\.(\w+)", r"blocks.\1.\2.\3"),
    *_HF_RULES[6:8],
    (rf"{_HF_BLOCK}\.layer_scale([12])\.lambda1", r"blocks.\1.ls\2.gamma"),
    (rf"{_HF_BLOCK}\.mlp\.weights_in\.(\w+)", r"blocks.\1.mlp.w12.\2"),
    (rf"{_HF_BLOCK}\.mlp\.weights_out\.(\w+)", r"blocks.\1.mlp.w3.\2"),
    (rf"{_HF_BLOCK}\.mlp\.(fc[12])\.(\w+)", r"blocks.\1.mlp.\2.\3"),
    _HF_RULES[10],
)
_HF_VIT = r"embeddings\.patch_embeddings\.projection\.weight"

_HF_LAYER = r"encoder\.layers\.(\d+)"
_HF_TOWER = (
    (r"embeddings\.class_embedding", "cls_token"),
    (r"embeddings\.patch_embedding\.(\w+)", r"patch_embed.proj.\1"),
    (r"embeddings\.position_embedding\.weight", "pos_embed"),
    (r"pre_layrnorm\.(\w+)", r"norm_pre.\1"),
    (r"post_layernorm\.(\w+)", r"norm.\1"),
    (rf"{_HF_LAYER}\.layer_norm([12])\.(\w+)", r"blocks.\1.norm\2.\3"),
    (rf"{_HF_LAYER}\.self_attn\.q_proj\.(\w+)", r"blocks.\1.attn.query.\2"),
    (rf"{_HF_LAYER}\.self_attn\.k_proj\.(\w+)", r"blocks.\1.attn.key.\2"),
    (rf"{_HF_LAYER}\.self_attn\.v_proj\.(\w+)", r"blocks.\1.attn.value.\2"),
    (rf"{_HF_LAYER}\.self_attn\.out_proj\.(\w+)", r"blocks.\1.attn.proj.\2"),
    (rf"{_HF_LAYER}\.mlp\.(fc[12])\.(\w+)", r"blocks.\1.mlp.\2.\3"),
    (r"head\.probe", "attn_pool.latent"),
    (r"head\.attention\.in_proj_(\w+)", r"attn_pool.qkv.\1"),
    (r"head\.attention\.out_proj\.(\w+)", r"attn_pool.proj.\1"),
    (r"head\.layernorm\.(\w+)", r"attn_pool.norm.\1"),
    (r"head\.mlp\.(fc[12])\.(\w+)", r"attn_pool.mlp.\1.\2"),
)
_HF_PATCH = r"embeddings\.patch_embedding\.weight"

# torchvision and OpenMMLab

_TV_BLOCK = r"encoder\.layers\.encoder_layer_(\d+)"
_TV_RULES = (
    (r"class_token", "cls_token"),
    (r"encoder\.pos_embedding", "pos_embed"),
    (r"conv_proj\.(\w+)", r"patch_embed.proj.\1"),
    (rf"{_TV_BLOCK}\.ln_([12])\.(\w+)", r"blocks.\1.norm\2.\3"),
    (rf"{_TV_BLOCK}\.self_attention\.in_proj_(\w+)", r"blocks.\1.attn.qkv.\2"),
    (rf"{_TV_BLOCK}\.self_attention\.out_proj\.(\w+)", r"blocks.\1.attn.proj.\2"),
    (rf"{_TV_BLOCK}\.mlp\.(?:0|linear_1)\.(\w+)", r"blocks.\1.mlp.fc1.\2"),
    (rf"{_TV_BLOCK}\.mlp\.(?:3|linear_2)\.(\w+)", r"blocks.\1.mlp.fc2.\2"),
    (r"encoder\.ln\.(\w+)", r"norm.\1"),
    (r"heads\.head\.(\w+)", r"head.\1"),
)
_MM_BLOCK = r"layers\.(\d+)"
_MM_RULES = (
    (r"(cls_token|pos_embed|dist_token)", r"\1"),
    (r"patch_embed\.projection\.(\w+)", r"patch_embed.proj.\1"),
    (r"pre_norm\.(\w+)", r"norm_pre.\1"),
    (rf"{_MM_BLOCK}\.ln([12])\.(\w+)", r"blocks.\1.norm\2.\3"),
    (rf"{_MM_BLOCK}\.attn\.(qkv|proj)\.(\w+)", r"blocks.\1.attn.\2.\3"),
    (rf"{_MM_BLOCK}\.attn\.attn\.in_proj_(\w+)", r"blocks.\1.attn.qkv.\2"),
    (rf"{_MM_BLOCK}\.attn\.attn\.out_proj\.(\w+)", r"blocks.\1.attn.proj.\2"),
    (rf"{_MM_BLOCK}\.attn\.gamma1\.(?:weight|scale)", r"blocks.\1.ls1.gamma"),
    (rf"{_MM_BLOCK}\.ffn\.gamma2\.(?:weight|scale)", r"blocks.\1.ls2.gamma"),
    (rf"{_MM_BLOCK}\.ffn\.layers\.0\.0\.(\w+)", r"blocks.\1.mlp.fc1.\2"),
    (rf"{_MM_BLOCK}\.ffn\.layers\.1\.(\w+)", r"blocks.\1.mlp.fc2.\2"),
    (r"(?:ln1|norm1)\.(\w+)", r"norm.\1"),
    # Behind the mean of the image tokens.
    (r"(?:ln2|norm2)\.(\w+)", r"fc_norm.\1"),
)

_VPT_BLOCK = r"encoder\.layer\.(\d+)"
_VPT_RULES = (
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.(\w+)", r"patch_embed.proj.\1"),
    (rf"{_VPT_BLOCK}\.attention_norm\.(\w+)", r"blocks.\1.norm1.\2"),
    (rf"{_VPT_BLOCK}\.attn\.(query|key|value)\.(\w+)", r"blocks.\1.attn.\2.\3"),
    (rf"{_VPT_BLOCK}\.attn\.out\.(\w+)", r"blocks.\1.attn.proj.\2"),
    (rf"{_VPT_BLOCK}\.ffn_norm\.(\w+)", r"blocks.\1.norm2.\2"),
    (rf"{_VPT_BLOCK}\.ffn\.(fc[12])\.(\w+)", r"blocks.\1.mlp.\2.\3"),
    (r"encoder\.encoder_norm\.(\w+)", r"norm.\1"),
)

_CLIP = r"conv1\.weight"
_CLIP_MARKS = (r"(?:^|\.)class_embedding$", r"transformer\.resblocks\.0\.ln_1\.weight$")

PERCEPTION = Layout(
    title="Perception Encoder", anchor=_CLIP, marks=_CLIP_MARKS[1:], has_projection=True
)
CLIP = Layout(title="CLIP", anchor=_CLIP, marks=_CLIP_MARKS, eps=1e-5, has_projection=True)
DINOV3 = Layout(
    title="DINOv3",
    anchor=_TIMM,
    marks=(r"(?:^|\.)storage_tokens$",),
    unused=("mask_token", "rope_embed.", "local_cls_norm."),
)
FINE_TUNED = Layout(
    title="MAE fine-tuned",
    anchor=_TIMM,
    marks=(r"(?:^|\.)fc_norm\.weight$",),
    lacks=(r"^(?:(?!blocks\.\d).)*(?<!fc_)norm\.weight$",),
    heads=_HEADS,
    norm_stats="imagenet",
)

LAYOUTS: tuple[Layout, ...] = (
    JAX_TOWERS,
    JAX,
    Layout(
        title="OpenAI CLIP",
        anchor=_CLIP,
        marks=(*_CLIP_MARKS, r"^input_resolution$", r"^context_length$"),
        norm_stats="clip",
        eps=1e-5,
        act="quick_gelu",
        has_projection=True,
    ),
    CLIP,
    Layout(
        title="HF DeiT with distillation",
        anchor=_HF_VIT,
        marks=(r"embeddings\.distillation_token$",),
        rules=_HF_RULES,
        unused=("pooler.", "embeddings.mask_token"),
        heads={"cls_classifier.": "head.", "distillation_classifier.": "head_dist."},
        norm_stats="imagenet",
        eps=1e-12,
        act="gelu",
    ),
    Layout(
        title="HF DINOv2",
        anchor=_HF_VIT,
        marks=(r"encoder\.layer\.0\.layer_scale1\.lambda1$",),
        rules=_HF_DINOV2,
        norm_stats="imagenet",
        eps=1e-6,
    ),
    Layout(
        title="HF MAE",
        anchor=_HF_VIT,
        marks=(r"^decoder\.decoder_embed\.",),
        rules=_HF_RULES,
        unused=("embeddings.mask_token",),
        norm_stats="imagenet",
        eps=1e-12,
        act="gelu",
    ),
    Layout(
        title="HF ViT",
        anchor=_HF_VIT,
        marks=(r"encoder\.layer\.0\.layernorm_before\.",),
        rules=_HF_RULES,
        unused=("pooler.", "embeddings.mask_token"),
        heads={"classifier.": "head."},
        eps=1e-12,
        act="gelu",
    ),
    Layout(
        title="HF CLIP",
        anchor=_HF_PATCH,
        marks=(r"pre_layrnorm\.weight$", r"embeddings\.class_embedding$"),
        rules=_HF_TOWER,
        unused=("embeddings.position_ids",),
        norm_stats="clip",
        eps=1e-5,
        act="quick_gelu",
    ),
    Layout(
        title="HF SigLIP",
        anchor=_HF_PATCH,
        marks=(r"embeddings\.position_embedding\.weight$", r"encoder\.layers\.0\.self_attn\."),
        lacks=(r"embeddings\.class_embedding$",),
        rules=_HF_TOWER,
        unused=("embeddings.position_ids",),
        norm_stats="inception",
        eps=1e-6,
        act="gelu_tanh",
    ),
    Layout(
        title="torchvision",
        anchor=r"conv_proj\.weight",
        marks=(r"encoder\.layers\.encoder_layer_0\.",),
        rules=_TV_RULES,
        unused=("heads.pre_logits.",),
        norm_stats="imagenet",
        eps=1e-6,
        act="gelu",
    ),
    Layout(
        title="ViT-pytorch, VPT",
        anchor=r"embeddings\.patch_embeddings\.weight",
        marks=(r"encoder\.layer\.0\.attention_norm\.", r"encoder\.encoder_norm\."),
        rules=_VPT_RULES,
        unused=("prompt_", "deep_prompt_"),
        heads={"head.": "head."},
        eps=1e-6,
        act="gelu",
    ),
    Layout(
        title="OpenMMLab",
        anchor=r"patch_embed\.projection\.weight",
        marks=(r"layers\.0\.ln1\.weight$", r"layers\.0\.ffn\.layers\.0\.0\."),
        rules=_MM_RULES,
        unused=("mask_token",),
        heads={
            "head.layers.head.": "head.",
            "head.layers.head_dist.": "head_dist.",
            "head.fc.": "head.",
        },
    ),
    Layout(
        title="MAE",
        anchor=_TIMM,
        marks=(r"decoder_embed\.",),
        unused=("decoder_", "mask_token"),
        heads=_HEADS,
        norm_stats="imagenet",
    ),
    Layout(
        title="MoCo v3",
        anchor=_TIMM,
        marks=(r"(?:^|\.)base_encoder\.patch_embed\.",),
        unused=("head.",),
        norm_stats="imagenet",
        num_heads={384: 12},
    ),
    Layout(
        title="DINO",
        anchor=_TIMM,
        marks=(r"backbone\.patch_embed\.", r"(?:^|\.)head\.last_layer\."),
        unused=("masked_embed",),
        norm_stats="imagenet",
    ),
    Layout(
        title="DINOv2",
        anchor=_TIMM,
        marks=(r"backbone\.patch_embed\.", r"dino_head"),
        norm_stats="imagenet",
    ),
    Layout(title="distilled DeiT", anchor=_TIMM, marks=(r"(?:^|\.)dist_token",), heads=_HEADS,
           norm_stats="imagenet"),
    Layout(title="DeiT III", anchor=_TIMM, marks=(r"(?:^|\.)blocks\.0\.gamma_1",), heads=_HEADS,
           norm_stats="imagenet"),
    DINOV3,
    Layout(title="DINOv2", anchor=_TIMM, marks=(r"(?:^|\.)mask_token$", r"blocks\.0\.ls1\.gamma$"),
           heads=_HEADS, norm_stats="imagenet"),
    FINE_TUNED,
    PLAIN,
)  # fmt: skip
"""Of timm's VisionTransformer; the first that fits."""
EVA_LAYOUTS = (PERCEPTION, DINOV3, PLAIN)
"""Of timm's Eva family."""


@dataclass(frozen=True, slots=True)
class Foreign:
    """A file that holds something else than a vision transformer that can be a backbone."""

    title: str
    mark: str
    """Regular expression, found in the name of a tensor."""
    advice: str
    lacks: str | None = None
    """Such as must not be found."""


_NO_BACKBONE = "only plain vision transformers can be a backbone"
_ENCODERS = rf"{_TIMM}|{_HF_VIT}|{_HF_PATCH}|conv_proj\.weight|embedding/kernel|\.?conv1\.weight"
"""Patch embeddings of the layouts above."""
_MERGE = (
    "merge them into the network where they were trained (peft: model.merge_and_unload()) and save "
    "its state_dict()"
)

_LORA = (
    r"lora_[ABab]\b|lora_(?:up|down)\b|lora_magnitude|lora_embedding|hada_w|lokr_w|ia3_|vera_lambda"
)

FOREIGN: tuple[Foreign, ...] = (
    Foreign("LoRA weights alone", _LORA, _MERGE, _ENCODERS),
    Foreign("LoRA weights beside a network's", _LORA, _MERGE),
    Foreign("weights quantised for bitsandbytes, GPTQ or AWQ", r"\.qweight$|\.qzeros$|\.SCB$"
            r"|\.absmax$|\.quant_state\b|_packed_params", "export them as float32 or float16"),
    Foreign("a hierarchical transformer (Swin and its relatives)",
            r"layers\.\d+\.blocks\.\d+\.|swin(?:v2)?\.encoder\.layers"
            r"|stages\.\d+\.blocks\.\d+\.attn\.w_msa|features\.\d+\.\d+\.attn\.relative_position",
            _NO_BACKBONE),
    Foreign("a transformer with relative positions (BEiT, SAM and others)",
            r"relative_position_(?:bias|index)|rel_pos_[hw]$|\.rel_pos\.", _NO_BACKBONE),
    Foreign("an EfficientNet or MobileNet", r"blocks\.\d+\.(?:\d+\.)?(?:conv_pw|_depthwise_conv)",
            _NO_BACKBONE),
    Foreign("a ConvNeXt", r"\.\d+\.(?:dwconv|conv_dw)\.weight$|downsample_layers\.\d+\.\d+\."
            r"|convnext(?:v2)?\.|stages\.\d+\.\d+\.depthwise_conv", _NO_BACKBONE),
    Foreign("a ResNet", r"(?:^|\.)layer[1-4]\.\d+\.(?:conv|bn)\d|resnet\.encoder\.stages"
            r"|block\d/unit\d+/|(?:^|\.)stages\.\d+\.blocks\.\d+\.conv\d\.", _NO_BACKBONE),
    Foreign("a convolutional network", r"(?:^|\.)(?:features\.\d+\.\d+\.(?:block|conv|\d)\.|"
            r"features\.\d+\.weight)", _NO_BACKBONE),
    Foreign("a transformer of lucidrains' vit-pytorch, which orders pixels of a patch otherwise",
            r"to_patch_embedding\.\d+\.", _NO_BACKBONE),
    Foreign("DINOv3 in the names of transformers",
            r"(?:^|\.)layer\.0\.attention\.o_proj\.weight$",
            "take timm's file of it, or Meta's own .pth, and a ..._dinov3 model"),
    Foreign("an MLP-Mixer", r"mlp_tokens\.|MixerBlock_\d+", _NO_BACKBONE),
    Foreign("a vision transformer of videos", r"(?:^|\.)(?:tubelet|temporal)_embed|videomae\.",
            _NO_BACKBONE),
    Foreign("a text encoder without pictures", r"word_embeddings\.weight|token_embedding\.weight"
            r"|embed_tokens\.weight|(?:^|\.)wte\.weight|text_model\.", _NO_BACKBONE, _ENCODERS),
    Foreign("a decoder without its encoder", r"^decoder", "give the file with the encoder",
            _ENCODERS),
    Foreign("a network with batch normalisation", r"\.running_mean$", _NO_BACKBONE, _ENCODERS),
)  # fmt: skip
"""The first whose mark is found; a loadable file has none of them."""

NO_ENCODER: tuple[Foreign, ...] = (
    Foreign("a classifier alone", r"^(?:model\.)?(?:head|fc|classifier|linear|heads\.head)?\.?"
            r"(?:weight|bias)$", "give the weights of the network that it reads"),
    Foreign("prompts or adapters alone", r"prompt|adapter|vpt|(?:^|\.)head\.",
            "give the weights of the network that they were trained on"),
)  # fmt: skip
"""The first whose mark every name has; said of files that no layout fits."""
