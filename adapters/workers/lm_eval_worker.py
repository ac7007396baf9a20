"""One task of lm-evaluation-harness, as a job on stdin says; its results and single answers go to the file job["out"] as JSON.

Runs in the environment of lm-eval. The served engine is asked over loopback, through a server that also scores prompts.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

KEPT = ("doc_id", "doc_hash", "filter")


def main(job: Mapping[str, Any]) -> int:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    chat = job["api"] == "chat"
    model = {"model": job["model"], "num_concurrent": job["streams"], "max_length": job["max_length"], "timeout": 3600, "max_retries": 1}
    if chat:
        model |= {"base_url": f"{job['url']}/v1/chat/completions"}
    else:
        model |= {
            "base_url": f"{job['url']}/v1/completions", "tokenizer": job["tokenizer"], "tokenizer_backend": "huggingface",
            "tokenized_requests": True,
        }  # fmt: skip
    folder = job["folder"]
    result = simple_evaluate(
        model="local-chat-completions" if chat else "local-completions", model_args=model, tasks=[job["task"]], limit=job["limit"],
        task_manager=TaskManager(include_path=folder, include_defaults=folder is None), log_samples=True, apply_chat_template=chat,
    )  # fmt: skip
    samples = {
        task: [
            {key: value for key, value in sample.items() if key in KEPT or (isinstance(value, int | float) and key != "target")}
            for sample in found
        ]
        for task, found in result["samples"].items()
    }
    Path(job["out"]).write_text(json.dumps({"results": result["results"], "samples": samples}, default=str), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(json.load(sys.stdin)))
