"""Which experts vLLM's routers choose: a greedy batch through `LLM` with enable_return_routed_experts.

Reads one JSON line on stdin (the job that enginebench.runner.routing_pass writes), writes the choices as .npz to job["out"], and says
{"source": ...} or {"error": ...} on stdout as its last line. Runs where vLLM is installed. Layers are numbered as vLLM's arrays have
them, experts up to what the model's configuration says.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import vllm

EXPERT_KEYS = ("num_experts", "num_local_experts", "n_routed_experts")


def collect(job: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays of the .npz file. RuntimeError when vLLM returns none, as with kernels that do not report their choices."""
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
    return {
        "choices": np.concatenate(experts),
        "sequence": np.concatenate(sequence),
        "decoded": np.concatenate(decoded),
        "layers": np.arange(experts[0].shape[1], dtype=np.int32),
        "experts": _experts(engine.llm_engine.model_config.hf_text_config),
    }


def _experts(config: Any) -> int:
    return next(int(getattr(config, key)) for key in EXPERT_KEYS if getattr(config, key, None))


def main() -> int:
    job = json.loads(sys.stdin.readline())
    try:
        arrays = collect(job)
    except Exception as error:  # noqa: BLE001  # whatever the engine raises is told to whoever asked
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}))
        return 1
    source = f"vLLM {vllm.__version__}, routed experts"
    told = np.array(json.dumps({"model": job["name"], "source": source, "experts": arrays.pop("experts")}))
    np.savez_compressed(job["out"], told=told, counts=np.zeros((0, 0)), **arrays)
    print(json.dumps({"source": source}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
