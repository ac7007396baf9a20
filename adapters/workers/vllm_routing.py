"""Which experts vLLM's routers choose: a greedy batch through `LLM` with enable_return_routed_experts. Layers as in vLLM's arrays."""

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import vllm
from worker_protocol import run_routing

EXPERT_KEYS = ("num_experts", "num_local_experts", "n_routed_experts")


def collect(job: Mapping[str, Any]) -> dict[str, Any]:
    longest = max(map(len, job["prompts"])) + job["output_tokens"]
    engine = vllm.LLM(
        model=job["model"],
        dtype=job["dtype"],
        max_model_len=longest,
        max_num_seqs=job["batch"],
        enforce_eager=True,
        enable_prefix_caching=False,  # a cached prompt is not routed again
        enable_return_routed_experts=True,
    )
    sampling = vllm.SamplingParams(temperature=0.0, max_tokens=job["output_tokens"], ignore_eos=True, detokenize=False)
    answers = engine.generate([{"prompt_token_ids": prompt} for prompt in job["prompts"]], sampling, use_tqdm=False)
    experts, sequence, decoded = [], [], []
    for number, (prompt, answer) in enumerate(zip(job["prompts"], answers, strict=True)):
        routed = answer.outputs[0].routed_experts
        if routed is None:
            raise RuntimeError("vLLM returned no routed experts")
        experts.append(np.asarray(routed).astype(np.int16))
        sequence.append(np.full(len(routed), number, np.int32))
        decoded.append(np.arange(len(routed)) >= len(prompt))
    config = engine.llm_engine.model_config.hf_text_config
    return {
        "choices": np.concatenate(experts),
        "sequence": np.concatenate(sequence),
        "decoded": np.concatenate(decoded),
        "layers": np.arange(experts[0].shape[1], dtype=np.int32),
        "experts": next(int(getattr(config, key)) for key in EXPERT_KEYS if getattr(config, key, None)),
    }


if __name__ == "__main__":
    sys.exit(run_routing(collect, f"vLLM {vllm.__version__}, routed experts"))
