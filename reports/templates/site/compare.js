// Compares two runs of a site from their data, by the rules of `bench compare`: enginebench.analysis.comparison, enginebench.metrics.statistics.
(() => {
  "use strict";
  const root = document.documentElement;
  root.classList.add("scripts");
  const $ = (selector, from = document) => from.querySelector(selector);
  const el = (tag, css, ...inside) => { const made = document.createElement(tag); if (css) made.className = css; made.append(...inside); return made; };

  // -- statistics ---------------------------------------------------------------------------------------------------------------
  const median = (values) => { const v = [...values].sort((a, b) => a - b), n = v.length; return (v[(n - 1) >> 1] + v[n >> 1]) / 2; };
  const sums = (numbers, picked) => { // out[s]: the ways to pick so many of the numbers with the sum s
    const total = numbers.reduce((a, b) => a + b, 0), ways = Array.from({ length: picked + 1 }, () => new Float64Array(total + 1));
    ways[0][0] = 1;
    for (const number of numbers) for (let k = picked; k > 0; k--) for (let s = total; s >= number; s--) ways[k][s] += ways[k - 1][s - number];
    return ways[picked];
  };
  const rankTest = (a, b) => { // two-sided p of the exact Mann-Whitney test, ties included
    const all = [...a, ...b], ranks = all.map((value) => 2 * all.filter((other) => other < value).length + all.filter((other) => other === value).length + 1);
    const counts = sums(ranks, a.length), expected = a.length * ranks.reduce((x, y) => x + y, 0) / ranks.length;
    const off = Math.abs(ranks.slice(0, a.length).reduce((x, y) => x + y, 0) - expected) - 1e-9;
    let far = 0, every = 0;
    counts.forEach((count, s) => { every += count; if (Math.abs(s - expected) >= off) far += count; });
    return far / every;
  };
  const cut = (m, n) => { // how many of the sorted ratios lie outside the interval at either end
    const counts = sums(Array.from({ length: m + n }, (_, i) => i + 1), m).slice(m * (m + 1) / 2), every = counts.reduce((a, b) => a + b, 0);
    let outside = -1, tail = 0;
    for (const count of counts) { tail += count; if (2 * tail / every > 0.05 + 1e-9) break; outside++; }
    return Math.max(0, outside);
  };
  const change = (base, candidate, better) => {
    const a = candidate.values, b = base.values, falls = candidate.value < base.value, [high, low] = falls ? [b, a] : [a, b];
    const found = { p: null, relative: null, low: null, high: null, order: "unknown" };
    if (a.length > 1 && b.length > 1) {
      found.p = rankTest(high, low);
      found.order = candidate.value !== base.value && found.p < 0.05 ? "higher" : Math.min(...high) > Math.max(...low) ? "ahead" : "tied";
    }
    if (Math.min(...b) > 0) {
      const ratios = a.flatMap((x) => b.map((y) => x / y)).sort((x, y) => x - y);
      found.relative = median(ratios) - 1;
      if (a.length > 1 && b.length > 1) { const outside = cut(a.length, b.length); found.low = ratios[outside] - 1; found.high = ratios[ratios.length - 1 - outside] - 1; }
    }
    const direction = better === null ? "changed" : (better === "lower") === falls ? "better" : "worse";
    return { ...found, verdict: { higher: direction, tied: "alike", ahead: "unsure", unknown: "unknown" }[found.order] };
  };

  // -- pairs ----------------------------------------------------------------------------------------------------------------------
  const once = (rows, key) => { const keys = rows.map((row) => row.pair[key]); return new Map(rows.filter((row) => keys.filter((its) => its === row.pair[key]).length === 1).map((row) => [row.pair[key], row])); };
  const match = (base, candidate) => {
    let left = base.rows, right = candidate.rows;
    const pairs = [];
    for (const key of ["same", "engine"]) {
      const ours = once(left, key), theirs = once(right, key);
      ours.forEach((row, its) => { if (theirs.has(its)) pairs.push([row, theirs.get(its)]); });
      left = left.filter((row) => !pairs.some(([one]) => one === row));
      right = right.filter((row) => !pairs.some(([, other]) => other === row));
    }
    return { pairs: pairs.sort((a, b) => base.rows.indexOf(a[0]) - base.rows.indexOf(b[0])), left, right };
  };
  const unsound = (row, side) => (row.status === "ok" && row.verdict !== "invalid" ? "" : `the ${side} is ${row.status === "ok" ? "invalid" : row.status}: ${row.reasons.join("; ") || "no reason was recorded"}`);
  const imported = (row, side) => (row.imported_from ? `the ${side} was imported from ${row.imported_from}: bench compare tells whether the figures are alike` : "");
  const whyNot = (one, other) => unsound(one, "base") || unsound(other, "candidate") || imported(one, "base") || imported(other, "candidate") || (one.random_weights !== other.random_weights ? `only the ${one.random_weights ? "base" : "candidate"} has random weights` : "");
  const exact = (row) => row.cells.filter((cell) => cell.window !== null || cell.stated_by !== null).every((cell) => cell.itl_exact);
  const compare = (base, candidate, figures) => {
    const { pairs, left, right } = match(base, candidate), sameSlo = JSON.stringify(base.slo) === JSON.stringify(candidate.slo);
    const judged = pairs.map(([one, other]) => {
      const why = whyNot(one, other), found = [];
      const compared = ([name, its]) => its && other.figures[name] && !(figures[name]?.per_event && exact(one) !== exact(other)) && !(figures[name]?.needs_slo && !sameSlo);
      for (const [name, its] of why ? [] : Object.entries(one.figures).filter(compared)) {
        found.push({ name, base: its, candidate: other.figures[name], ...change(its, other.figures[name], figures[name]?.better ?? null) });
      }
      const models = new Set([...base.rows, ...candidate.rows].map((row) => row.asked.deployment.model));
      return { name: `${models.size > 1 ? `${one.asked.deployment.model} · ` : ""}${one.deployment} · ${one.load}`, why, figures: found };
    });
    const changed = [], seen = new Set();
    const differ = (of, ours, theirs) => [...new Set([...Object.keys(ours), ...Object.keys(theirs)])].forEach((what) => {
      const line = [of, what, ours[what] ?? "not recorded", theirs[what] ?? "not recorded"], text = JSON.stringify(line);
      if (line[2] !== line[3] && !seen.has(text)) { seen.add(text); changed.push(line); }
    });
    ["machine", "run"].forEach((of) => differ(of, base.facts[of], candidate.facts[of]));
    pairs.forEach(([one, other]) => differ(one.deployment, one.facts, other.facts));
    const name = (row) => `${row.deployment} · ${row.load}`;
    return { pairs: judged, changed, alone: [...left.map((row) => `base: ${name(row)}`), ...right.map((row) => `candidate: ${name(row)}`)] };
  };

  // -- the page -------------------------------------------------------------------------------------------------------------------
  const digits = (x) => (x === 0 ? "0" : Math.abs(x) >= 100 ? Math.round(x).toLocaleString("en") : Number(x.toPrecision(3)).toString());
  const signed = (share) => `${share > 0 ? "+" : share < 0 ? "−" : ""}${(100 * Math.abs(share)).toFixed(1)} %`;
  const interval = (its) => (its.low === null ? "" : `${signed(its.low)} to ${signed(its.high)}`);
  const WORDS = { alike: "~", unknown: "?", unsure: "? every restart agrees, too few to be sure" };
  const cell = (tag, label, text, small, css) => { const made = el(tag, css, text); if (label) made.dataset.l = label; if (tag === "th") made.scope = "row"; if (small) made.append(" ", el("small", "", small)); return made; };
  const show = (found, figures, every) => {
    const main = (its) => every || figures[its.name]?.main || its.verdict === "worse" || its.verdict === "better";
    const tables = found.pairs.map((pair) => {
      const rows = pair.figures.filter(main).map((its) => {
        const about = figures[its.name] ?? { title: its.name, unit: "", factor: 1 }, value = (side) => digits(side.value * about.factor);
        return el("tr", "", cell("th", "", about.title, about.unit), cell("td", "base", value(its.base), its.base.low === null ? "" : `${digits(its.base.low * about.factor)}–${digits(its.base.high * about.factor)}`, "num"),
          cell("td", "candidate", value(its.candidate), its.candidate.low === null ? "" : `${digits(its.candidate.low * about.factor)}–${digits(its.candidate.high * about.factor)}`, "num"),
          cell("td", "change", its.relative === null ? "–" : signed(its.relative), interval(its), "num"), cell("td", "p", its.p === null ? "–" : String(Number(its.p.toPrecision(2))), "", "num"),
          cell("td", "n", `${its.base.n}+${its.candidate.n}`, "", "num"), cell("td", "", WORDS[its.verdict] ?? its.verdict, "", its.verdict));
      });
      const heads = ["figure", "base", "candidate", "change", "p", "n", "verdict"].map((text, i) => { const head = el("th", i > 0 && i < 6 ? "num" : "", text); head.scope = "col"; return head; });
      const table = el("table", "plain lined", el("thead", "", el("tr", "", ...heads)), el("tbody", "", ...rows)), box = el("div", "scroll f760", table);
      return [el("h3", "", pair.name), pair.why ? el("p", "hint", pair.why) : rows.length ? box : el("p", "hint", "the runs share no figure here")];
    });
    $("#pairs").replaceChildren(...tables.flat());
    $("#figures").hidden = !tables.length;
    $("#changed").hidden = !found.changed.length;
    $("#changed tbody").replaceChildren(...found.changed.map((line) => el("tr", "", cell("th", "", line[0]), ...["", "base", "candidate"].map((label, i) => cell("td", label, line[i + 1])))));
    $("#alone").hidden = !found.alone.length;
    $("#alone ul").replaceChildren(...found.alone.map((text) => el("li", "", text)));
    const counts = (word) => found.pairs.flatMap((pair) => pair.figures).filter((its) => main(its) && its.verdict === word).length, parts = [];
    for (const [word, text] of [["worse", "worse"], ["better", "better"], ["changed", "changed"], ["alike", "cannot be told apart"], ["unsure", "with too few restarts"], ["unknown", "of a single restart, not tested"]]) if (counts(word)) parts.push(`${counts(word)} ${text}`);
    $("#verdict").textContent = found.pairs.length ? `${found.pairs.length} load${found.pairs.length > 1 ? "s" : ""} paired. Figures: ${parts.join(", ") || "none"}.` : "Nothing could be compared: the runs have no deployment and load in common.";
  };
  const fail = (text) => { const place = $("#problem"); place.textContent = text; place.hidden = !text; };
  const read = async (path) => { const answer = await fetch(path); if (!answer.ok) throw new Error(`${path}: ${answer.status} ${answer.statusText}`); return answer.json(); };

  const start = async () => {
    if (location.protocol === "file:") return fail("Browsers read no data from files: open this page through a web server, for example bench view RESULTS, or python -m http.server in the folder of the site.");
    const index = await read("data/index.json"), known = new Map(index.runs.map((run) => [run.id, run])), documents = new Map();
    const of = async (id) => { if (!documents.has(id)) documents.set(id, await read(known.get(id).data)); return documents.get(id); };
    const sides = ["base", "candidate"].map((id) => $(`#${id}`));
    sides.forEach((select) => select.append(...index.runs.map((run) => new Option(`${run.name} · ${run.created_at.slice(0, 16).replace("T", " ")} · ${run.id}`, run.id))));
    let asked = 0;
    const update = async () => {
      const mine = ++asked;
      root.dataset.ready = "";
      fail("");
      $("#verdict").textContent = "Reading the two runs …";
      try {
        const [base, candidate] = await Promise.all(sides.map((select) => of(select.value)));
        if (mine !== asked) return; // another pair was chosen meanwhile
        const found = compare(base, candidate, index.figures);
        show(found, index.figures, $("#all").checked);
        root.dataset.ready = "compared";
      } catch (error) { $("#verdict").textContent = "Compare two runs"; fail(`The runs cannot be compared: ${error.message}`); }
    };
    const follow = () => { // the address says which two
      const wanted = new URLSearchParams(location.hash.slice(1)), newest = index.runs[0], before = index.runs.find((run) => run !== newest && run.name === newest.name) ?? index.runs[1] ?? newest;
      const pick = (name, usual) => (known.has(wanted.get(name)) ? wanted.get(name) : usual.id);
      sides[0].value = pick("base", before);
      sides[1].value = pick("candidate", newest);
      return update();
    };
    const say = () => { history.replaceState(null, "", `#${new URLSearchParams({ base: sides[0].value, candidate: sides[1].value })}`); return update(); };
    if (!index.runs.length) return fail("There is no run here yet.");
    sides.forEach((select) => select.addEventListener("change", say));
    $("#swap").addEventListener("click", () => { [sides[0].value, sides[1].value] = [sides[1].value, sides[0].value]; say(); });
    $("#all").addEventListener("change", update);
    addEventListener("hashchange", follow);
    await follow();
  };
  start().catch((error) => fail(`The list of runs cannot be read: ${error.message}`));
})();
