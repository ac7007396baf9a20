"""The audit on paper cases: every verdict with the arithmetic that leads to it, and what is made of the whole."""

from __future__ import annotations

import html.parser
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from enginebench.analysis.analysis import Analysis
from enginebench.audit.arithmetic import check_ratio, least_batch, times
from enginebench.audit.claims import Claims, Serving
from enginebench.audit.examine import claims_of
from enginebench.audit.figures import Ceiling, HostSplit, Shape, Skew
from enginebench.audit.finding import Finding
from enginebench.audit.judge import judge_serving
from enginebench.audit.outcome import Audit, audit_to_html
from enginebench.audit.physics import Physics
from enginebench.audit.reading import read_claims
from enginebench.audit.reproduce import scenario_text
from enginebench.audit.statements import contradictions, judge_all
from enginebench.cli import bench
from enginebench.engines.registry import discover
from enginebench.errors import UserError
from enginebench.machine.accelerators import Gpu
from enginebench.machine.folders import resource_dir
from enginebench.physics.detect import local_machine
from enginebench.records.run_folder import Run
from enginebench.scenario import load_scenario
from hypothesis import given
from hypothesis import strategies as st

PUBLISHED = resource_dir("scenarios/published") / "claims.yaml"
ALWAYS, ROUTED, EXPERTS = 10.098e9, 96.64e9, 16
"""Llama 4 Scout on paper: read for every token (no input table: it is looked up), in routed experts, of which a token takes one of 16."""
BYTES = {"f16": 2.0, "fp8": 1.0, "q4_k_m": 0.6, "exl3_3.5bpw": 3.5 / 8}
MACHINES = {"4xh100": (4, 80.0, 3350.0), "2xh100": (2, 80.0, 3350.0), "1xrtx-4090": (1, 24.0, 1008.0)}


class Paper(Physics):
    """One model, three machines, weights alone: what fits on the back of an envelope. The host has 80 GB/s."""

    def shape(self, model: str) -> Shape:
        if model != "scout":
            raise UserError(f"no model '{model}' in the catalogue")
        return Shape(107.77e9, (16.14e9, 17.17e9), EXPERTS, 1, 10_485_760, 1)

    def native(self, model: str) -> str | None:
        return None

    def name(self, model: str) -> str:
        return model

    def widest(self, model: str, gb: float) -> str | None:
        return next((name for name in ("f16", "fp8", "q4_k_m", "exl3_3.5bpw") if self.weights_gb(model, name) <= gb), None)

    def parameters(self, model: str) -> float:
        return self.shape(model).total

    def weights_gb(self, model: str, precision: str, engine: str | None = None) -> float:
        return self.parameters(model) * BYTES[precision] / 1e9

    def memory_gb(self, hardware: str) -> float:
        count, memory, _ = MACHINES[hardware]
        return count * memory

    def device(self, hardware: str) -> tuple[str, int]:
        return hardware.partition("x")[2], MACHINES[hardware][0]

    def bandwidth_gb_s(self, hardware: str) -> float:
        count, _, bandwidth = MACHINES[hardware]
        return count * bandwidth

    def host_gb_s(self, hardware: str) -> float:
        return 80.0

    def prefill_ms(self, claim: Serving, tokens: int) -> float:
        return 1.0

    def ceiling(self, claim: Serving, batch: int, skew: Skew | None = None) -> Ceiling:
        touched = ROUTED * (1 - (1 - 1 / EXPERTS) ** batch)
        gigabytes = (ALWAYS + touched) * BYTES[claim.precision or ""] / 1e9
        return Ceiling(batch * self.bandwidth_gb_s(claim.hardware or "") / gigabytes, "memory bandwidth")

    def largest_batch(self, claim: Serving) -> int:
        return 1_000_000

    def host_split(self, claim: Serving) -> HostSplit:
        width = BYTES[claim.precision or ""]
        all_gb, on_device = self.weights_gb(claim.model, claim.precision or ""), claim.device_gb or self.memory_gb(claim.hardware or "")
        experts_gb = ROUTED * width / 1e9
        away = (all_gb - on_device) / experts_gb
        token_gb = ROUTED / EXPERTS * width / 1e9
        read_gb = ALWAYS * width / 1e9 + token_gb * (1 - away)
        return HostSplit(on_device, all_gb - on_device, read_gb / self.bandwidth_gb_s(claim.hardware or ""), token_gb * away)


