"""SGLang: its HTTP server, over OpenAI's routes or its own, and its `Engine` in-process.

`ep` and `attention_dp` are inside tp (of each replica); SGLang takes either attention_dp or dp_replicas. Not yet run, because it needs a
GPU: the ServerArgs of 0.5.23 parsed and resolved the flags for a CUDA device; routes, counters and /server_info were read in that source.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import enginebench.adapter as eb

from .options import (
    QUANTIZED,
    RESERVED_TOKENS,
    SPECULATION,
    Disaggregated,
    SglangOptions,
    Speculative,
    batch_slots,
    engine_flags,
    speculative_of,
)

# No sampling defaults from the checkpoint, and no log line per request, which costs time.
SERVER_FLAGS = ("--enable-metrics", "--enable-cache-report", "--sampling-defaults", "openai", "--log-level-http", "warning")
PREFILL_COUNTERS = {"prompt_tokens": "sglang:prompt_tokens_total", "cached_tokens": "sglang:cached_tokens_total"}
DECODE_COUNTERS = {
    "output_tokens": "sglang:generation_tokens_total",
    "preemptions": "sglang:num_retracted_requests_total",
    "running": "sglang:num_running_reqs",
}
KV_PACKAGES = {"nixl": "nixl", "mooncake": "mooncake-transfer-engine", "mooncake_tcp": "mooncake-transfer-engine"}
"""Backend of a disaggregated pair -> the package that it needs in addition to SGLang."""
READY_S = 1800.0


class Sglang(eb.Adapter):
    name = "sglang"
    title = "SGLang"
    requirements = ("sglang==0.5.23",)
    checkpoint_format = "safetensors"
    precisions = frozenset({*eb.TORCH_DTYPES, *QUANTIZED.values(), "int4"})
    runtimes = ("process", "in-process")
    spans_nodes = True
    speculates = frozenset(SPECULATION)
    takes_loras = True
    speculation_options = ("speculative",)
    forces_acceptance = frozenset(SPECULATION) - {"ngram"}  # its n-gram worker never reads SGLANG_SIMULATE_ACC_LEN
    options = SglangOptions
    scores = eb.scoring.input_token_logprobs()
    ready_paths = ("/ready", "/model_info")  # /health makes an idle server generate a token; old versions have no /ready

    def traits(self, deployment: eb.Deployment) -> eb.Traits:
        options = eb.options_as(SglangOptions, deployment)
        servers, pair = eb.servers_of(options.disaggregated), options.disaggregated
        return eb.Traits(
            gpus=deployment.parallelism.devices * (servers or 1),
            # A prefill server has a second one, where decode servers meet it; over nodes: where the ranks meet, and what they listen on.
            extra_ports=servers + pair.prefill if pair else int(deployment.nodes > 1),
            protocol=options.protocol,
            random_weights=options.load_format == "dummy",
            forces_routing=options.routing is not None,
            uneven_routing=_uneven(deployment.parallelism, options),
        )

    def check(self, deployment: eb.Deployment) -> None:
        options = eb.options_as(SglangOptions, deployment)
        eb.check_quantization(self.title, deployment, options.quantization, QUANTIZED)
        eb.check_disaggregated(deployment, options.disaggregated)
        _check_experts(deployment.parallelism, options)
        spread = deployment.parallelism
        speculative = options.speculative or speculative_of(deployment.speculation, "draft") or Speculative("EAGLE")
        tp, ranks, tokens, slots = spread.tp, spread.attention_dp, options.batch_tokens or 0, options.max_running_requests or 0
        neutral, nodes = deployment.speculation, deployment.nodes
        algorithm, numbers = speculative.algorithm, (speculative.steps, speculative.topk, speculative.draft_tokens)
        eb.refuse(
            (ranks > 1 and spread.dp_replicas > 1, "SGLang has no attention_dp inside replicas: write one of attention_dp and dp_replicas"),
            (nodes > 1 and spread.dp_replicas > 1, "SGLang has no replicas over several nodes: write attention_dp"),
            (tp % ranks, f"attention_dp is inside tp: {ranks} does not divide {tp}"),
            (spread.pp > 1 and algorithm != "EAGLE", f"with pp SGLang speculates by EAGLE only, not by {algorithm}"),
            (spread.pp > 1 and options.overlap_schedule, "pipeline stages switch SGLang's overlap schedule off"),
            (options.chunked_prefill is False and tokens, "batch_tokens is the chunk size: without chunked_prefill there is no chunk"),
            (tokens % ranks, f"batch_tokens {tokens} is divided among the {ranks} ranks of attention_dp, which do not divide it"),
            (slots % ranks, f"max_running_requests {slots} is divided among the {ranks} ranks of attention_dp, which do not divide it"),
            (options.graph_batch is not None and options.graphs == "off", "graph_batch is the size of graphs that are off"),
            ((options.speculative or neutral) and options.mixed_chunk, "SGLang does not mix prefill chunks into speculative steps"),
            (any(numbers) and not all(numbers) and algorithm != "NGRAM", "write all three or none of steps, topk and draft_tokens"),
            (options.disaggregated and options.prefix_cache, "a decode server has no prefix cache: prefix_cache would be on one side only"),
            (":" in deployment.model, f"SGLang reads a model's name after ':' as an adapter: '{deployment.model}' cannot be served"),
        )

    def tunables(self, deployment: eb.Deployment, room: eb.Room) -> Sequence[eb.Tunable]:
        return (
            eb.Tunable("batch_tokens", (1024, 2048, 4096, 8192, 16384)),
            eb.Tunable("chunked_prefill", (False,), default=True),
            eb.Tunable("max_running_requests", tuple(n for n in (room.streams // 2, 2 * room.streams) if n), default=room.streams),
            eb.Tunable("mem_fraction", (0.8, 0.85, 0.9)),
            eb.Tunable("page_size", (1, 16, 64)),
            eb.Tunable("schedule_policy", ("fcfs", "lpm", "lof")),
            eb.Tunable("overlap_schedule", (False,), default=True),
            eb.Tunable("mixed_chunk", (True,), default=False),
            eb.Tunable("graphs", ("off", "decode_only", "decode_and_prefill"), cost="compile"),
            eb.Tunable("graph_batch", (32, 64, 128, 256), cost="compile"),
            eb.Tunable("attention_backend", ("fa3", "flashinfer", "triton")),
            eb.Tunable("moe_backend", ("triton", "cutlass", "flashinfer_cutlass"), default="auto"),
            eb.Tunable("kv_dtype", ("fp8_e4m3", "fp8_e5m2"), default="auto", exact=False),
            *room.degrees("tp", "ep", "attention_dp", "dp_replicas", "pp"),
            *(
                (eb.Tunable("a2a_backend", ("deepep",)), eb.Tunable("two_batch_overlap", (True,), default=False))
                if room.devices > 1
                else ()
            ),
        )

    def find(self, python: Path | None) -> Sequence[eb.Install]:
        return eb.find_package(python, "sglang")

    def choose(self, deployment: eb.Deployment, installs: Sequence[eb.Install]) -> eb.Install:
        first, pair = super().choose(deployment, installs), eb.options_as(SglangOptions, deployment).disaggregated
        package = KV_PACKAGES.get(pair.backend) if pair else None
        return eb.with_package(installs, package, "disaggregated SGLang") if package else first

    def launch(self, deployment: eb.Deployment, install: eb.Install, site: eb.Site) -> eb.Launch:
        self.check(deployment)
        options = eb.options_as(SglangOptions, deployment)
        routing = {f"SGLANG_SIMULATE_{options.routing.upper()}_EXPERTS": "1"} if options.routing else {}
        local = {"HF_HUB_OFFLINE": "1"} if site.is_local else {}
        env, notes = {**local, **routing, **_forced_acceptance(deployment.speculation), **options.env}, _notes(deployment, options)
        python, model = str(install.python), ("--model-path", site.checkpoint, "--served-model-name", deployment.model)
        loras: list[eb.JSON] = [f"{name}={path}" for name, path in site.loras.items()]
        adapters = eb.flags_of({"--enable-lora": bool(loras), "--max-loras-per-batch": len(loras) or None, "--lora-paths": loras})
        engine = (*engine_flags(deployment, options, site.draft), *adapters, *options.extra)
        if deployment.runtime == "in-process":
            argv = (python, str(eb.WORKERS / "sglang_worker.py"), *model, *engine)
            return eb.Launch(argv, deployment.model, env, notes=notes, ready_timeout_s=READY_S)
        server = (python, "-m", "sglang.launch_server", *model, *SERVER_FLAGS, *engine)
        if (pair := options.disaggregated) is None:
            others = eb.ranks_of(site, lambda rank, there: ((*server, "--port", str(there.ports[0]), *_node_flags(site, rank)), env))
            first = (*server, *site.address, *_node_flags(site, 0))
            return eb.Launch(first, deployment.model, env, notes=notes, ready_timeout_s=READY_S, members=others)
        members = tuple(_members(pair, server, env, site, deployment.parallelism.devices))
        proxy = eb.proxy_argv(install.python, site, "sglang", members)
        meeting = [site.on(each.node).ports[len(members) + place] for place, each in enumerate(members[: pair.prefill])]
        proxy += tuple(word for port in meeting for word in ("--bootstrap-port", str(port)))
        return eb.Launch(proxy, deployment.model, notes=notes, ready_timeout_s=READY_S, members=members)

    def request_fields(self, deployment: eb.Deployment, load: eb.Load) -> Mapping[str, eb.JSON]:
        forced: dict[str, eb.JSON] = {"ignore_eos": True, **eb.NEUTRAL_SAMPLING, "top_k": -1}
        if self.traits(deployment).protocol == "sglang":
            return {"sampling_params": forced}
        return forced | {"stream_options": dict(eb.CONTINUOUS_USAGE)}

    def lora_fields(self, deployment: eb.Deployment, name: str) -> Mapping[str, eb.JSON]:
        return {"lora_path": name}

    def resolved(self, get: eb.Get) -> eb.Resolved:
        info = eb.Fields(eb.without_secrets(get("/server_info").json()))
        if not info.value:
            return eb.Resolved()
        states = [eb.Fields(state) for state in eb.as_list(info.at("internal_states"))]
        ranks, chunk, context = (info.whole(name) for name in ("attn_dp_size", "chunked_prefill_size", "context_length"))
        dtype, kv, quantization = (eb.from_torch(info.text(name)) for name in ("dtype", "kv_cache_dtype", "quantization"))
        dtype = dtype if dtype in eb.TORCH_DTYPES else None
        page = info.whole("page_size")
        no_cache, no_overlap = info.flag("disable_radix_cache"), info.flag("disable_overlap_schedule")
        return eb.Resolved(
            version=info.text("version"),
            model=info.text("served_model_name"),
            precision=dtype if quantization is None else QUANTIZED.get(quantization),
            context=context - RESERVED_TOKENS if context is not None else None,
            slots=sum(state.whole("effective_max_running_requests_per_dp") or 0 for state in states) or None,
            prefix_cache=None if no_cache is None else not no_cache,
            prefix_rule=eb.PrefixRule(page, "computed") if page and no_cache is False else None,
            kv_dtype=dtype if kv == "auto" else kv,
            kv_tokens=sum(state.whole("memory_usage.token_capacity") or 0 for state in states) or None,
            chunked_prefill=None if chunk is None else chunk > 0,
            batch_tokens=chunk * (ranks or 1) if chunk is not None and chunk > 0 else None,
            graphs=_graph_mode(info),
            stream_interval=info.whole("stream_interval"),
            options=eb.reported_options(SglangOptions, info.at) | ({} if no_overlap is None else {"overlap_schedule": not no_overlap}),
            raw={"/server_info": info.value},
        )

    def counters(self, get: eb.Get) -> Mapping[str, float]:
        """Both sides of a disaggregated pair count every request: prompts come from the prefill side, everything else from decode."""
        lines = get("/metrics").text.splitlines()
        lines = [line for line in lines if 'pp_rank="' not in line or 'pp_rank="0"' in line]  # every stage counts the same requests
        prefill, decode = ("\n".join(line for line in lines if f'engine_type="{other}"' not in line) for other in ("decode", "prefill"))
        before, after = eb.prometheus_totals(prefill), eb.prometheus_totals(decode)
        if "sglang:prompt_tokens_total" not in before:
            return {}
        found = {"cached_tokens": 0.0} | eb.renamed(before, PREFILL_COUNTERS) | eb.renamed(after, DECODE_COUNTERS)
        found |= eb.renamed(eb.prometheus_totals("\n".join(lines)), {"waiting": "sglang:num_queue_reqs"})
        found |= {"kv_use": use} if (use := eb.prometheus_mean(decode, "sglang:token_usage")) is not None else {}
        return found | _speculation(after, eb.prometheus_mean(decode, "sglang:spec_num_draft_tokens") or 0.0)


def _forced_acceptance(asked: eb.Speculation | None) -> dict[str, str]:
    """SGLang accepts random numbers of tokens with this mean, the model's own token included, so single positions are not forced."""
    if asked is None or asked.forced_length is None:
        return {}
    return {"SGLANG_SIMULATE_ACC_LEN": f"{asked.forced_length:.6g}", "SGLANG_SIMULATE_ACC_METHOD": "match-expected"}


