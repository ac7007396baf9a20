"""The weights that a name stands for: in the catalogue, `random:`, or a file (config.json, safetensors, GGUF), `hf:`; reads only headers.

Roles are assigned by tensor names. Tensors without a matching rule, and layers beyond those of the config (multi-token prediction), have
the role `other`: they take memory, but are not read during decode.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from enginebench.checkpoints.gguf_metadata import read_metadata
from enginebench.checkpoints.hub import SCHEME as HUB
from enginebench.checkpoints.hub import is_id
from enginebench.checkpoints.random_moe import SCHEME as RANDOM
from enginebench.checkpoints.random_moe import RandomMoE
from enginebench.errors import UserError, did_you_mean
from enginebench.physics.catalogue import find_model, models
from enginebench.physics.config import from_config
from enginebench.physics.geometry import Model, Recurrence, Role
from enginebench.physics.gguf_config import gguf_config, wanted
from enginebench.physics.hub_config import CONFIG, hub_config
from enginebench.physics.precision import Precision, names, precision
from enginebench.physics.quantization import stored_precision
from enginebench.physics.weights import Stored, Weights, weigh

_ROLES: tuple[tuple[str, Role], ...] = (
    (r"vision|multi_modal|mtp|nextn|eh_proj|enorm|hnorm", Role.OTHER),
    (r"per_layer_token_embd|embed_tokens_per_layer|ngram_embedding", Role.LOOKUP),
    (r"token_embd\.|embed_tokens", Role.EMBEDDING),
    (r"^output\.|lm_head", Role.HEAD),
    (r"ffn_gate_inp\.scale", Role.NORM),
    (r"altup_router", Role.NORM),
    (r"ffn_gate_inp|shared_expert_gate|router|mlp\.gate\.|block_sparse_moe\.gate\.|exp_probs_b|ffn_down_exps\.scale", Role.ROUTER),
    (r"shexp|shared_expert|ffn_latent|ffn_routed_(down|up)", Role.SHARED),
    (r"(?<!norm)_(ch)?exps|\.experts\.|input_linear|output_linear", Role.EXPERT),
    (r"norm|res_score|altup_(router|correct|predict)", Role.NORM),
    (r"\.(ssm_|shortconv)", Role.RECURRENT),
    (r"attn_q_a|attn_kv_a|q_a_proj|kv_a_proj|indexer\.|inp_gate|\.proj\.|laurel|altup_|per_layer_model_proj", Role.LATENT),
    (r"attn_(k|v)\.|[kv]_proj\.", Role.KEYS),
    (r"attn|self_attn", Role.ATTENTION),
    (r"ffn_|mlp\.|feed_forward\.", Role.DENSE),
)  # fmt: skip
_NAMES = tuple((re.compile(pattern), role) for pattern, role in _ROLES)
_BLOCK = re.compile(r"(?:^|\.)(?:blk|layers)\.(\d+)\.")
_SCALE = re.compile(r"(_scale_inv|_scales?|_scale_2|\.weight_scale|\.input_scale|\.g_idx|\.qzeros|\.scales)$")
"""Quantisation data in safetensors files: they count as bytes of their role, not as weights."""
_PACKED = frozenset({"I32", "U8"})
"""Types whose elements hold several quantised weights."""


def read_weights(reference: str, name: str | None = None, *, gguf: bool = False) -> Weights:
    """The weights of a catalogue model, a config.json, a folder of safetensors, a .gguf file, `hf:ORG/NAME`, or `random:`.

    name: a precision; then a file gives only the dimensions. None: the published precision, or the real sizes in the file. gguf: what an
    engine that reads GGUF files stores under that name. UserError if the reference is unknown or unreadable.
    """
    path = Path(reference).expanduser()
    if reference.startswith(RANDOM):
        return weigh(random_model(reference), precision(name or "bf16", gguf=gguf))
    if reference.startswith(HUB) or path.exists():
        found = read_hub(reference) if reference.startswith(HUB) else read_file(path)
        return found if name is None else weigh(found.model, precision(name, gguf=gguf))
    word, entry = reference.lower(), find_model(reference)
    if entry is None:
        raise UserError(
            f"unknown model '{reference}': neither in the catalogue nor a file or folder",
            advice=f"write hf:{reference} to read its config.json on the hub" if is_id(reference) else did_you_mean(word, models()),
        )
    return weigh(entry.model, precision(name or entry.native, gguf=gguf))


def random_model(reference: str) -> Model:
    random = RandomMoE.from_reference(reference)
    shapes = {tensor.name: tensor.shape for tensor in random.tensors()}
    config: dict[str, Any] = {
        "model_type": random.family.hf_type,
        "vocab_size": shapes["token_embd.weight"][0],
        "hidden_size": random.hidden,
        "num_hidden_layers": random.layers,
        "num_attention_heads": random.heads,
        "num_key_value_heads": random.kv_heads,
        "head_dim": random.head_dim,
        "intermediate_size": random.expert_intermediate,
        "max_position_embeddings": random.context,
        **random.family.config(random),
    }
    return from_config(f"random-{random.architecture}", config)


def read_file(path: Path) -> Weights:
    """The model, and real sizes from a .gguf file or a folder of safetensors, or computed sizes from a config.json."""
    if path.suffix == ".gguf":
        return _gguf(path)
    config = path / "config.json" if path.is_dir() else path
    if not config.is_file() or config.suffix != ".json":
        raise UserError("contains no model", file=path, advice="name a .gguf file, a folder with config.json, or a config.json")
    document = _document(config.read_bytes(), config)
    model = from_config(_title(config), document)
    kind = stored_precision(document, config.parent, len(model.layers))
    shards = sorted(path.glob("*.safetensors")) if path.is_dir() else []
    if not shards:
        return weigh(model, kind)
    return _assemble(model, kind, [tensor for shard in shards for tensor in _safetensors(shard)], f"{len(shards)} safetensors files")


def read_hub(reference: str) -> Weights:
    """Computed sizes from the config.json of `hf:ORG/NAME`."""
    name, texts = hub_config(reference)
    document = _document(texts[CONFIG], Path(reference) / CONFIG)
    model = from_config(name, document)
    with TemporaryDirectory() as folder:
        for file, text in texts.items():
            (Path(folder) / file).write_text(text, encoding="utf-8")
        return weigh(model, stored_precision(document, Path(folder), len(model.layers)))


def _document(text: str | bytes, file: Path) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"invalid JSON ({error})", file=file) from error
    if not isinstance(document, dict):
        raise UserError("is no config.json: it holds no keys", file=file)
    return document


def role_of(name: str) -> Role:
    return next((role for pattern, role in _NAMES if pattern.search(name)), Role.OTHER)


_Tensor = tuple[str, int, float]


def _assemble(model: Model, kind: Precision, tensors: Iterable[_Tensor], source: str) -> Weights:
    """Combine the tensors of one role and layer. Adds notes if the number of weights differs from the dimensions."""
    last = len(model.layers)
    found: dict[tuple[Role, int], list[float]] = defaultdict(lambda: [0, 0.0])
    for name, params, size in tensors:
        block, role = _BLOCK.search(name), role_of(name)
        layer = int(block[1]) if block else -1 if role in (Role.EMBEDDING, Role.LOOKUP) else last
        if block and layer >= last:
            role, layer = Role.OTHER, last
        if role in (Role.ATTENTION, Role.KEYS) and layer < last and isinstance(model.layers[layer].attention, Recurrence):
            role = Role.RECURRENT
        entry = found[role, layer]
        entry[0] += params
        entry[1] += size
    parts = tuple(Stored(role, layer, int(params), size) for (role, layer), (params, size) in sorted(found.items(), key=lambda i: i[0][1]))
    known = sum(part.params for part in parts if part.role != Role.OTHER)
    other = sum(part.params for part in parts if part.role == Role.OTHER)
    notes = list(model.notes)
    if other > 0.001 * known:
        notes.append(f"{other / 1e9:.2f} billion of its weights are not used to decode text (a vision tower, multi-token prediction)")
    if abs(known - model.params) > 0.005 * model.params:
        notes.append(f"it has {known / 1e9:.3f} billion weights of the text model, its dimensions give {model.params / 1e9:.3f}")
    return Weights(model, kind, parts, source, tuple(notes))


# -- safetensors ---------------------------------------------------------------------------------------------------------------


def _safetensors(file: Path) -> list[_Tensor]:
    """The tensors of one file, from its header: a length, then JSON with types, shapes and offsets."""
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(min(length, file.stat().st_size)))  # the length of a damaged file may be huge
        return [_tensor(name, each) for name, each in header.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"cannot read the safetensors header ({type(error).__name__})", file=file) from error


def _tensor(name: str, each: Mapping[str, Any]) -> _Tensor:
    begin, end = each["data_offsets"]
    elements = math.prod(each["shape"])
    if each["dtype"] in _PACKED and not name.endswith(".bias"):
        elements = 2 * (end - begin)  # four bits each, as in AWQ, GPTQ, MXFP4 and NVFP4
    return name, 0 if _SCALE.search(name) else elements, end - begin


def _title(config: Path) -> str:
    folder = config.resolve().parent.name
    return folder if config.name == "config.json" and folder else config.stem


# -- GGUF ----------------------------------------------------------------------------------------------------------------------

_PART = re.compile(r"(?P<stem>.*)-(?P<part>\d{5})-of-(?P<count>\d{5})\.gguf")


def _gguf(path: Path) -> Weights:
    readers = [_opened(part) for part in _parts(path)]
    tensors = [(each.name, int(each.n_elements), float(each.n_bytes)) for reader in readers for each in reader.tensors]
    types: dict[str, float] = defaultdict(float)
    for each in (each for reader in readers for each in reader.tensors):
        types[each.tensor_type.name.lower()] += float(each.n_bytes)
    architecture = str(read_metadata(path, {"general.architecture"}).get("general.architecture"))
    shapes = {each.name: tuple(int(size) for size in each.shape) for reader in readers for each in reader.tensors}
    try:
        model = from_config(path.stem, gguf_config(architecture, read_metadata(path, wanted(architecture)), shapes))
    except UserError as error:
        error.file = error.file or path
        raise
    return _assemble(model, _arithmetic(max(types, key=types.__getitem__)), tensors, "the tensors of the GGUF file")


def _parts(path: Path) -> list[Path]:
    """The files of a split GGUF. llama.cpp is given the first one, which has the metadata."""
    found = _PART.fullmatch(path.name)
    if found is None:
        return [path]
    if int(found["part"]) != 1:
        raise UserError("is not the first part of its GGUF", file=path, advice="name the file that ends in -00001-of-" + found["count"])
    parts = [path.with_name(f"{found['stem']}-{part:05}-of-{found['count']}.gguf") for part in range(1, int(found["count"]) + 1)]
    missing = [part.name for part in parts if not part.exists()]
    if missing:
        raise UserError(f"{len(missing)} of its {len(parts)} parts are missing: {missing[0]}", file=path, advice="fetch all parts")
    return parts


def _opened(path: Path) -> Any:
    import gguf

    try:
        return gguf.GGUFReader(path)
    except ValueError as error:
        raise UserError(f"cannot read the GGUF file ({error})", file=path) from error


def _arithmetic(kind: str) -> Precision:
    """The precision of a file with mostly this GGML type. Only its arithmetic matters: sizes come from the file."""
    return precision(kind if kind in names() else f"{kind}_m" if f"{kind}_m" in names() else "q8_0")