PAPER = Paper()


def claim(**given: object) -> Serving:
    return Serving.model_validate(
        {"id": "it", "source": "A", "engine": "vllm", "model": "scout", "precision": "f16", "hardware": "4xh100"} | given
    )


def judged(**given: object) -> Finding:
    return judge_serving(claim(**given), PAPER)


# -- speeds ----------------------------------------------------------------------------------------------------------------------


def test_5100_tokens_of_scout_on_four_h100_need_a_batch_of_81() -> None:
    # 81 tokens touch 16 (1 - (15/16)^81) = 15.914 of 16 experts: 96.12e9 weights, with the 10.10e9 always read 106.22e9, 212.4 GB.
    # 4 x 3350 GB/s read that in 15.85 ms: 81 / 0.01585 = 5,109. With 80 it is 80 / 0.01585 = 5,047.
    found = judged(output_tok_s=5100)
    assert (found.verdict, found.least, found.text) == ("needs batch", 81, "needs batch >= 81")
    assert found.ceiling == pytest.approx(5109, abs=3)
    assert "no batch is stated" in found.reasons[0]


def test_a_single_stream_is_judged_at_batch_one() -> None:
    # One token reads 10.098e9 + 6.04e9 weights, 32.28 GB: 13,400 / 32.28 = 415 tokens/s. 25 ms a token are 40, 9.6 % of that.
    found = judged(ms_per_token=25, concurrency=1)
    assert found.verdict == "plausible"
    assert found.ceiling == pytest.approx(415.2, abs=0.3)
    assert found.share == pytest.approx(0.0963, abs=1e-3)
    over = judged(output_tok_s=420, concurrency=1)
    assert over.verdict == "impossible as stated"
    assert "101% of that" in over.reasons[0]


def test_a_rate_above_the_roofline_at_every_batch_is_impossible() -> None:
    found = judged(output_tok_s=1.1e6)
    assert found.verdict == "impossible as stated"
    assert "even a batch of 16,384" in found.reasons[0]  # 4,096 on each of four devices


def test_the_ceiling_of_all_that_fits_is_told_where_no_batch_is() -> None:
    # 16,384 sequences touch all 16 experts: 106.7e9 weights, 213.5 GB in 15.93 ms
    found = judged(output_tok_s=5100)
    assert found.highest_batch == 16384
    assert found.highest == pytest.approx(16384 / 15.93e-3, rel=1e-3)
    assert judged(output_tok_s=100, concurrency=1).highest is None


def test_measurements_that_makers_publish_lie_under_the_ceiling() -> None:
    claims = read_claims(resource_dir("scenarios/published") / "field.yaml")
    findings = judge_all(claims, Physics())
    assert len(findings) >= 12
    for finding in findings:
        top = finding.top
        assert finding.verdict in ("plausible", "needs batch"), finding
        assert top is not None
        assert finding.stated is not None
        assert 0 < finding.stated < top[0], finding
    assert len({finding.serving.model for finding in findings if finding.serving}) >= 7
    assert all(source.url and source.date for source in claims.sources.values())


def test_the_type_of_the_cache_counts_and_steps_that_nobody_knows_are_not_judged() -> None:
    claim = {"id": "x", "source": "A", "model": "mixtral-8x7b", "precision": "fp8", "hardware": "1xh100", "isl": 8192, "output_tok_s": 1e4}
    whole, half, unknown, drafted, moved = (
        judge_serving(Serving.model_validate({**claim, "options": options}), Physics())
        for options in ({"kv_dtype": "bf16"}, {"kv_dtype": "fp8"}, {}, {"speculative": {"tokens": 3}}, {"cpu_offload_gb": 8})
    )
    # 8,192 tokens x 32 layers x 8 heads x 256 x 2 bytes are 1.07 GB a sequence, of 85.5 - 47.0 = 38.5 GB
    assert (whole.highest_batch, half.highest_batch, unknown.highest_batch) == (35, 71, 127)  # an unknown type may have 4.5 bits
    assert whole.verdict == "impossible as stated"
    assert (drafted.verdict, moved.verdict) == ("not enough stated", "not known here")
    assert "speculative decoding" in drafted.reasons[0]


