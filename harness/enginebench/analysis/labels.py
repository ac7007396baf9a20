"""Labels of loads and deployments for tables and sentences: one line for each, and what distinguishes several."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from enginebench.domain import Deployment, Load, field_names, load_fields, plain_object
from enginebench.domain.formatting import flat
from enginebench.domain.load_field import LoadField, Role

SELDOM_SHOWN: tuple[Role, ...] = ("extent", "client")
"""Fields that tables and progress lines show only where loads would look the same without them: they mostly follow from the level."""


SELDOM_NAMED = (
    "checkpoint", "container", "url", "api_key_env", "api_key_header", "ca_file", "max_context", "max_concurrency", "ready_timeout_s",
)  # fmt: skip
"""The same for fields of a deployment."""


def distinguishing_labels(loads: Sequence[Load], *, hidden: tuple[Role, ...] = ()) -> list[str]:
    """For each load what distinguishes it from the others, besides level and lengths: 'requests 64, duration 8 s, prompts text', or ''.

    Omits values that are 0, not set or without effect. hidden: fields that are left out unless loads that differ would look the same.
    """
    fields = [declared for name, declared in load_fields().items() if name not in field_names("lengths")]
    varying = [its for its in fields if len({load.value(its.name) for load in loads}) > 1]
    labels: list[str] = []
    for roles, everything in ((hidden, False), ((), False), ((), True)):
        shown = [its for its in varying if its.role not in roles]
        labels = [_values(load, shown, everything=everything) for load in loads]
        if len({(load.level_text, load.shape_text, text) for load, text in zip(loads, labels, strict=True)}) == len(set(loads)):
            break
    return labels


def _values(load: Load, fields: Sequence[LoadField], *, everything: bool) -> str:
    """everything: also fields that set the level, and those without an effect on this load."""
    shown = [its for its in fields if everything or (its.name not in load.level_fields and load.uses(its.name))]
    return ", ".join(its.text(value) for its in shown if (value := load.value(its.name)))


def load_names(loads: Iterable[Load]) -> dict[Load, str]:
    """'4 streams 128 + 64 tokens, prompts text': level, lengths and what else distinguishes each load of a run."""
    each = list(dict.fromkeys(loads))
    labels = distinguishing_labels(each, hidden=SELDOM_SHOWN)
    return {load: ", ".join(filter(None, (f"{load.level_text} {load.shape_text}", text))) for load, text in zip(each, labels, strict=True)}


def deployment_names(deployments: Sequence[Deployment]) -> list[str]:
    """'vllm scout fp8 block_size=16 tp=2': label, or engine, model, precision and options; then what differs where these are the same."""
    names, settings = [_usual_name(deployment) for deployment in deployments], [_settings(deployment) for deployment in deployments]
    peers: dict[str, list[Mapping[str, str]]] = {}
    for name, its in zip(names, settings, strict=True):
        peers.setdefault(name, []).append(its)
    differing = {name: _differing(group) for name, group in peers.items()}
    return [
        " ".join([name, *(f"{key}={its[key]}" for key in differing[name] if key in its)]) for name, its in zip(names, settings, strict=True)
    ]


def _usual_name(deployment: Deployment) -> str:
    if deployment.label:
        return deployment.label
    options = (f"{key}={value}" for key, value in deployment.options.items())
    return " ".join(filter(None, (deployment.engine, deployment.model, deployment.known_precision, *options)))


def _settings(deployment: Deployment) -> dict[str, str]:
    """Dotted name -> value of everything that is set: 'tp', 'options.block_size', 'container.memory'."""
    data = plain_object(deployment)
    spread = data.pop("parallelism")
    return flat({**spread, **data})  # type: ignore[dict-item]  # a dataclass becomes a dict


def _differing(settings: Sequence[Mapping[str, str]]) -> list[str]:
    """Names of the settings that vary; those of SELDOM_NAMED only if deployments that differ would look the same without them."""
    names = dict.fromkeys(name for its in settings for name in its)
    varying = [name for name in names if len({its.get(name) for its in settings}) > 1]
    usual = [name for name in varying if name.partition(".")[0] not in SELDOM_NAMED]
    kinds = [len({tuple(its.get(name) for name in some) for its in settings}) for some in (usual, varying)]
    return usual if kinds[0] == kinds[1] else varying


def load_text(load: Load) -> str:
    """A load in one line: '4 streams x 128 + 64 tokens, 16 requests'."""
    limit = f", at most {load.limit} in flight" if load.limit else ""
    ends = [f"{load.requests:,} requests"] if load.requests else []
    ends += [f"{load.duration_s:g} s"] if load.duration_s is not None else []
    turns = f", conversations of {load.turns}" if load.turns > 1 else ""
    return f"{load.level_text} x {load.shape_text}{turns}{limit}, {' or '.join(ends) or 'every row'}"
