// Makes the page interactive. Without it every table and figure is there, and readable.
(() => {
  "use strict";
  const root = document.documentElement;
  root.classList.add("scripts");
  const $ = (selector, from = document) => from.querySelector(selector);
  const $$ = (selector, from = document) => [...from.querySelectorAll(selector)];
  const el = (tag, css, ...inside) => { const made = document.createElement(tag); if (css) made.className = css; made.append(...inside); return made; };
  const hidden = new Set();

  // -- the library: inflated when a figure is first looked at ------------------------------------------------------------
  const unpack = async (element) => { // gzip, 7 bits a character
    const refused = element.dataset.refused.split(" ").map(Number), text = element.textContent, out = new Uint8Array(Math.floor(text.length * 7 / 8));
    let word = 0, bits = 0, at = 0;
    for (let i = 0; i < text.length; i++) {
      const code = text.charCodeAt(i);
      word = (word << 7 | (code < 128 ? code : refused[code - 128])) & 0x7fff;
      bits += 7;
      if (bits >= 8) { bits -= 8; out[at++] = word >> bits & 255; }
    }
    return new Response(new Blob([out]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  };
  const specs = new Map(), keep = (text) => JSON.parse(text).forEach((spec) => specs.set(spec.id, spec));
  keep($("#plots").textContent);
  let library = null;
  const load = () => {
    library ??= (async () => {
      keep(await unpack($("#folded-plots")));
      const script = document.createElement("script");
      script.textContent = await unpack($("#plotly")); // allowed by its hash in the policy
      document.head.append(script);
      script.remove();
      return window.Plotly;
    })();
    return library;
  };

  // -- figures ---------------------------------------------------------------------------------------------------------------
  const dark = matchMedia("(prefers-color-scheme: dark)"), touch = matchMedia("(pointer: coarse)");
  // No tool bar: it would cover the data. Drag to zoom, double-click to reset.
  const config = { responsive: true, displaylogo: false, displayModeBar: false };
  const color = (slot) => {
    const probe = el("span", slot < 0 ? "" : `s${slot}`);
    document.body.append(probe);
    const found = getComputedStyle(probe).getPropertyValue("--c").trim();
    probe.remove();
    return slot < 0 ? getComputedStyle(root).getPropertyValue("--muted").trim() : found;
  };
  const paint = (trace, muted) => {
    const slot = trace.meta.slot, its = color(slot);
    const marker = { ...trace.marker, color: its, line: { ...(trace.marker && trace.marker.line), color: its } };
    const out = { type: "scatter", showlegend: false, hovertemplate: "%{text}<extra></extra>", ...trace, marker, line: { ...trace.line, color: its }, visible: !hidden.has(slot), textfont: { color: muted, size: 11 } };
    if (trace.error_y) out.error_y = { ...trace.error_y, color: its };
    return out;
  };
  const themed = (layout, height) => {
    const style = getComputedStyle(root), get = (name) => style.getPropertyValue(name).trim();
    const ink = get("--ink"), muted = get("--muted"), rule = get("--rule"), font = get("--sans");
    const axis = (its) => ({ automargin: true, gridcolor: get("--hair"), linecolor: rule, zeroline: false, showline: true,
      fixedrange: touch.matches, tickformat: ",~r", ...its, title: { ...its.title, font: { size: 12, color: muted } } });
    const shapes = (layout.shapes || []).map((its) => ({ ...its, line: { ...its.line, color: ink }, label: { ...its.label, font: { size: 12, color: ink } } }));
    return { height, margin: { l: 8, r: 14, t: 10, b: 8 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", shapes,
      font: { family: font, size: 12, color: ink }, dragmode: touch.matches ? false : "zoom", hovermode: "closest",
      hoverlabel: { bgcolor: get("--panel"), bordercolor: rule, font: { color: ink, family: font, size: 12 }, align: "left" },
      xaxis: axis(layout.xaxis), yaxis: axis(layout.yaxis) };
  };
  // the name of each line at its end, pushed apart
  const annotate = (plot) => {
    const { xaxis, yaxis, _size: size } = plot._fullLayout;
    if (!xaxis || !size) return;
    const ends = plot._fullData.filter((trace) => trace.visible === true && trace.meta.slot >= 0).map((trace) => {
      const at = trace.x.map((x, i) => i).filter((i) => Number.isFinite(trace.y[i]) && trace.x[i] <= xaxis.r2l(xaxis.range[1]) * (xaxis.type === "log" ? Infinity : 1));
      const last = at.reduce((best, i) => (best < 0 || trace.x[i] >= trace.x[best] ? i : best), -1);
      return last < 0 ? null : { trace, y: yaxis.d2p(trace.y[last]) };
    }).filter((end) => end && Number.isFinite(end.y));
    const named = [...new Map(ends.map((end) => [end.trace.meta.slot, end])).values()].sort((a, b) => a.y - b.y);
    if (named.length > 12) return;
    let at = -15;
    named.forEach((end) => { at = end.row = Math.max(end.y, at + 15); });
    at = Math.max(size.h, 15 * named.length) + 15;
    named.reverse().forEach((end) => { at = end.row = Math.min(end.row, at - 15); });
    const longest = Math.min(24, Math.max(0, ...named.map((end) => end.trace.name.length)));
    const annotations = named.map((end) => ({ xref: "paper", yref: "paper", x: 1, y: 1 - end.row / size.h, xanchor: "left", xshift: 6, showarrow: false,
      text: end.trace.name.length > 24 ? `${end.trace.name.slice(0, 23)}…` : end.trace.name, font: { size: 12, color: end.trace.line.color } }));
    return window.Plotly.relayout(plot, { annotations, "margin.r": 14 + 7.2 * longest });
  };
  const draw = async (figure) => {
    if (!figure.getClientRects().length) return; // hidden: drawn when it is shown
    const plotly = await load(), plot = $(".plot", figure);
    const spec = specs.get(figure.id), height = Math.max(270, figure.classList.contains("live") ? plot.clientHeight : $(".static", figure).clientHeight);
    figure.classList.add("live");
    const muted = getComputedStyle(root).getPropertyValue("--muted").trim();
    await plotly.react(plot, spec.data.map((trace) => paint(trace, muted)), themed(spec.layout, height), config);
    await annotate(plot);
    figure.dataset.drawn = "plotly";
  };
  const redraw = () => $$("figure.live").forEach(draw);
  const onScreen = new Set();
  let drawing = false;
  const next = async () => {
    if (drawing) return;
    drawing = true;
    for (const figure of onScreen) {
      onScreen.delete(figure);
      if (!figure.classList.contains("live")) await draw(figure).catch(() => figure.classList.remove("live")); // the static figure stays
      await new Promise((done) => setTimeout(done, 0)); // the page stays responsive
    }
    drawing = false;
  };
  if ("DecompressionStream" in window && "IntersectionObserver" in window) {
    const seen = new IntersectionObserver((entries) => {
      entries.forEach((entry) => (entry.isIntersecting ? onScreen.add(entry.target) : onScreen.delete(entry.target)));
      if (onScreen.size) setTimeout(next, 150);
    });
    addEventListener("load", () => setTimeout(() => $$("figure").forEach((figure) => seen.observe(figure)), 200));
  }
  dark.addEventListener("change", redraw);

  // -- legend: press to hide, press twice for one only ------------------------------------------------------------------------
  const buttons = $$(".legend button");
  const show = () => {
    buttons.forEach((button) => button.setAttribute("aria-pressed", String(!hidden.has(Number(button.dataset.slot)))));
    document.body.dataset.hidden = [...hidden].join(" ");
    redraw();
  };
  buttons.forEach((button) => {
    const slot = Number(button.dataset.slot);
    button.addEventListener("click", () => { if (!hidden.delete(slot)) hidden.add(slot); show(); });
    button.addEventListener("dblclick", () => {
      const others = [...new Set(buttons.map((each) => Number(each.dataset.slot)))].filter((each) => each !== slot);
      const only = others.every((each) => hidden.has(each));
      hidden.clear();
      if (!only) others.forEach((each) => hidden.add(each));
      show();
    });
  });

  // -- contexts and loads -----------------------------------------------------------------------------------------------------
  const choose = (section) => {
    const tab = $("[role=tab][aria-selected=true]", section), load_ = $(".choose select", section);
    $$("figure", section).forEach((figure) => {
      figure.hidden = (tab && figure.dataset.tab !== tab.dataset.tab) || (load_ && figure.dataset.load !== load_.value) || false;
    });
  };
  const select = (tab) => { // every section follows
    $$("[role=tablist]").forEach((list) => {
      const same = $$("[role=tab]", list).find((each) => each.dataset.tab === tab.dataset.tab);
      if (same) $$("[role=tab]", list).forEach((each) => { each.setAttribute("aria-selected", String(each === same)); each.tabIndex = each === same ? 0 : -1; });
      choose(list.closest("section"));
    });
  };
  $$("[role=tablist]").forEach((list) => {
    const tabs = $$("[role=tab]", list);
    list.addEventListener("click", (event) => { const tab = event.target.closest("[role=tab]"); if (tab) select(tab); });
    list.addEventListener("keydown", (event) => {
      const i = tabs.indexOf(document.activeElement), to = { ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: tabs.length - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      const tab = tabs[(to + tabs.length) % tabs.length];
      select(tab);
      tab.focus();
    });
  });
  $$(".choose select").forEach((its) => its.addEventListener("change", () => choose(its.closest("section"))));
  $$("section").forEach((section) => { if ($("figure", section)) choose(section); });

  // A shared link opens what holds its figure.
  const reveal = () => {
    const figure = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!figure) return;
    for (let at = figure; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
    if (figure.tagName === "SECTION") $$(":scope > details", figure).forEach((its) => { its.open = true; });
    if (figure.dataset.tab) { const tab = $$("[role=tab]", figure.closest("section")).find((each) => each.dataset.tab === figure.dataset.tab); if (tab) select(tab); }
    const load_ = figure.dataset.load && $(".choose select", figure.closest("section"));
    if (load_) { load_.value = figure.dataset.load; choose(figure.closest("section")); }
    figure.scrollIntoView();
  };
  addEventListener("hashchange", reveal);
  reveal();
  addEventListener("beforeprint", () => $$("section > details, figure details").forEach((its) => { its.open = true; }));

  // -- copy and save ----------------------------------------------------------------------------------------------------------
  const drawn = ["fill", "stroke", "stroke-width", "stroke-dasharray", "opacity", "font-size", "font-weight", "font-family", "text-anchor"];
  const picture = (figure) => { // the static figure with its styles in it, at the width that is shown
    const statics = $(".static", figure), live = figure.classList.contains("live");
    figure.classList.remove("live");
    const source = $$("svg", statics).find((its) => getComputedStyle(its).display !== "none"), copy = source.cloneNode(true);
    const from = [source, ...$$("*", source)];
    [copy, ...$$("*", copy)].forEach((its, i) => {
      const style = getComputedStyle(from[i]);
      if (style.display === "none") its.setAttribute("display", "none");
      drawn.forEach((name) => its.setAttribute(name, style.getPropertyValue(name)));
    });
    if (live) figure.classList.add("live");
    const box = source.viewBox.baseVal, ground = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    Object.entries({ width: box.width, height: box.height, fill: getComputedStyle(document.body).backgroundColor }).forEach(([name, value]) => ground.setAttribute(name, value));
    copy.prepend(ground);
    copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    copy.removeAttribute("class");
    return { text: new XMLSerializer().serializeToString(copy), width: box.width, height: box.height };
  };
  const save = (href, name) => { const link = Object.assign(el("a"), { href, download: name }); document.body.append(link); link.click(); link.remove(); };
  const download = (figure, kind) => {
    const { text, width, height } = picture(figure), url = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
    if (kind === "svg") return save(url, `${figure.id}.svg`);
    const image = new Image();
    image.onload = () => {
      const canvas = Object.assign(el("canvas"), { width: 2 * width, height: 2 * height });
      canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
      save(canvas.toDataURL("image/png"), `${figure.id}.png`);
    };
    image.src = url;
  };
  $$("figure").forEach((figure) => $(".ft", figure).append(...["svg", "png"].map((kind) => {
    const button = el("button", "", kind.toUpperCase());
    Object.assign(button, { type: "button", ariaLabel: `Save the figure as ${kind.toUpperCase()}` }).dataset.save = kind;
    return button;
  })));
  document.addEventListener("click", async (event) => {
    const copy = event.target.closest("[data-copy]"), saved = event.target.closest("[data-save]");
    if (saved) download(saved.closest("figure"), saved.dataset.save);
    if (!copy) return;
    const label = copy.textContent;
    await navigator.clipboard.writeText(copy.dataset.copy).then(() => { copy.textContent = "copied"; }, () => { copy.textContent = copy.dataset.copy; });
    if (copy.textContent === "copied") setTimeout(() => { copy.textContent = label; }, 1500);
  });

  // -- the grid under limits: those that keep them, compared by the ranges of their restarts ---------------------------------------
  const names = new Map(buttons.map((button) => [Number(button.dataset.slot), $("span", button).textContent]));
  const speed = (x) => (x >= 100 ? Math.round(x).toLocaleString("en") : x.toPrecision(3));
  const judge = (rows, limits) => { // a row: slot, tok/s, its lowest and highest restart, TTFT and TPOT in ms, suspect
    const able = rows.filter((row) => row[4] !== null && row[5] !== null && row[4] <= limits[0] && row[5] <= limits[1]).sort((a, b) => b[1] - a[1]);
    if (!able.length) return { says: "none holds", leaders: [] };
    const [best, ...others] = able;
    if (!others.length) return { says: "alone", leaders: [best], lead: 1, held: 1 };
    const near = others.filter((row) => best[2] <= row[3] || best[3] / row[2] - 1 < 0.03);
    if (!near.length) return { says: `+${(100 * (best[1] / others[0][1] - 1)).toPrecision(2)} %`, leaders: [best], lead: best[1] / others[0][1] - 1, held: able.length };
    return { says: near.every((row) => best[3] / row[2] - 1 < 0.03) ? "equal" : "cannot tell", leaders: [best, ...near], held: able.length };
  };
  $$(".decide").forEach((box) => {
    const cells = $$("td[data-v]", box), before = cells.map((cell) => [cell.className, cell.innerHTML, cell.title]);
    const limited = (limits) => cells.forEach((cell) => {
      const rows = JSON.parse(cell.dataset.v), found = judge(rows, limits), one = found.leaders.length === 1;
      cell.textContent = "";
      cell.title = "";
      cell.className = !found.leaders.length ? "none" : one ? `k s${found.leaders[0][0]} t${found.lead >= 0.05 ? 2 : found.lead >= 0.02 ? 1 : 0}` : "eq";
      const suspect = found.leaders.some((row) => row[6]);
      if (suspect) cell.classList.add("hat");
      const says = el("span", "p", found.says);
      if (suspect) says.append(" ", el("em", "", "suspect"));
      const leaders = found.leaders.slice(0, 3).map((row) => el("i", `k s${row[0]}`, el("b", "", names.get(row[0]))));
      if (found.leaders.length > 3) leaders.push(el("i", "", `and ${found.leaders.length - 3} more`));
      const small = found.leaders.length ? `${speed(found.leaders[0][1])} ${box.dataset.unit} · ${found.held} of ${rows.length} hold` : "";
      cell.append(el("span", "w", ...leaders), says, el("small", "", small));
    });
    box.addEventListener("input", (event) => {
      const own = $("input[value=own]", box);
      if (event.target.type === "number") own.checked = true;
      const value = $("input[type=radio]:checked", box).value, ruling = $(".ruling", box);
      ruling.hidden = value === "";
      if (value === "") return cells.forEach((cell, i) => { [cell.className, cell.innerHTML, cell.title] = before[i]; });
      const limits = value === "own" ? $$("input[type=number]", box).map((its) => Number(its.value) || 0) : value.split(",").map(Number);
      limited(limits);
      const names_ = box.dataset.limits.split("|");
      ruling.textContent = `${names_[0]} at most ${limits[0]} ms and ${names_[1]} at most ${limits[1]} ms. Leads: every restart above all of the next; equal: the whole range is under 3 %. ` +
        `For the verdict by requests: bench report --slo ttft_ms=${limits[0]},tpot_ms=${limits[1]}`;
    });
  });

  // -- the table: sorted by a column, and in blocks where its columns do not fit ----------------------------------------------------
  const table = $(".compare");
  if (table) {
    const heads = $$("thead th", table), bodies = [...table.tBodies].map((body) => [body, [...body.rows]]), by = $(".sortby");
    const value = (row, i) => {
      const cell = row.cells[i], text = cell ? (cell.dataset.v ?? cell.firstChild?.textContent ?? "").replaceAll(",", "").trim() : "", number = parseFloat(text);
      return i < 2 ? cell.textContent.trim() : Number.isNaN(number) ? null : number;
    };
    const sort = (i, down) => {
      heads.forEach((head, k) => (k === i ? head.setAttribute("aria-sort", down ? "descending" : "ascending") : head.removeAttribute("aria-sort")));
      table.classList.toggle("sorted", i >= 0);
      bodies.forEach(([body, rows]) => {
        const [titles, lines] = [rows.filter((row) => row.matches(".section")), rows.filter((row) => !row.matches(".section"))];
        if (i >= 0) lines.sort((a, b) => {
          const [x, y] = [value(a, i), value(b, i)];
          if (x === null || y === null) return (x === null) - (y === null); // without a figure: last
          return (x < y ? -1 : x > y ? 1 : 0) * (down ? -1 : 1);
        });
        body.append(...titles, ...lines);
      });
    };
    heads.forEach((head, i) => {
      const button = el("button", "", ...head.childNodes);
      button.type = "button";
      head.append(button);
      button.addEventListener("click", () => sort(i, head.getAttribute("aria-sort") === "ascending"));
      by.append(new Option(head.textContent.trim().replace(/\s+/g, " "), i));
    });
    by.addEventListener("change", () => sort(by.value === "" ? -1 : Number(by.value), false));
  }
  const fit = () => $$(".scroll").forEach((its) => {
    if (its.dataset.fit === "stacked") its.classList.remove("f0");
    const over = its.scrollWidth > its.clientWidth + 1;
    its.dataset.fit = over ? "stacked" : "";
    if (over) its.classList.add("f0");
  });
  let waiting = 0;
  addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(fit, 100); });
  document.addEventListener("toggle", fit, true);
  $("#ranges")?.addEventListener("change", fit);
  fit();
  root.dataset.ready = "page";
})();