def _uneven(spread: eb.Parallelism, options: SglangOptions) -> str:
    """`round_robin` deals tokens to the ranks of expert parallelism in turn (topk.py of 0.5.23); a copy of an expert changes the ranks."""
    if options.routing != "round_robin":
        return ""
    if spread.ep == 1:
        return "round_robin deals tokens over the ranks of expert parallelism, and without ep each step uses the same experts again"
    return "eplb moves experts between ranks after round_robin has dealt the tokens" if options.eplb is not None else ""


def _check_experts(spread: eb.Parallelism, options: SglangOptions) -> None:
    tp, ep, eplb, a2a, moe = spread.tp, spread.ep, options.eplb, options.a2a_backend, options.moe_backend
    whole_tp, static = moe in ("flashinfer_cutlass", "flashinfer_cutedsl"), eplb is not None and eplb.dispatch == "static"
    eb.refuse(
        (tp % ep, f"expert parallelism is inside tp: ep {ep} does not divide {tp}"),
        (a2a and (ep == 1 or ep != tp), f"{a2a} spreads the experts over all of tp: write ep = tp, above 1"),
        (a2a == "flashinfer" and spread.attention_dp != tp, "the flashinfer all-to-all needs attention_dp = tp"),
        (whole_tp and ep not in (1, tp), f"{moe} takes an ep of 1 or of tp = {tp}, not {ep}"),
        (options.deepep_mode and a2a != "deepep", "deepep_mode selects kernels of a2a_backend: deepep"),
        (eplb is not None and ep == 1, "eplb balances the ranks of expert parallelism: it needs ep"),
        (static and a2a is None, "a static dispatch needs an a2a_backend, because each rank chooses another copy: write dispatch: dynamic"),
        (options.two_batch_overlap and a2a is None, "two_batch_overlap hides the transfers of an a2a_backend, and there is none"),
        (options.paged_experts is not None and tp * spread.pp > 1, "paged_experts needs one device"),
    )