def test_what_one_stream_reaches_needs_no_batch() -> None:
    found = judged(output_tok_s=100)
    assert (found.verdict, found.least) == ("plausible", 1)


def test_weights_that_do_not_fit() -> None:
    # 107.77e9 x 3.5 bits are 47.1 GB.
    found = judged(precision="exl3_3.5bpw", hardware="1xrtx-4090", placement="devices", output_tok_s=18, concurrency=1)
    assert found.verdict == "impossible as stated"
    assert found.reasons == ("the weights take 47.1 GB, 1xrtx-4090 has 24.0 GB",)


def test_a_prefill_and_a_decode_side_are_two_copies() -> None:
    # 2 x 215.5 GB = 431.1 GB on 320 GB; one copy fits.
    found = judged(copies=2, output_tok_s=4500)
    assert found.verdict == "impossible as stated"
    assert "431.1 GB (one copy for each of 2 servers)" in found.reasons[0]
    assert judged(copies=2, precision="fp8", output_tok_s=4500).verdict == "needs batch"


def test_experts_in_host_memory_need_a_bandwidth_there() -> None:
    # Q4 at 0.6 bytes: 64.7 GB, 15 on the card. Of the experts' 58 GB 49.7 lie in the host's memory, 85.7 %. A token takes 3.62 GB of
    # experts, 3.10 of them from there, and reads 6.06 + 0.52 GB on the card, 6.5 ms. At 11 tok/s 84.4 ms are left: 36.8 GB/s.
    host = {"precision": "q4_k_m", "hardware": "1xrtx-4090", "placement": "host", "device_gb": 15, "concurrency": 1}
    found = judged(**host, output_tok_s=11)
    assert found.verdict == "plausible"
    assert "49.7 of 64.7 GB" in found.reasons[0]
    assert "3.10 GB of them, which needs 37 GB/s" in found.reasons[0]
    assert judged(**host, output_tok_s=50).verdict == "not enough stated"  # 3.10 GB in 13.5 ms: 230 GB/s, a server's memory
    assert judged(**host, output_tok_s=200).verdict == "impossible as stated"  # the card alone takes 6.5 of 5 ms


def test_where_the_rest_lies_must_be_said() -> None:
    found = judged(engine="llamacpp", precision="q4_k_m", hardware="1xrtx-4090", output_tok_s=3.5, concurrency=1)
    assert found.verdict == "not enough stated"
    assert "where the other 40.7 GB are is not stated" in found.reasons[0]


@pytest.mark.parametrize("lost", ["precision", "hardware"])
def test_what_decides_and_is_not_stated(lost: str) -> None:
    found = judged(output_tok_s=2, **{lost: None}, device_memory_gb=40)
    assert found.verdict == "not enough stated"
    assert found.reasons[0] == f"not stated: {lost}"
    assert "3.0 bits per weight" in found.reasons[1]  # 40e9 x 8 / 107.77e9 = 2.97


def test_unknown_models_are_said_to_be_unknown() -> None:
    assert judged(model="nonsense", output_tok_s=1).reasons == ("no model 'nonsense' in the catalogue",)


def test_sizes_and_qualities() -> None:
    right = judged(precision="fp8", hardware="2xh100", weights_gb=115, quality_retained_pct=99)
    assert right.verdict == "plausible"
    assert "retained quality" in right.reasons[1]
    assert judged(precision="fp8", hardware="2xh100", weights_gb=50).verdict == "inconsistent"
    assert judged(hardware="2xh100", weights_gb=220).verdict == "impossible as stated"
    assert judged(perplexity=8.14).verdict == "not enough stated"


def test_a_measurement_above_its_own_upper_limit() -> None:
    found = judged(output_tok_s=115, concurrency=1, predicted_tok_s=111, bandwidth_gb_s=800)
    assert any("reports a higher measurement" in reason for reason in found.reasons)


