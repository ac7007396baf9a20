"""Labels of loads and deployments for tables and sentences: one line for each, and what distinguishes several."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from enginebench.domain import Deployment, Load, field_names, load_fields, plain_object
from enginebench.domain.formatting import flat
from enginebench.domain.ids import text_of
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


def deployment_names(deployments: Sequence[Deployment], reported: Mapping[str, str] | None = None) -> list[str]:
    """For each deployment of one model the shortest name that distinguishes it: 'llamacpp', 'vllm fp8 tp=2', 'transformers grouped_mm'.

    A label is the name. Else it is the engine, the precision where it differs between any two, and of what else differs within the
    engine as few settings as make the names unique, the usual ones first. reported: text of a deployment -> precision of the weights that
    its server reports, for those that leave it open.
    """
    settings = [_settings(deployment, (reported or {}).get(text_of(deployment))) for deployment in deployments]
    precisions = len({its.get("precision", "") for its in settings}) > 1
    heads = [its.get("label") or its["engine"] for its in settings]
    peers: dict[str, list[Mapping[str, str]]] = {}
    for head, its in zip(heads, settings, strict=True):
        peers.setdefault(head, []).append(its)
    keys = {head: _keys(group, precision=precisions) for head, group in peers.items()}
    return [
        " ".join([head, *filter(None, (_word(key, its.get(key, "")) for key in keys[head]))])
        for head, its in zip(heads, settings, strict=True)
    ]


def _keys(settings: Sequence[Mapping[str, str]], *, precision: bool) -> list[str]:
    first = ["precision"] if precision and not settings[0].get("label") else []
    return [*first, *_fewest(settings, first)]


def deployment_titles(deployments: Sequence[Deployment]) -> dict[str, str]:
    """Text of a deployment (`text_of`) -> its name, and before it that of its model where there are several."""
    models: dict[str, list[Deployment]] = {}
    for deployment in deployments:
        models.setdefault(deployment.model, []).append(deployment)
    found: dict[str, str] = {}
    for model, ours in models.items():
        titles = [f"{model} {name}" if len(models) > 1 else name for name in deployment_names(ours)]
        found |= {text_of(deployment): title for deployment, title in zip(ours, titles, strict=True)}
    return found


def _fewest(settings: Sequence[Mapping[str, str]], known: Sequence[str]) -> list[str]:
    """As few further settings as tell these apart, by their order of importance; all that vary where they cannot."""
    varying = [key for key in dict.fromkeys(key for its in settings for key in its) if len({its.get(key) for its in settings}) > 1]
    varying = sorted((key for key in varying if key not in known), key=_importance)
    chosen: list[str] = []
    kinds = _kinds(settings, known)
    for key in varying:
        if (more := _kinds(settings, [*known, *chosen, key])) > kinds:
            chosen, kinds = [*chosen, key], more
    return chosen


def _kinds(settings: Sequence[Mapping[str, str]], keys: Sequence[str]) -> int:
    """How many of the settings are distinguished by these keys."""
    return len({tuple(its.get(key, "") for key in keys) for its in settings})


def _importance(key: str) -> int:
    """The usual settings first, those that are seldom named last; runtime, options and parallelism before the rest."""
    head = key.partition(".")[0]
    order = ("precision", "tp", "pp", "ep", "dp_replicas", "attention_dp", "nodes", "speculation", "options", "runtime")
    return 100 if head in SELDOM_NAMED else order.index(head) if head in order else len(order)


def _word(key: str, value: str) -> str:
    """'tp=2', 'fp8', 'grouped_mm': a word stands for itself, a number or a switch needs its name; '' for what is usual or not set."""
    name = key.rpartition(".")[2]
    if key == "runtime":
        return "" if value == "process" else value
    bare = key == "precision" or (value[:1].isalpha() and value not in _SWITCHES)
    return value if bare or not value else f"{name}={value}"


_SWITCHES = ("on", "off", "true", "false", "True", "False", "auto", "none", "None")


def _settings(deployment: Deployment, reported: str | None) -> dict[str, str]:
    """Dotted name -> value of everything that is set: 'tp', 'options.block_size', 'container.memory'."""
    data = plain_object(deployment)
    spread = data.pop("parallelism")
    data |= {"loras": " ".join(deployment.loras)} if deployment.loras else {}
    data |= {"speculation": deployment.speculation.text} if deployment.speculation is not None else {}
    found = flat({**spread, **data})  # type: ignore[dict-item]  # a dataclass becomes a dict
    return {**found, "precision": deployment.known_precision or reported or ""}


def load_text(load: Load) -> str:
    """A load in one line: '4 streams x 128 + 64 tokens, 16 requests'."""
    limit = f", at most {load.limit} in flight" if load.limit else ""
    ends = [f"{load.requests:,} requests"] if load.requests else []
    ends += [f"{load.duration_s:g} s"] if load.duration_s is not None else []
    turns = f", conversations of {load.turns}" if load.turns > 1 else ""
    return f"{load.level_text} x {load.shape_text}{turns}{limit}, {' or '.join(ends) or 'every row'}"