def _notes(deployment: eb.Deployment, options: SglangOptions) -> tuple[str, ...]:
    spread, slots, asked = deployment.parallelism, batch_slots(deployment), deployment.speculation
    return eb.holding(
        (True, f"the context is {RESERVED_TOKENS} tokens longer than asked: SGLang withholds them from prompt and output"),
        (spread.attention_dp > 1, "attention_dp divides the prefill chunk and admits requests sooner (schedule_conservativeness x 0.3)"),
        (slots != deployment.max_concurrency and not options.max_running_requests, f"slots are a multiple of attention_dp: {slots}"),
        (spread.dp_replicas > 1, "each replica may take all requests: an even spread is not guaranteed"),
        (spread.pp > 1, "pipeline stages switch the overlap schedule off"),
        (options.disaggregated, "a prefill server captures no decode graphs"),
        (asked and asked.match, "SGLang proposes what followed the longest match in a trie: `match` is not used"),
        (asked and asked.acceptance is not None, "SGLang forces the mean of accepted tokens, not each position"),
    )


def _node_flags(site: eb.Site, rank: int) -> list[str]:
    """How the ranks on several nodes find each other; those after the first answer only /health, on a port of their own."""
    if not site.nodes:
        return []
    head = site.nodes[0]
    return eb.flags_of({"--nnodes": len(site.nodes), "--node-rank": str(rank), "--dist-init-addr": f"{head.address}:{head.ports[0]}"})