@given(rate=st.floats(1, 1e6), more=st.floats(1.0, 10))
def test_a_higher_rate_never_needs_a_smaller_batch(rate: float, more: float) -> None:
    slow, fast = judged(output_tok_s=rate), judged(output_tok_s=rate * more)
    assert fast.verdict == "impossible as stated" or (fast.least or 0) >= (slow.least or 0)


@given(threshold=st.integers(1, 5000), most=st.integers(1, 4096))
def test_least_batch_is_the_first_that_reaches(threshold: int, most: int) -> None:
    assert least_batch(lambda batch: batch >= threshold, most) == (threshold if threshold <= most else None)


def test_a_claim_must_agree_with_itself() -> None:
    # 16 streams with a token every 18 ms are 16 / 0.018 = 889 tok/s
    found = judged(output_tok_s=1850, ms_per_token=18, concurrency=16, precision="fp8")
    assert found.verdict == "inconsistent"
    assert found.reasons[0] == "16 streams at 18 ms per token give 889 tok/s, not 1,850"
    assert judged(output_tok_s=880, ms_per_token=18, concurrency=16).verdict == "plausible"
    other = judged(output_tok_s=40, concurrency=1, bandwidth_gb_s=2000)
    assert (other.verdict, other.reasons[0]) == ("inconsistent", "a device of 4xh100 has 3,350 GB/s, the text states 2000")
    assert "the rate was computed by the source, not measured" in judged(output_tok_s=40, concurrency=1, projected=True).reasons


def test_a_gap_of_the_catalogue_is_no_gap_of_the_claim() -> None:
    found = judge_serving(claim(model="new-900b", output_tok_s=10, concurrency=1), Physics())
    assert (found.verdict, found.reasons) == ("not known here", ("no model 'new-900b' in the catalogue",))


def test_a_rate_that_the_published_precision_allows_is_called_that() -> None:
    asked = {"id": "x", "source": "A", "model": "gpt-oss-120b", "hardware": "m3-ultra-512gb", "concurrency": 1, "output_tok_s": 115}
    found = judge_serving(Serving.model_validate({**asked, "precision": "bf16"}), Physics())
    assert found.verdict == "impossible as stated"
    assert re.fullmatch(r"in mxfp4, as it is published, one stream could reach \d+(\.\d+)? tok/s, .* may be misstated", found.reasons[1])
    assert found.decides == ("precision",)
    assert judge_serving(Serving.model_validate({**asked, "precision": "mxfp4"}), Physics()).verdict == "plausible"


# -- arithmetic ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "stated", "holds", "inverted"),
    [
        (5400, 3800, (3.0, 3.0), False, False),  # 1.42x
        (4500, 3800, (2.3, 2.3), False, False),  # 1.18x
        (5100, 4500, (1.13, 1.13), True, False),  # 1.133x
        (4800, 5100, (1.06, 1.06), False, True),  # 0.94x; the other way round 1.0625x
        (11, 3.5, (3.0, 3.0), True, False),  # 3.14x is "3x"
        (5100, 4500, (1.15, 1.25), False, False),
        (120, 100, (1.15, 1.25), True, False),
    ],
)
def test_ratios(a: float, b: float, stated: tuple[float, float], holds: bool, inverted: bool) -> None:
    check = check_ratio(a, b, stated)
    assert (check.holds, check.inverted) == (holds, inverted)


def test_ratios_are_written_for_readers() -> None:
    assert [times(1.4210526), times(12.34)] == ["1.42x", "12x"]


# -- a file of claims ------------------------------------------------------------------------------------------------------------

