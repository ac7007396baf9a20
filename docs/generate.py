"""Writes the reference pages of docs/ from the code: scenario keys, JSON Schema, metrics, engines. `make docs`; a test compares."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import json
import re
import sys
import textwrap
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from enginebench.adapter import GAUGES, TOTALS, Deployment
from enginebench.engines.registry import discover, environments
from enginebench.metrics.registry import metrics
from enginebench.metrics.statistics import BOOTSTRAP_FROM, range_coverage, repeats_needed
from enginebench.records.subject import VALUES
from enginebench.scenario.schema import ScenarioFile
from enginebench.validity import VERDICTS, Check, all_checks

sys.path.insert(0, str(Path(__file__).parent))

import dialect_page  # files beside this one
import physics_pages
from export_page import export_page
from physics_pages import DOCS, GENERATED


def page(name: str) -> str:
    """The content of a file of docs/."""
    return _PAGES[name]()


def _schema() -> str:
    return (
        json.dumps(ScenarioFile.model_json_schema() | {"$schema": "https://json-schema.org/draft/2020-12/schema"}, indent=1, sort_keys=True)
        + "\n"
    )


def _scenario() -> str:
    schema = ScenarioFile.model_json_schema()
    out = [
        GENERATED + "# The scenario file",
        "A scenario is one YAML file that lists models, deployments of them, and loads. **Wherever a single value is allowed, a list is allowed "
        "too, and the sweep is the product of all lists.** Unknown keys, wrong types and impossible values are refused with file, line "
        "and key before anything is launched. For completion in an editor, start the file with "
        "`# yaml-language-server: $schema=docs/scenario.schema.json`.",
        "```yaml\n" + (DOCS.parent / "scenarios" / "cpu_engines.yaml").read_text().rstrip() + "\n```",
    ]
    for title, name in (
        ("Top level", None), ("models", "Model"), ("models.*.random_weights", "RandomWeights"), ("deployments", "Deployments"), ("deployments.*.container", "ContainerSettings"),
        ("deployments.*.speculation", "SpeculationSettings"),
        ("loads", "Loads"), ("slo", "SLO"), ("loads.*.find", "Find"), ("repeats", "AutoRestarts"), ("parity", "Parity"),
        ("quality", "Quality"), ("quality.perplexity", "Perplexity"), ("quality.divergence", "Divergence"), ("quality.tasks", "Task"),
        ("placement", "PlacementSettings"),
    ):  # fmt: skip
        part = schema if name is None else schema["$defs"][name]
        required = set(part.get("required", ()))
        rows = [
            f"| `{key}` | {_type(value)} | {_default(key, value, required)} | {value.get('description', '')} |"
            for key, value in part["properties"].items()
        ]
        out.append(
            f"## {title}\n\n{part.get('description', '')}\n\n| key | type | default | meaning |\n|---|---|---|---|\n" + "\n".join(rows)
        )
        if name == "Loads":
            out.append(_LOADS)
    return "\n\n".join(out) + "\n"


_LOADS = inspect.cleandoc("""
    ### When requests are sent

    A **closed loop** keeps `concurrency` requests in flight: the next is sent as soon as one ends. It measures what a server can do, but
    it waits for the server: if responses are slow, fewer requests are sent. An **open loop** sends each request when it is *due*,
    independent of the server, as users do. If the server cannot keep up, its queue grows, and latencies from scheduled arrival show it.

    ```yaml
    loads:
      - {concurrency: [1, 8, 64], ramp_s: 5}                              # closed loop; all streams have started after 5 s
      - {rate: [2, 4], duration_s: 60}                                    # open loop, Poisson arrivals for one minute
      - {rate: 4, arrivals: [constant, gamma], burstiness: 0.5}           # evenly spaced; in bursts
      - {rate: 1, rate_to: 16, duration_s: 120}                           # rising: at which rate does the server saturate?
      - {steps: "2@60, 8@60, 2@120"}                                      # 2 req/s for 60 s, then 8, then 2 again
      - {rate: 50, concurrency: 256, requests: 2000}                      # at most 256 in flight; the others wait
      - {trace: traces/azure.csv, time_scale: 0.5}                        # recorded arrivals and lengths, twice as fast
      - {concurrency: 8, turns: 4, think_s: 2, prefix_cache: allowed}     # 8 users, 4 questions each, 2 s of think time
    ```

    A load ends when `requests` have been sent or `duration_s` has passed, whichever is first. Contradictory keys (a `trace` with a
    `rate`, a `ramp_s` in an open loop) are refused.

    ### How long requests are

    ```yaml
    loads:
      - {input_tokens: 512, output_tokens: 128}
      - {input_tokens: "uniform(64,256)", output_tokens: "lognormal(128,0.5)"}
      - {lengths: "128+64*3, 2048+256"}                                   # of every four requests, three short and one long
    ```

    Every length is exact, and the same seed gives the same lengths, prompts and arrivals.

    ### What requests contain

    ```yaml
    loads:
      - {prompts: [random, text]}                                         # the same lengths as random tokens and as English words
      - {prompts: "sharegpt:data/sharegpt.json", api: chat}               # lengths of the data set
      - {prompts: "jsonl:data/questions.jsonl#question", output_tokens: 64}
      - {input_tokens: 1024, prefix_groups: 4, prefix_tokens: 768, prefix_cache: allowed}
    ```

    Random tokens are routed to experts differently from real text; compare both before you trust either. Prompts of one `prefix_group` start
    with the same tokens. Paths are relative to the scenario.

    ### Limits and searches

    ```yaml
    slo: {ttft_ms: 500, tpot_ms: 50, share: 0.99}                         # or a preset: slo: mlperf/deepseek-r1
    loads:
      - {rate: [1, 2, 4], duration_s: 60}                                 # goodput of each
      - {find: {goal: max_goodput, over: rate, from: 4, to: 64}}
    ```

    With an `slo` every cell has a goodput: the requests per second that meet every limit. `find` searches instead of sweeping: it doubles
    the level while the SLO is met, then halves the gap until it is within `precision`. Every probe is a stored cell, so an interrupted search
    continues where it stopped. Every repeat searches again. Without `requests` and `duration_s`, a probe sends at least a
    quarter more requests than are needed to judge the `share`: enough that three are expected to miss the limits, so 0.99 needs 300 and 0.9
    needs 30. With fewer, the result says so. The limits can be changed when a run is read: `bench report --slo ttft_ms=300`.
