"""Names in GGUF files: architectures, keys of metadata, and what some converters call tensors otherwise.

Those of llama.cpp, and those that Ollama's converter writes under names of its own. A table. Does not know: values, and how they are read.
"""

from __future__ import annotations

from collections.abc import Mapping

ARCHITECTURES: Mapping[str, str] = {
    "llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "qwen2moe": "qwen2_moe", "qwen3moe": "qwen3_moe", "olmoe": "olmoe",
    "granitemoe": "granitemoe", "gpt-oss": "gpt_oss", "llama4": "llama4_text", "deepseek2": "deepseek_v3",
    "qwen3vl": "qwen3_vl_text", "qwen3vlmoe": "qwen3_moe", "qwen3next": "qwen3_next", "qwen35": "qwen3_5_text",
    "qwen35moe": "qwen3_5_moe_text", "rnd1": "qwen3_moe", "llada-moe": "olmoe", "phi3": "phi3", "phimoe": "phimoe",
    "gemma2": "gemma2", "gemma3": "gemma3_text", "gemma4": "gemma4_text", "glm4": "glm4", "glm4moe": "glm4_moe",
    "glm-dsa": "glm_moe_dsa", "cohere2": "cohere2", "dbrx": "dbrx", "arctic": "arctic", "grok": "grok-1", "jamba": "jamba",
    "exaone4": "exaone4", "exaone-moe": "exaone_moe", "granitehybrid": "granitemoehybrid", "nemotron_h": "nemotron_h",
    "nemotron_h_moe": "nemotron_h", "deepseek": "aria_text", "bailingmoe": "bailing_moe", "bailingmoe2": "bailing_moe_v2",
    "dots1": "dots1", "afmoe": "afmoe", "ernie4_5-moe": "ernie4_5_moe", "hunyuan-moe": "hunyuan_v1_moe",
    "hunyuan-dense": "hunyuan_v1_dense", "lfm2moe": "lfm2_moe", "minimax-m2": "minimax_m2", "mimo2": "mimo_v2_flash",
    "step35": "step3p7", "seed_oss": "seed_oss", "mistral3": "ministral3", "mistral4": "mistral4", "minicpm3": "minicpm3",
    "kimi-linear": "kimi_linear", "lfm2": "lfm2_moe", "granite": "granitemoe", "smollm3": "llama", "internlm2": "llama", "gemma": "llama",
    "ernie4_5": "llama", "olmo2": "olmoe", "command-r": "cohere2", "smallthinker": "smallthinker", "grovemoe": "grove_moe",
    "deci": "nemotron-nas", "minimax-m3": "minimax_m3", "deepseek32": "deepseek_v32", "kimi-k3": "kimi_linear", "laguna": "laguna",
    "hy_v3": "hy_v3", "cohere2moe": "cohere2_moe", "mellum": "mellum", "gemma3n": "gemma3n_text", "deepseek2-ocr": "aria_text",
    "minicpm": "llama", "qwen2vl": "qwen2",
    "gptoss": "gpt_oss", "glm4moelite": "deepseek_v3", "deepseekocr": "aria_text", "nemotron_h_omni": "nemotron_h", "olmo3": "olmoe",
    "qwen25vl": "qwen2",
}  # fmt: skip
"""Architectures of GGUF files -> families of the same layers. The last ones are only Ollama's."""

KEYS = {
    "layers": "block_count", "hidden": "embedding_length", "heads": "attention.head_count", "kv_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length", "value_dim": "attention.value_length", "sliding.head_dim": "attention.key_length_swa",
    "sliding.value_dim": "attention.value_length_swa", "context": "context_length", "window": "attention.sliding_window",
    "experts": "expert_count", "top_k": "expert_used_count", "query_latent": "attention.q_lora_rank",
    "latent": "attention.kv_lora_rank", "rope_dim": "rope.dimension_count", "index_heads": "attention.indexer.head_count",
    "index_dim": "attention.indexer.key_length", "index_tokens": "attention.indexer.top_k", "borrowing": "attention.shared_kv_layers",
    "full_every": "full_attention_interval",
}  # fmt: skip
"""Meaning -> key of GGUF, without the architecture's prefix."""

OTHERS = {
    "pattern": "attention.sliding_window_pattern", "nextn": "nextn_predict_layers", "key_mla": "attention.key_length_mla",
    "value_mla": "attention.value_length_mla", "kernel": "ssm.conv_kernel", "inner": "ssm.inner_size", "state": "ssm.state_size",
    "rank": "ssm.time_step_rank", "groups": "ssm.group_count", "kda": "kda.head_dim", "short": "shortconv.l_cache",
    "own_embeddings": "embedding_length_per_layer_input", "dense": "feed_forward_length", "index_block": "attention.indexer.block_size",
    "alternates": "altup.num_inputs",
}  # fmt: skip
"""Keys whose meaning depends on the family, or on the tensors."""

RENAMED: Mapping[str, str] = {
    "attn_out.weight": "attn_output.weight", "attn_out.bias": "attn_output.bias", "attn_sinks": "attn_sinks.weight",
    "attn_g.weight": "attn_gate.weight", "ffn_routed_down.weight": "ffn_latent_down.weight",
}  # fmt: skip
"""Other names of the tensors of a layer -> those that are read."""