FILE = """
sources: {A: {title: "EVAL <7>"}, D: {title: Glossary, url: "https://example.org/moe"}}
serving:
  - {id: slow, source: A, engine: vllm, model: scout, precision: f16, hardware: 4xh100, tp: 4, output_tok_s: 3800, isl: 2048}
  - {id: fast, source: A, says: <script>alert(1)</script>, engine: vllm, model: scout, precision: f16, hardware: 4xh100, output_tok_s: 5400}
ratios:
  - {source: A, says: a 3x improvement, a: fast, b: slow, stated: 3.0}
  - {source: A, says: 42 % faster at batch 64, a: fast, b: slow, stated: 1.42, concurrency: 64}
weights:
  - {source: A, model: scout, gb: {f16: 220}}
  - {source: D, model: scout, gb: {f16: 108}}
models:
  - {source: A, model: scout, total_b: 109, active_b: 17, experts: 16, top_k: 1}
  - {source: D, model: scout, active_b: 52, top_k: 2, context: 400000}
fits:
  - {source: A, says: two are enough, model: scout, precision: f16, hardware: 2xh100, fits: true}
hot_experts:
  - {source: A, says: hot, model: scout, experts: [2, 3], share: [0.6, 0.8]}
"""


class PaperSizes(Paper):
    """Also knows the sizes that a wrong one is compared with."""

    def weights_gb(self, model: str, precision: str, engine: str | None = None) -> float:
        return self.parameters(model) * {**BYTES, "q4_0": 4.5 / 8}[precision] / 1e9


@pytest.fixture
def claims(tmp_path: Path) -> Claims:
    file = tmp_path / "claims.yaml"
    file.write_text(FILE)
    return read_claims(file)


@pytest.fixture
def outcome(claims: Claims) -> Audit:
    physics = PaperSizes()
    return Audit(claims, judge_all(claims, physics), contradictions(claims, physics))


def test_every_statement_gets_a_verdict(outcome: Audit) -> None:
    found = {finding.id: finding for finding in outcome.findings}
    assert {name: finding.verdict for name, finding in found.items() if "scout" not in name or " h" in name} == {
        "slow": "needs batch",
        "fast": "needs batch",
        "A: ratio 1": "inconsistent",
        "A: ratio 2": "plausible",
        "A: hot experts of scout": "not enough stated",
    }
    assert found["A: ratio 1"].reasons[0] == "fast / slow = 5400 / 3800 = 1.42x, not 3.00x"
    assert found["A: scout on 2xh100"].verdict == "impossible as stated"
    # 2/16 and 3/16; 0.6 / 0.1875 = 3.2, 0.8 / 0.125 = 6.4
    assert "12% to 19%; the claim is 3.20x to 6.40x that" in found["A: hot experts of scout"].reasons[0]


def test_sizes_and_facts_name_what_is_right(outcome: Audit) -> None:
    sizes = [finding for finding in outcome.findings if finding.id.endswith("scout in f16")]
    assert [finding.verdict for finding in sizes] == ["plausible", "inconsistent"]
    assert sizes[1].reasons[0].endswith("108 GB would be 8.0 bits per weight, the size in fp8")
    right, wrong = (finding for finding in outcome.findings if finding.id.endswith("facts of scout"))
    assert right.verdict == "plausible"
    assert wrong.reasons == (
        "the configuration allows 10,485,760 tokens of context, not 400,000",  # 26 times
        "a token uses 16.1B to 17.2B (without and with the vocabulary tables), not 52B",
        "routed experts per token: 1, not 2; 2 only with the shared expert",
    )


def test_sources_that_contradict_each_other(outcome: Audit) -> None:
    assert [each.text for each in outcome.contradictions] == [
        "scout, active parameters in billions: A states 17, D states 52; computed from its dimensions: 17.17",
        "scout, experts per token: A states 1, D states 2; computed from its dimensions: 1",
        "scout, GB in f16: A states 220, D states 108; computed from its dimensions: 215.5",
    ]


def test_the_text_opens_with_its_summary_and_groups_by_verdict(outcome: Audit) -> None:
    for width in (80, 120, 200):
        lines = outcome.to_text(width=width).splitlines()
        assert max(map(len, lines)) <= width
        assert all(finding.id.split()[-1][:12] in "\n".join(lines) for finding in outcome.findings)
        summary = "10 claims: 1 impossible as stated, 3 inconsistent, 2 needs batch, 1 not enough stated, 3 plausible"
        assert summary in " ".join(" ".join(lines[:3]).split())
    headings = [line for line in lines if re.fullmatch(r"[a-z ]+ \(\d+\)", line)]
    assert headings == ["impossible as stated (1)", "inconsistent (3)", "needs batch (2)", "not enough stated (1)", "plausible (3)"]


