"""The catalogues hold what is published, dimensions give the weights that exist, and files are read as what they are."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import pytest
from enginebench.checkpoints import RandomMoE
from enginebench.checkpoints.families import FAMILIES
from enginebench.checkpoints.gguf_file import write_gguf
from enginebench.checkpoints.hf_folder import write_hf_folder
from enginebench.errors import UserError
from enginebench.physics import Role, devices, find_model, models, need_device, need_model, precision, read_machine, read_weights, weigh
from enginebench.physics.catalogue import Entry
from enginebench.physics.config import from_config
from enginebench.physics.files import role_of

BUILT = {
    "mixtral-8x7b": 46702792704, "mixtral-8x22b": 140620634112, "deepseek-v3": 671026404352 + 14848, "deepseek-v2-lite": 15706484224,
    "llama4-scout": 107769861120, "llama4-maverick": 400711848960, "gpt-oss-20b": 20914757184, "gpt-oss-120b": 116829156672,
    "qwen3-30b-a3b": 30532122624, "qwen3-235b-a22b": 235093634560, "olmoe-1b-7b": 6919161856, "granite-3.1-3b-a800m": 3298793472,
    "granite-3.1-1b-a400m": 1334628352, "qwen1.5-moe-a2.7b": 14315784192, "llama-3.1-8b": 8030261248, "llama-3.1-70b": 70553706496,
    "qwen3-8b": 8190735360, "qwen3-32b": 32762123264,
    "deepseek-v3.2": 671877944064, "deepseek-v4-flash": 284332240471, "deepseek-v4-pro": 1572997201763, "kimi-k2": 1026408232448,
    "kimi-k2.5": 1026408232448, "minimax-m2.5": 228689764864, "minimax-m3": 426174572928, "qwen3-coder-480b-a35b": 480154875392,
    "qwen3-next-80b-a3b": 79674391296, "qwen3.5-35b-a3b": 34660610688, "qwen3.5-122b-a10b": 122111526912, "qwen3.5-397b-a17b":
    396346350336, "mimo-v2-flash": 308778780864, "gemma-4-26b-a4b": 25233141760, "glm-4.7": 352796486560, "glm-4.7-flash": 29943393920,
    "glm-5": 743911218432, "nemotron-3-nano-30b-a3b": 31577940288, "nemotron-3-super-120b-a12b": 120668707840,
    "nemotron-3-ultra-550b-a55b": 549308993536, "step-3.7-flash": 195844508736, "laguna-s-2.1": 117561977600, "jamba-1.5-mini":
    51570323328, "ling-lite-1.5": 16801974272, "grok-1": 315684820992, "phi-3.5-moe": 41872793600, "longcat-flash": 560664980480,
    "minimax-text-01": 456089655296, "llama-2-7b": 6738415616,
}  # fmt: skip
"""Weights of the models that transformers 5.23 makes from these configs; the 58 x 256 correction biases of DeepSeek's router are no
parameters there, but they are in the checkpoint. models.yaml names four exceptions."""

BEYOND_TEXT = {"llama4-scout": 0.87}
"""Billions of weights that a published total has beside the text model: the vision tower."""

ROUGH = {"grok-1"}
"""Active figures that are words: 'a quarter of the weights'."""


@pytest.mark.parametrize("entry", models().values(), ids=lambda entry: entry.name)
def test_counts_are_those_of_the_real_model(entry: Entry) -> None:
    assert entry.model.params == BUILT[entry.name]


@pytest.mark.parametrize("entry", models().values(), ids=lambda entry: entry.name)
def test_counts_are_the_published_ones(entry: Entry) -> None:
    published, model = entry.published, entry.model
    total = model.params / 1e9 + BEYOND_TEXT.get(entry.name, 0.0)
    assert abs(total - published.total) <= max(0.01 * published.total, published.step / 2)
    if entry.name not in ROUGH:
        digits = len(f"{published.active:g}".partition(".")[2])
        assert abs(model.active(published.tables) / 1e9 - published.active) < 10.0**-digits  # some round, some cut off


def test_more_than_forty_models_are_known_by_name() -> None:
    assert len(models()) > 40
    assert not [entry.name for entry in models().values() if not entry.model.params or entry.published.step > 100]


def test_mixtral_by_hand() -> None:
    # attention: q and o 4096 x 4096 each, k and v 4096 x 1024 each                                        = 41,943,040 a layer
    # experts: 8 x 3 x 4096 x 14336 = 1,409,286,144; router 8 x 4096 = 32,768; two norms 8,192               a layer
    # 32 layers x 1,451,270,144 = 46,440,644,608; two tables of 32,000 x 4096 = 262,144,000; last norm 4,096
    mixtral = need_model("mixtral-8x7b").model
    assert mixtral.params == 32 * (41_943_040 + 1_409_286_144 + 32_768 + 8_192) + 262_144_000 + 4_096
    # a token: 2 of 8 experts are 352,321,536 a layer
    assert mixtral.active("both") == 32 * (41_943_040 + 352_321_536 + 32_768 + 8_192) + 262_144_000 + 4_096
    assert mixtral.active("both") - mixtral.active("head") == 131_072_000
    assert mixtral.active("none") == mixtral.active("head") - 131_072_000


def test_what_published_sources_disagree_about() -> None:
    maverick, scout = need_model("maverick").model, need_model("scout").model
    assert maverick.active("both") == pytest.approx(17.2e9, rel=0.01)  # not 52
    assert (maverick.moe_layers, len(maverick.layers)) == (24, 48)
    assert scout.experts is not None
    assert (scout.experts.top_k, scout.experts.shared) == (1, 8192)  # one routed and one shared, not two of 16
    assert weigh(need_model("mixtral-8x7b").model, "f16").bytes == pytest.approx(93.4e9, rel=0.001)  # 47 GB is one byte per weight


def test_kv_cache_by_hand() -> None:
    def elements(name: str, context: int) -> float:
        return need_model(name).model.cache_elements(context)

    assert elements("mixtral-8x7b", 1000) == 1000 * 32 * 2 * 8 * 128
    assert elements("deepseek-v3", 1000) == 1000 * 61 * (512 + 64)  # one latent and one rotated key, whatever the heads
    # 12 layers see everything, 12 see 128 tokens; 8 heads of 64, K and V
    assert elements("gpt-oss-20b", 1000) == 12 * 1024 * (1000 + 128)
    assert elements("gpt-oss-20b", 100) == 24 * 1024 * 100
    # three of four layers see a chunk of 8,192 tokens
    assert elements("scout", 100_000) == 2 * 8 * 128 * (12 * 100_000 + 36 * 8_192)


@pytest.mark.parametrize(
    ("name", "published"),
    [("q2_k", 3.1593), ("q3_k_s", 3.6429), ("q3_k_m", 3.9960), ("q3_k_l", 4.2979), ("iq4_xs", 4.4597), ("q4_k_s", 4.6672),
     ("q4_k_m", 4.8944), ("q5_k_s", 5.5704), ("q5_k_m", 5.7036), ("q6_k", 6.5633), ("q8_0", 8.5008), ("f16", 16.0)],
)  # fmt: skip
def test_mixtures_have_the_size_that_llama_cpp_publishes(name: str, published: float) -> None:
    llama = need_model("llama-3.1-8b").model  # the table in llama.cpp's tools/quantize/README.md is about it
    assert weigh(llama, name).bytes * 8 / llama.params == pytest.approx(published, abs=0.001)


def test_precisions() -> None:
    gpt = need_model("gpt-oss-20b").model
    assert weigh(gpt, "mxfp4").bytes == pytest.approx(13.8e9, rel=0.01)  # the published safetensors are 13.76 GB
    assert precision("exl3-3.5bpw").bits[Role.EXPERT] == pytest.approx(3.51)
    assert precision("FP16") == precision("f16")
    assert precision("4bit").bits[Role.EMBEDDING] == 4.5
    assert precision("fp8").bits[Role.ROUTER] == 16
    with pytest.raises(UserError, match="q4_k_m"):
        precision("q4_km")


def test_names_of_models() -> None:
    for name in ("deepseek-r1", "deepseek-ai/DeepSeek-R1", "DeepSeek-V3"):
        assert need_model(name).name == "deepseek-v3"
    assert find_model("grok-3") is None
    with pytest.raises(UserError, match="mixtral-8x7b"):
        need_model("mixtral-8x7")
    with pytest.raises(UserError, match="neither in the catalogue nor a file"):
        read_weights("nowhere/model.gguf")


def test_every_device_makes_sense() -> None:
    for device in devices().values():
        assert 5 * 2**30 < device.usable <= device.memory
        assert device.measured_bandwidth is None or device.measured_bandwidth < device.bandwidth
        assert device.compute(("bf16",))[1] <= device.compute(("fp8", "bf16"))[1]
    assert need_device("b300").compute(("int8", "bf16")) == ("int8", 153.5e12)  # slower than bf16, and what INT8 gets there


def test_names_of_machines() -> None:
    four = read_machine("4xH100-80GB")
    assert (four.device.name, four.count, four.host) == ("h100-sxm-80gb", 4, None)
    assert four.as_measured().device.bandwidth == 3.0e12
    both = read_machine("2xRTX4090 + 256 GB RAM", host_bandwidth=90e9)
    assert both.host is not None
    assert (both.device.name, both.count, both.host.memory, both.host.bandwidth) == ("rtx-4090-24gb", 2, 256e9, 90e9)
    assert read_machine("m3-ultra-192gb").device.usable == 0.75 * 192 * 2**30
    for wrong in ("0xh100", "4 of them", "h1000", "h100-96gb", ""):
        with pytest.raises(UserError):
            read_machine(wrong)


def test_links() -> None:
    assert read_machine("8xh100").link(8) == 450e9
    assert read_machine("16xh100").link(16) == 50e9  # between nodes
    assert read_machine("8xmi300x").link(8) == 7 * 64e9  # one link to each of seven peers
    assert read_machine("2x3090").link(2) == 56e9
    assert read_machine("4x3090").link(4) == 32e9  # the bridge joins two


def test_this_machine_is_measured() -> None:
    cpu = need_device("cpu")
    assert cpu.bandwidth >= (cpu.measured_bandwidth or 0) > 1e8
    assert cpu.flops["fp32"] > 1e9


# -- files -----------------------------------------------------------------------------------------------------------------------


def random_model(name: str) -> RandomMoE:
    experts = "&experts=1&top_k=1" if name == "llama" else ""
    return RandomMoE.from_reference(f"random:{name}?layers=3&hidden=128&heads=4&kv_heads=4&head_dim=32{experts}")


def test_a_gguf_that_was_split_is_read_whole(tmp_path: Path) -> None:
    write_gguf(random_model("mixtral"), "q8_0", tmp_path / "whole.gguf")
    reader = gguf.GGUFReader(tmp_path / "whole.gguf")
    writer = gguf.GGUFWriter(tmp_path / "parts.gguf", "llama", split_max_tensors=20)
    for field in reader.fields.values():
        if field.name.startswith("llama.") and field.types[0] == gguf.GGUFValueType.UINT32:
            writer.add_uint32(field.name, int(field.contents()))
    for each in reader.tensors:
        writer.add_tensor(each.name, each.data, raw_dtype=each.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    parts = sorted(tmp_path.glob("parts-*.gguf"))
    assert len(parts) > 1
    assert read_weights(str(parts[0])).parts == read_weights(str(tmp_path / "whole.gguf")).parts
    with pytest.raises(UserError, match="not the first part"):
        read_weights(str(parts[1]))
    parts[-1].unlink()
    with pytest.raises(UserError, match=f"1 of its {len(parts)} parts"):
        read_weights(str(parts[0]))


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_files_hold_what_their_dimensions_give_role_by_role(name: str, tmp_path: Path) -> None:
    model = random_model(name)
    write_gguf(model, "q8_0", tmp_path / "model.gguf")
    write_hf_folder(model, "bf16", tmp_path / "hf")
    gguf, folder = read_weights(str(tmp_path / "model.gguf")), read_weights(str(tmp_path / "hf"))
    computed = weigh(read_weights(model.reference()).model, "bf16")
    assert gguf.model.params == folder.model.params == computed.model.params == model.parameters
    assert gguf.model.layers == folder.model.layers == computed.model.layers
    for role in Role:
        counts = [sum(part.params for part in each.parts if part.role == role) for each in (gguf, folder, computed)]
        assert counts[0] == counts[1] == counts[2], role
    assert folder.bytes == computed.bytes == 2 * model.parameters
    assert gguf.precision.name == "q8_0"
    assert gguf.notes == folder.notes == ()
    assert read_weights(str(tmp_path / "hf"), "fp8").source == weigh(folder.model, "fp8").source  # a precision overrules a file's sizes


def test_a_config_gives_dimensions_and_the_published_precision(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    dimensions = {"model_type": "mixtral", "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "num_local_experts": 4,
                  "num_experts_per_tok": 2, "intermediate_size": 32, "vocab_size": 100, "max_position_embeddings": 512}  # fmt: skip
    config.write_text(json.dumps({**dimensions, "torch_dtype": "float16"}))
    assert read_weights(str(config)).precision.name == "f16"
    config.write_text(json.dumps({**dimensions, "quantization_config": {"quant_method": "fp8"}}))
    assert read_weights(str(config)).precision.name == "fp8"
    config.write_text(json.dumps({**dimensions, "quantization_config": {"quant_method": "mystery"}}))
    with pytest.raises(UserError, match="mystery"):
        read_weights(str(config))
    config.write_text(json.dumps({**dimensions, "model_type": "mamba"}))
    with pytest.raises(UserError, match="mamba"):
        read_weights(str(config))
    del dimensions["hidden_size"]
    with pytest.raises(UserError, match="lacks hidden_size"):
        from_config("broken", dimensions)
    config.write_text("{")
    with pytest.raises(UserError, match="invalid JSON"):
        read_weights(str(config))


def test_weights_that_do_not_decode_text_are_kept_apart(tmp_path: Path) -> None:
    model = random_model("qwen3moe")
    write_hf_folder(model, "bf16", tmp_path / "hf")
    extra = {"vision_tower.proj.weight": [64, 1024], "model.layers.3.eh_proj.weight": [128, 256]}  # a tower; a layer beyond the last
    header, offset = {}, 0
    for name, shape in extra.items():
        size = 2 * shape[0] * shape[1]
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    (tmp_path / "hf" / "more.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(offset))
    weights = read_weights(str(tmp_path / "hf"))
    assert weights.of(Role.OTHER) == 2 * (64 * 1024 + 128 * 256)
    assert "not used to decode text" in weights.notes[0]
    (tmp_path / "hf" / "more.safetensors").write_bytes(b"damaged")
    with pytest.raises(UserError, match="header"):
        read_weights(str(tmp_path / "hf"))


def test_packed_weights_are_counted_as_what_they_hold(tmp_path: Path) -> None:
    config = {"model_type": "gpt_oss", "num_hidden_layers": 1, "hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1,
              "head_dim": 32, "attention_bias": True, "intermediate_size": 32, "num_local_experts": 4, "num_experts_per_tok": 2,
              "vocab_size": 100, "max_position_embeddings": 512, "quantization_config": {"quant_method": "mxfp4"}}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    # gate and up of four experts: 4 x 64 rows x 2 blocks of 32 weights, 16 bytes and one scale each
    header = {
        "model.layers.0.mlp.experts.gate_up_proj_blocks": {"dtype": "U8", "shape": [4, 64, 2, 16], "data_offsets": [0, 8192]},
        "model.layers.0.mlp.experts.gate_up_proj_scales": {"dtype": "U8", "shape": [4, 64, 2], "data_offsets": [8192, 8704]},
    }
    text = json.dumps(header).encode()
    (tmp_path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(8704))
    weights = read_weights(str(tmp_path))
    (part,) = weights.parts
    assert (part.role, part.params, part.bytes) == (Role.EXPERT, 4 * 64 * 64, 8704)
    assert part.bytes * 8 / part.params == 4.25
    assert "its dimensions give" in weights.notes[0]


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("blk.3.attn_kv_a_mqa.weight", Role.LATENT),
        ("blk.3.ffn_gate_inp_shexp.weight", Role.ROUTER),
        ("blk.3.exp_probs_b.bias", Role.ROUTER),
        ("model.layers.3.mlp.shared_expert_gate.weight", Role.ROUTER),
        ("model.layers.3.mlp.shared_experts.up_proj.weight", Role.SHARED),
        ("model.layers.3.block_sparse_moe.input_linear.weight", Role.EXPERT),
        ("model.layers.3.block_sparse_moe.router.layer.weight", Role.ROUTER),
        ("model.layers.3.mlp.gate_proj.weight", Role.DENSE),
        ("model.layers.3.self_attn.kv_b_proj.weight", Role.ATTENTION),
        ("rope_freqs.weight", Role.OTHER),
    ],
)
def test_roles_by_name(name: str, role: Role) -> None:
    assert role_of(name) == role