def _members(pair: Disaggregated, server: Sequence[str], env: Mapping[str, str], site: eb.Site, ranks: int) -> Iterator[eb.Member]:
    """The servers behind the proxy, each on its own devices: prefill ones first, as their ports are."""
    for place, name in enumerate(pair.names):
        mode = name.partition("-")[0]
        node, local = pair.place(place, len(site.nodes))
        there = site.on(node)
        own: dict[str, eb.JSON] = {"--base-gpu-id": local * ranks, "--disaggregation-mode": mode}
        own |= {"--disaggregation-bootstrap-port": there.ports[len(pair.names) + place]} if mode == "prefill" else {}
        argv = (*server, *there.address_at(there.ports[place]), *eb.flags_of(own | eb.declared_flags(pair)))
        yield eb.Member(name, argv, there.ports[place], env, node=node)


def _graph_mode(info: eb.Fields) -> str | None:
    """SGLang's cuda_graph_config in the words of the option `graphs`; None where it is not reported."""
    decode, prefill = (info.text(f"cuda_graph_config.{phase}.backend") for phase in ("decode", "prefill"))
    if decode is None or prefill is None:
        return None
    on = [phase for phase, backend in (("decode", decode), ("prefill", prefill)) if backend != "disabled"]
    return "_and_".join(on) if len(on) > 1 else f"{on[0]}_only" if on else "off"


def _speculation(totals: Mapping[str, float], verified: float) -> dict[str, float]:
    """Proposed and accepted tokens (TokenizerManager of 0.5.23). A verification takes `verified` tokens, all but one of them proposed, and
    yields one more than it accepts; the first token of a request needs none."""
    calls, output, requests = (totals.get(f"sglang:{name}_total") for name in ("spec_verify_calls", "generation_tokens", "num_requests"))
    if not calls or verified <= 1 or output is None or requests is None:
        return {}
    return {"drafts": calls, "draft_tokens": calls * (verified - 1), "accepted_tokens": max(0.0, output - requests - calls)}