def test_the_table_says_everything_at_any_width(outcome: Audit) -> None:
    for width in (80, 120, 200):
        table = outcome.to_text(width=width, verbose=True)
        assert max(map(len, table.splitlines())) <= width
        assert all(finding.id.split()[-1][:12] in table for finding in outcome.findings)
    for finding in outcome.findings:
        for reason in finding.reasons:
            assert reason[:20] in " ".join(table.split()), reason


def test_the_data_is_json_and_whole(outcome: Audit) -> None:
    data = json.loads(json.dumps(outcome.to_dict()))
    assert [finding["id"] for finding in data["findings"]] == [finding.id for finding in outcome.findings]
    assert data["findings"][1]["least_batch"] == outcome.findings[1].least
    assert data["counts"] == outcome.counts


def test_the_page_escapes_and_asks_the_network_for_nothing(outcome: Audit) -> None:
    class Reader(html.parser.HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.tags: set[str] = set()
            self.fetched: list[str] = []

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.tags.add(tag)
            self.fetched += [f"{tag} {name}" for name, _ in attrs if name in ("src", "srcset", "poster", "data") or tag == "link"]

    page = audit_to_html(outcome)
    reader = Reader()
    reader.feed(page)
    assert "script" not in reader.tags
    assert not reader.fetched
    assert "url(" not in page
    assert "@import" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert all(finding.reasons[0].replace("'", "&#39;").replace(">", "&gt;") in page for finding in outcome.findings)


@pytest.mark.parametrize(
    ("broken", "line", "message"),
    [
        ("sources: {A: {title: t}}\nserving:\n  - {id: a, source: B, model: m, output_tok_s: 1}\n", 3, "unknown entry 'B'"),
        ("sources: {A: {title: t}}\nserving:\n  - {id: a, source: A, modle: m}\n", 3, "is not a known key"),
        ("sources: {A: {title: t}}\nratios:\n  - {source: A, says: s, a: x, b: y, stated: 2}\n", 3, "unknown entry 'x'"),
        ("sources: {A: {title: t}}\nserving:\n  - {id: a, source: A, model: m}\n  - {id: a, source: A, model: m}\n", 4, "duplicate id"),
        ("sources: {A: {title: t}}\n", 1, "contains no claim"),
    ],
)
def test_a_wrong_file_names_its_line(tmp_path: Path, broken: str, line: int, message: str) -> None:
    file = tmp_path / "claims.yaml"
    file.write_text(broken)
    with pytest.raises(UserError, match=message) as caught:
        read_claims(file)
    assert caught.value.line == line


# -- what follows from it --------------------------------------------------------------------------------------------------------


def test_a_claim_becomes_a_scenario_that_plans(claims: Claims, outcome: Audit, tmp_path: Path) -> None:
    finding = outcome.findings[0]
    assert finding.serving is not None
    file = tmp_path / "slow.yaml"
    file.write_text(scenario_text(finding.serving, finding, claims, {("scout", "f16"): "meta-llama/Llama-4-Scout-17B-16E-Instruct"}))
    scenario = load_scenario(file, discover())
    assert [(d.engine, d.parallelism.tp) for d in scenario.deployments] == [("vllm", 4)]
    assert finding.least is not None
    assert [load.concurrency for load in scenario.loads[0]] == [1, finding.least, 2 * finding.least, 4 * finding.least]
    assert {load.input_tokens for load in scenario.loads[0]} == {2048}


@pytest.mark.parametrize(("lost", "message"), [("engine", "engine is not stated"), ("precision", "precision is not stated")])
def test_a_claim_that_does_not_say_enough_becomes_none(claims: Claims, lost: str, message: str) -> None:
    vague = claim(output_tok_s=1, **{lost: None})
    with pytest.raises(UserError, match=message):
        scenario_text(vague, judge_serving(vague, PAPER), claims, {})


def test_weights_that_nobody_knows_are_asked_for(claims: Claims) -> None:
    unknown = claim(output_tok_s=1)
    with pytest.raises(UserError, match="no checkpoint of scout in f16") as caught:
        scenario_text(unknown, judge_serving(unknown, PAPER), claims, {})
    assert "--checkpoint scout/f16=" in (caught.value.advice or "")


def test_a_run_is_held_to_the_same(synthetic_analysis: Analysis) -> None:
    found = claims_of(synthetic_analysis, "4xh100")
    ran = [row for row in synthetic_analysis.rows if row.status == "ok"]
    assert len(found.serving) == len(ran)
    assert [each.concurrency for each in found.serving] == [row.load.concurrency for row in ran]
    # each took two devices of the four
    assert all(each.hardware == "2xh100" and each.isl and each.rates for each in found.serving)
    # ranks on a processor share its memory: two of them do not read twice as fast
    assert {(each.hardware, each.parallelism_text) for each in claims_of(synthetic_analysis, "cpu").serving} == {("cpu", "")}


# -- the published claims, with the catalogues -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published() -> Audit:
    claims, physics = read_claims(PUBLISHED), Physics()
    return Audit(claims, judge_all(claims, physics), contradictions(claims, physics))


VERDICTS_OF_THE_PUBLISHED = {
    "vllm-disagg": "impossible as stated",  # two copies of 215.5 GB on 342 GB
    "vllm-ep-disagg": "impossible as stated",
    "vllm-single": "plausible",
    "sglang-ep4": "needs batch >= 13",
    "llamacpp-no-offload": "not enough stated",
    "llamacpp-offload": "plausible",
    "llamacpp-q3": "impossible as stated",  # 51.7 GB "full GPU" on a 24 GB card
    "exl3-3.5bpw": "impossible as stated",  # 47 GB and a head of 6 bits on a 24 GB card
    "exl3-4.5bpw": "impossible as stated",
    "gptoss-m3ultra": "impossible as stated",  # 819 GB/s / (3.61e9 x 2 bytes) = 113.5 tok/s
    "scout-h100-c": "not enough stated",
    "scout-1.78bit": "impossible as stated",  # 33.8 GB by its own word and by its bits
    "scout-8xh100": "inconsistent",  # 16 streams at 18 ms are 889 tok/s, not 1,850
    "A: ratio 5": "plausible",  # at batch 64, where 2 experts that take 80 % allow 5,867 tok/s
    "A: ratio 1": "inconsistent",
    "A: ratio 2": "inconsistent",
    "A: ratio 3": "plausible",
    "A: ratio 4": "inconsistent",
    "D: mixtral-8x7b in f16": "inconsistent",
    "D: facts of llama4-maverick": "inconsistent",
    "A: facts of llama4-maverick": "plausible",
    "A: llama4-scout on 2xmi300x": "plausible",
    "A: llama4-scout on h100": "plausible",  # needs 4: three hold 215.5 GB, and tensor parallelism takes four
    "A: llama4-maverick on h100": "plausible",  # needs 8: five hold 402.8 GB
    "C: llama4-maverick on 1xh100": "not enough stated",  # 78.8 GB in iq1_s, 801 as it is published
    "C: llama4-maverick on 1xh100 (2)": "impossible as stated",  # in 40 GB
    "C: compute of llama4-maverick": "plausible",  # 20x: 400.7 / 17.2 = 23.3
    "A: hot experts of llama4-scout": "not enough stated",
    "S: features of vllm": "plausible",
}


def test_verdicts_on_what_was_published(published: Audit) -> None:
    found = {finding.id: finding.text for finding in published.findings}
    assert {name: found[name] for name in VERDICTS_OF_THE_PUBLISHED} == VERDICTS_OF_THE_PUBLISHED
    assert len(found) == len(published.findings), "two findings share an id"


def test_measurements_of_the_field_lie_under_the_ceiling(published: Audit) -> None:
    measured = [finding for finding in published.findings if finding.source in ("F", "G", "H") and finding.stated]
    assert len(measured) >= 7
    assert all(finding.share is not None and 0.01 < finding.share < 1 for finding in measured)


def test_every_published_claim_becomes_a_scenario_or_says_why_not(published: Audit, tmp_path: Path) -> None:
    registry, claims = discover(), published.claims
    own = {(claim.model, claim.precision or ""): "hf:org/name/mine.gguf" for claim in claims.serving if claim.engine == "llamacpp"}
    planned = set()
    for finding in published.findings:
        if finding.serving is None:
            continue
        try:
            text = scenario_text(finding.serving, finding, claims, own)
        except UserError as error:
            assert "cannot reproduce" in error.message
            continue
        if finding.serving.engine in registry:
            file = tmp_path / f"{finding.id}.yaml"
            file.write_text(text)
            load_scenario(file, registry)
            planned.add(finding.id)
    assert {"vllm-tp4", "vllm-disagg", "sglang-ep4", "llamacpp-offload", "maverick-consumer", "gptoss-m3ultra"} <= planned


# -- the command -----------------------------------------------------------------------------------------------------------------


def test_the_command_prints_writes_and_exits(tmp_path: Path) -> None:
    runner = CliRunner()
    page, scenarios = tmp_path / "audit.html", tmp_path / "scenarios"
    shown = runner.invoke(bench, ["audit", str(PUBLISHED), "--json", "--price", "h100.hour=2.5"], catch_exceptions=False)
    data = json.loads(shown.stdout)
    costs = {finding["id"]: finding["cost"] for finding in data["findings"]}
    # 4 x 2.50 = 10.00 an hour for 3,800 x 3600 = 13.68 million tokens
    assert costs["vllm-tp4"]["per_million_tokens"] == pytest.approx(10 / 13.68)
    assert costs["llamacpp-q3"] is None
    written = runner.invoke(bench, ["audit", str(PUBLISHED), "--html", str(page), "--scenarios", str(scenarios)], catch_exceptions=False)
    assert page.read_text().startswith("<!doctype html>")
    assert (scenarios / "vllm-tp4.yaml").is_file()
    assert "claims:" in written.stdout
    assert runner.invoke(bench, ["audit", str(PUBLISHED), "--strict"], standalone_mode=False).return_value == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoint", "nonsense"], "expected MODEL/PRECISION=REFERENCE"),
        (["--hardware", "4xh100"], "is for a run"),
        (["--price", "h1000.hour=2"], "unknown device 'h1000'"),
        (["--price", "hour"], "invalid price"),
    ],
)
def test_a_wrong_command_line_says_what_to_write(arguments: list[str], message: str) -> None:
    outcome = CliRunner().invoke(bench, ["audit", str(PUBLISHED), *arguments])
    assert isinstance(outcome.exception, UserError)
    assert message in outcome.exception.message
    assert outcome.exception.advice