""")


def _type(value: dict[str, Any]) -> str:
    if "$ref" in value:
        return str(value["$ref"]).rpartition("/")[2]
    if "enum" in value or "const" in value:
        return ", ".join(f"`{v}`" for v in value.get("enum", [value.get("const")]))
    if "anyOf" in value:
        kinds = [k for k in value["anyOf"] if k.get("type") != "null"]
        if len(kinds) == 2 and kinds[1].get("type") == "array":
            return f"{_type(kinds[0])} (or a list)"
        return " or ".join(_type(k) for k in kinds)
    if value.get("type") == "array":
        return f"list of {_type(value.get('items', {}))}"
    if value.get("type") == "object":
        return "mapping"
    return {"integer": "whole number", "number": "number", "string": "text", "boolean": "true, false"}.get(value.get("type", ""), "any")


def _default(key: str, value: dict[str, Any], required: set[str]) -> str:
    if key in required:
        return "**required**"
    default = value.get("default")
    return "" if default is None else f"`{json.dumps(default)}`"


def _metrics() -> str:
    rows = [f"| {m.title} | `{m.name}` | {m.unit} | {m.scope} | {m.better or ''} | {m.formula} |" for m in metrics().values()]
    dialects = inspect.cleandoc("""
        | formula | enginebench | vLLM, SGLang, InferenceX | AIPerf | GuideLLM | inference-perf |
        |---|---|---|---|---|---|
        | (E2E - TTFT) / (n - 1) | TPOT | `tpot` | `inter_token_latency` | `inter_token_latency_ms` | `time_per_output_token` |
        | E2E / n | - | - | - | `time_per_output_token_ms` | `normalized_time_per_output_token` |
        | gap between stream events | ITL | `itl` | `inter_chunk_latency` | - | `inter_token_latency` |
    """)
    counters = "\n".join(
        f"| `{name}` | {kind} | {meaning} |" for kind, names in (("total", TOTALS), ("now", GAUGES)) for name, meaning in names.items()
    )
    inside = inspect.cleandoc("""
        ## Inside the engine

        If an engine has counters, a separate process reads them about once a second during a load, over one persistent connection and
        at a lower priority than engine and client. It takes its first reading before the window starts, and uses
        about a thousandth of a core (`series.cpu_s` of each cell has the measured value). The value of a total is its rise from just before
        the load to just after it. For the others, mean and maximum are over the window.

        | counter | kind | what it counts |
        |---|---|---|
        COUNTERS

        **Was the prefix cache cold?** This is proven by *counters* if the engine's total of cached tokens did not rise, or by *usage* if every
        response states how many of its prompt tokens were cached. Otherwise it is *not provable*: the only evidence is that no two prompts start
        alike.

        **Two clocks.** `engine_tpot` and `engine_ttft` are the times that an engine reports for its own requests: llama.cpp's
        `timings`, Ollama's durations, vLLM's per-request metrics, SGLang's meta_info. They exclude the network, the client and usually the
        queue. If the medians differ by too much from the client's, the check [`timings_disagree`](validity.md) fails.
    """).replace("COUNTERS", counters)
    values = "\n".join(f"| {kind} | `{name}` | {meaning} |" for kind, names in VALUES.items() for name, meaning in names.items())
    hardware = inspect.cleandoc("""
        ## The machine

        During a load, a further process reads the machine about once a second: each NVIDIA GPU through NVML, AMD GPUs through amdsmi
        if that module can be imported, CPU and memory, and the engine's process tree or
        containers. It takes its first reading before the window starts and its last one after it. The record of each
        cell keeps all readings under `telemetry`; values that a device does not report are omitted.

        | of | value | meaning |
        |---|---|---|
        VALUES

        The value of a total over the window is its rise between the window's edges, interpolated between the readings around each edge; a mean is
        over time. Both need readings over at least half of the window. **The GPUs of a cell** are those with a compute process of the engine. If
        none of its processes can be found (another process namespace), they are all GPUs, provided that the deployment takes as many as there are
        and each was busy. Otherwise power and energy are unknown, because they may belong to other work. An attached server (`attach`) has no GPUs
        here.

        [validity.md](validity.md) lists what makes a cell suspect, and which figures are then withheld.

        Tested without a GPU: the path from the real NVML binding to the report, with a library that simulates a device. Readings of
        real NVIDIA and AMD devices are unverified.
    """).replace("VALUES", values)
    coverage = ", ".join(f"{100 * range_coverage(n):g} % for n = {n}" for n in range(2, BOOTSTRAP_FROM))
    return (
        GENERATED
        + "# Metrics\n\nAll times come from one monotonic clock in the client. Each socket read has one time stamp: by the kernel on arrival, or (if `client.stamps` is `loop`) by the client before parsing. Samples are "
        "stored raw; every figure below is computed when a run is read, so a metric added later also applies to old runs.\n\n"
        "| title | name | unit | scope | better | formula |\n|---|---|---|---|---|---|\n"
        + "\n".join(rows)
        + "\n\nA metric per request or event has the figures `name_p50`, `name_p90` and `name_p99`. The gaps between events are intervals between tokens only if "
        "every event carries exactly one token; otherwise reports call ITL *event interval*.\n\n## Names in other tools\n\n"
        + dialects
        + "\n\n## Percentiles and intervals\n\n"
        "A percentile is shown only when at least three samples are expected beyond it: p50 from 6 requests, p90 from 30, p99 from 300. The unit of "
        "replication is a server restart: a figure is the median over n repeats, and n is always shown. For n = 2 to 5 its interval is the range of the "
        "repeats, which contains the true median with a probability of exactly 1 - 2^(1-n): "
        + coverage
        + ". No interval of a median does better with so "
        f"few values. From n = {BOOTSTRAP_FROM} on it is the 95 % bootstrap interval (2,000 resamples, fixed seed; in simulations it contained the true median in 87 to 94 % of cases "
        "between n = 6 and 20). With one repeat there is no interval.\n\nWhether two deployments differ is not decided by their intervals, but "
        "by tests over the repeats, at each load. *Leads* means p < 0.05 in the exact two-sided Mann-Whitney test against every other deployment, a difference of at least "
        "the margin (3 % for every metric; `equal_within` of a scenario or `bench report --equal-within` replace it), and p < 0.03 in a permutation test of the two deployments "
        "over all loads, stepping down from the plainest difference (Westfall and Young 1993), which keeps chance from naming a winner at one load of many. *Equal* means that the difference is below the margin in two one-sided tests at 5 % "
        "(TOST; 3 repeats each are enough). *Probably ahead* means that all repeats agree but are too few for such a p (with n = 3 each p is 0.10; "
        f"{repeats_needed()} each are enough); otherwise they *cannot be told apart*.\n\n" + inside + "\n\n" + hardware + "\n"
    )


def _validity() -> str:
    out = [
        GENERATED + "# Validity",
        "Every check below runs on every cell whenever a run is read, and after each cell of `bench run`. The worst finding is the verdict of "
        "the cell; every finding is a reason with advice. A check without its evidence is *not checkable*, which is not "
        "*passed*: `bench report --json` lists such checks under `not_checkable` of each cell. `bench checks` prints this page in a terminal.",
        "| verdict | meaning |\n|---|---|\n" + "\n".join(f"| `{verdict}` | {meaning} |" for verdict, meaning in VERDICTS.items()),
        "Withheld figures are shown as `-`; the cell's other figures remain. An `in-process` batch has no latencies and no ITL, because all its requests are "
        "sent at once.",
    ]
    for topic, checks in itertools.groupby(all_checks(), key=lambda check: check.topic):
        group = list(checks)
        out.append(f"## {topic.capitalize()}\n\n{_first_line(inspect.getmodule(group[0].function))}")
        out += map(_check, group)
    return "\n\n".join(out) + "\n"


def _check(check: Check) -> str:
    facts = [f"- **{severity}** if {condition}" for severity, condition in check.when.items()]
    facts.append(f"- meaning: {check.meaning}")
    facts.append(f"- next: {check.advice}")
    if check.withholds:
        facts.append(f"- withholds metrics of: {', '.join(trait.name.lower() for trait in check.withholds)}")
    if check.needs:
        facts.append(f"- needs: {'; '.join(evidence.name for evidence in check.needs)}")
    return f"### `{check.id}`\n\n{check.explanation}\n\n" + "\n".join(facts)


def _first_line(documented: object) -> str:
    return (inspect.getdoc(documented) or "").partition("\n")[0]


def _engines() -> str:
    out = [
        GENERATED + "# Engines",
        "Each engine is a file or a folder in `adapters/`. Options are set under `options:` of a deployment; a list is swept.",
    ]
    for adapter in discover().values():
        source = sys.modules[type(adapter).__module__]
        precisions = ", ".join(sorted(adapter.precisions)) if adapter.precisions is not None else "that of the server"
        installs = {name.replace(f"{adapter.name}-", f"{adapter.name}:", 1): pins for name, pins in environments(adapter).items()}
        traits = adapter.traits(Deployment(adapter.name, "model", "any", "model", adapter.runtimes[0]))
        facts = [
            f"- runtimes: {', '.join(adapter.runtimes)}; routes: {', '.join(adapter.apis)}; prompts as {'ids' if traits.takes_ids else 'text'}; "
            f"output length: {'forced exactly' if traits.forces_length else 'only a maximum, which the result states'}",
            f"- precisions: {precisions}",
            "- install: "
            + "; ".join(
                f"`bench engines install {name}` ({', '.join(pins.requirements)}"
                + (f"; without {', '.join(pins.unwanted)})" if pins.unwanted else ")")
                for name, pins in installs.items()
            )
            if installs
            else "- nothing to install",
        ]
        out.append(f"## {adapter.title} (`{adapter.name}`)\n\n{inspect.getdoc(source)}\n\n" + "\n".join(facts) + _options(adapter.options))
    return "\n\n".join(out) + "\n"


def _options(options: type) -> str:
    documented = _field_docs(options)
    rows = []
    for field in dataclasses.fields(options):
        default = (
            field.default
            if field.default is not dataclasses.MISSING
            else field.default_factory()
            if callable(field.default_factory)
            else ""
        )
        hint = typing.get_type_hints(options)[field.name]
        kind = re.sub(
            r"typing\.|enginebench_adapters\.[\w.]+\.|<class '|'>|NoneType", lambda m: "None" if m[0] == "NoneType" else "", str(hint)
        ).replace("|", "or")
        flag = f" (`{field.metadata['flag']}`)" if field.metadata.get("flag") else ""
        rows.append(f"| `{field.name}` | {kind} | {'' if default is None else f'`{default}`'} | {documented.get(field.name, '')}{flag} |")
    return "\n\n| option | type | default | meaning |\n|---|---|---|---|\n" + "\n".join(rows) if rows else ""


def _field_docs(options: type) -> dict[str, str]:
    """The docstrings below the fields of a dataclass."""
    import ast

    found = _field_docs(options.__base__) if options.__base__ is not None and dataclasses.is_dataclass(options.__base__) else {}
    body = ast.parse(textwrap.dedent(inspect.getsource(options))).body[0].body  # type: ignore[attr-defined]
    for field, text in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            found[field.target.id] = " ".join(str(text.value.value).split())  # type: ignore[union-attr]
    return found


_PAGES: dict[str, Callable[[], str]] = {
    "export.md": export_page,
    "scenario.schema.json": _schema,
    "scenario.md": _scenario,
    "metrics.md": _metrics,
    "validity.md": _validity,
    "engines.md": _engines,
    "dialects.md": dialect_page.dialects,
    "physics-published.md": physics_pages.published,
    "hardware.md": physics_pages.hardware,
    "physics.md": physics_pages.physics,
}

if __name__ == "__main__":
    for name in _PAGES:
        (DOCS / name).write_text(page(name))
        print(f"wrote docs/{name}")
