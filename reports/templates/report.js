// Makes the figures of the page interactive. Without it each is there as a static SVG.
(() => {
  "use strict";
  const root = document.documentElement;
  root.classList.add("scripts");
  const $ = (selector, from = document) => from.querySelector(selector);
  const $$ = (selector, from = document) => [...from.querySelectorAll(selector)];
  const el = (tag, css, ...inside) => { const made = document.createElement(tag); if (css) made.className = css; made.append(...inside); return made; };
  const chosen = new Set(); // deployments that the reader singled out; the others are dimmed
  const faint = (slot) => chosen.size > 0 && slot >= 0 && !chosen.has(slot);

  // -- the library: inflated when a figure is first looked at ------------------------------------------------------------
  const unpack = async (element) => { // gzip, 7 bits a character; the first of each block is the key of the others
    const size = Number(element.dataset.block) + 1, text = element.textContent, out = new Uint8Array(Math.floor(text.length * 7 / 8));
    let word = 0, bits = 0, at = 0, key = 0;
    for (let i = 0; i < text.length; i++) {
      if (i % size === 0) { key = text.charCodeAt(i); continue; }
      word = (word << 7 | (text.charCodeAt(i) ^ key)) & 0x7fff;
      bits += 7;
      if (bits >= 8) { bits -= 8; out[at++] = word >> bits & 255; }
    }
    return new Response(new Blob([out.subarray(0, at)]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  };
  const specs = new Map(), keep = (text) => JSON.parse(text).forEach((spec) => specs.set(spec.id, spec));
  keep($("#plots").textContent);
  let library = null;
  const load = () => {
    library ??= (async () => {
      keep(await unpack($("#packed-plots")));
      const script = document.createElement("script"), packed = $("#plotly"), loaded = new Promise((done, failed) => Object.assign(script, { onload: done, onerror: failed }));
      if (packed.dataset.src) script.src = packed.dataset.src; // a page of a site
      else script.textContent = await unpack(packed); // allowed by its hash in the policy
      document.head.append(script);
      if (packed.dataset.src) await loaded;
      script.remove();
      return window.Plotly;
    })();
    return library;
  };

  const names = new Map($$(".legend button").map((button) => [Number(button.dataset.slot), $("span", button).textContent]));

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
    const out = { type: "scatter", showlegend: false, hovertemplate: "%{text}<extra></extra>", ...trace, marker, line: { ...trace.line, color: its }, opacity: faint(slot) ? 0.14 : 1, textfont: { color: muted, size: 11 } };
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
  // the name of each line at its end, pushed apart as in the static figure
  const MOST = 12, LINE = 15;
  const label = (slot) => { const name = names.get(slot) ?? ""; return name.length > 24 ? `${name.slice(0, 23)}…` : name; };
  const escaped = (text) => text.replace(/[&<>]/g, (c) => `&#${c.charCodeAt(0)};`);
  const slots = (spec) => [...new Set(spec.data.map((trace) => trace.meta.slot).filter((slot) => slot >= 0))];
  const room = (spec) => (slots(spec).length > MOST ? 14 : 16 + 7.4 * Math.max(0, ...slots(spec).map((slot) => label(slot).length)));
  const annotate = (plot, spec) => {
    const { yaxis, _size: size } = plot._fullLayout, ends = new Map();
    for (const trace of plot._fullData) {
      if (trace.visible !== true || trace.meta.slot < 0) continue;
      trace.x.forEach((x, i) => {
        const y = yaxis.d2p(trace.y[i]), end = ends.get(trace.meta.slot);
        if (trace.y[i] !== null && Number.isFinite(y) && (!end || x >= end.x)) ends.set(trace.meta.slot, { x, y, slot: trace.meta.slot });
      });
    }
    const decades = yaxis.type === "log" ? yaxis.range[1] - yaxis.range[0] : 0; // few ticks, as in the static figure
    const ticks = decades > 0.8 ? { "yaxis.dtick": decades > 3 ? 1 : "D2" } : {};
    if (!ends.size || slots(spec).length > MOST) return window.Plotly.relayout(plot, ticks);
    const rows = [...ends.values()].sort((a, b) => a.y - b.y);
    let at = -LINE;
    rows.forEach((end) => { at = end.row = Math.max(end.y, at + LINE); });
    at = Math.max(size.h, LINE * (rows.length - 1)) + LINE;
    rows.reverse().forEach((end) => { at = end.row = Math.min(end.row, at - LINE); });
    const annotations = rows.map((end) => ({ xref: "paper", yref: "paper", x: 1, y: 1 - end.row / size.h, xanchor: "left", yanchor: "middle", xshift: 6,
      showarrow: false, opacity: faint(end.slot) ? 0.25 : 1, text: escaped(label(end.slot)), font: { size: 12, color: color(end.slot) } }));
    return window.Plotly.relayout(plot, { annotations, ...ticks });
  };
  const draw = async (figure) => {
    if (!figure.getClientRects().length) return; // hidden: drawn when it is shown
    const plotly = await load(), plot = $(".plot", figure);
    const spec = specs.get(figure.id), height = Math.max(270, figure.classList.contains("live") ? plot.clientHeight : $(".static", figure).clientHeight);
    figure.classList.add("live");
    const muted = getComputedStyle(root).getPropertyValue("--muted").trim();
    const layout = themed(spec.layout, height);
    layout.margin.r = room(spec);
    await plotly.react(plot, spec.data.map((trace) => paint(trace, muted)), layout, config);
    await annotate(plot, spec);
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

  // -- legend: a pressed name dims the others in all figures; Escape lifts it --------------------------------------------------
  const buttons = $$(".legend button");
  const single = () => {
    buttons.forEach((button) => button.setAttribute("aria-pressed", String(chosen.has(Number(button.dataset.slot)))));
    if (chosen.size) document.body.dataset.chosen = [...chosen].join(" ");
    else delete document.body.dataset.chosen;
    redraw();
  };
  buttons.forEach((button) => button.addEventListener("click", () => { const slot = Number(button.dataset.slot); if (!chosen.delete(slot)) chosen.add(slot); single(); }));
  addEventListener("keydown", (event) => { if (event.key === "Escape" && chosen.size) { chosen.clear(); single(); } });

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
  const drawn = ["fill", "stroke", "stroke-width", "stroke-dasharray", "stroke-linecap", "opacity", "font-size", "font-weight", "font-family", "text-anchor"];
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

  root.dataset.ready = "page";
})();
