"""The bundled teacher's architecture: DeepSeek-V3's, as small as vLLM serves it on a CPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.files import write_json

SHAPE: dict[str, Any] = {
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "first_k_dense_replace": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "q_lora_rank": None,
    "kv_lora_rank": 512,  # the only value, with the next, for which vLLM's CPU attention has a kernel
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 32,
    "v_head_dim": 32,
    "intermediate_size": 384,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "moe_intermediate_size": 64,
    "n_group": 1,
    "topk_group": 1,
    "routed_scaling_factor": 1.0,
    "norm_topk_prob": True,
    "num_mtp_layers": 0,
    "max_position_embeddings": 1024,
}
ROUTING = {"topk_method": "noaux_tc", "scoring_func": "sigmoid"}
"""What vLLM reads the routing from and transformers leaves out of a saved configuration."""


def new_teacher(tokenizer: Any) -> Any:
    """Return an untrained teacher (transformers' DeepseekV3ForCausalLM) for the tokenizer's vocabulary.

    Its embeddings are tied while it is trained: numbers are learned sooner so. `save` unties them, as
    DeepSeek-V3's are.
    """
    from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

    model = DeepseekV3ForCausalLM(DeepseekV3Config(**SHAPE, **tokens_of(tokenizer), tie_word_embeddings=True))
    model.set_experts_implementation("grouped_mm")  # the fastest on a CPU
    return model


def tokens_of(tokenizer: Any) -> dict[str, Any]:
    """Return the configuration's fields that follow from the tokenizer; the vocabulary is rounded up to 64."""
    return {
        "vocab_size": -(-len(tokenizer) // 64) * 64,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def save(model: Any, tokenizer: Any, template: str, folder: Path) -> None:
    """Save a model as an engine serves it: bfloat16 weights, configuration, tokenizer with its chat template."""
    import torch
    from transformers import GenerationConfig

    model.config.use_cache = True
    if model.config.model_type == "deepseek_v3" and model.config.tie_word_embeddings:
        model.config.tie_word_embeddings = False  # vLLM knows the architecture untied only
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    if model.config.model_type == "deepseek_v3":
        path = folder / "config.json"
        write_json(path, {**json.loads(path.read_text()), **ROUTING})