def test_a_run_can_be_audited(synthetic_run: Run) -> None:
    shown = CliRunner().invoke(bench, ["audit", str(synthetic_run.path), "--hardware", "2xh100", "--json"], catch_exceptions=False)
    data = json.loads(shown.stdout)
    assert data["findings"]
    assert {finding["source"] for finding in data["findings"]} == {"run"}


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["NVIDIA H100 80GB HBM3"] * 4, "4xh100-sxm-80gb"),
        (["NVIDIA GeForce RTX 4090"], "1xrtx-4090-24gb"),
        (["NVIDIA A100-SXM4-80GB"], "1xa100-sxm-80gb"),
        (["NVIDIA A100-SXM4-40GB"], "1xa100-sxm-40gb"),
        (["NVIDIA H100 PCIe"], "1xh100-pcie-80gb"),
        (["NVIDIA H100 NVL"], "1xh100-nvl-94gb"),
        (["NVIDIA GeForce RTX 4090 Laptop GPU"], "1xrtx-4090-laptop-16gb"),
        (["NVIDIA GeForce RTX 4080 Laptop GPU"], "1xrtx-4080-laptop-12gb"),
        (["NVIDIA GeForce RTX 4050 Laptop GPU"], None),
        (["NVIDIA H100 80GB HBM3 MIG 1g.10gb"], None),
        (["Example 9000"], None),
        (["NVIDIA H100 80GB HBM3", "NVIDIA GeForce RTX 4090"], None),
        ([], None),
    ],
)
def test_machines_are_recognised_by_what_their_tools_say(names: list[str], found: str | None) -> None:
    machine = local_machine([Gpu(name) for name in names])
    assert (machine and f"{machine.count}x{machine.device.name}") == found
