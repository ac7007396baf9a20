// Draws the plots from the data in the page, in light or dark colours, and lets the reader hide deployments and choose a load.
(() => {
  "use strict";
  const specs = JSON.parse(document.getElementById("plots").textContent);
  const plots = [...document.querySelectorAll(".plot")];
  plots.forEach((element, i) => { element.id = `plot-${i}`; });
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const touch = window.matchMedia("(pointer: coarse)");
  const hidden = new Set();
  const drawn = new Set();
  // No tool bar: it would cover the data. Drag to zoom, double-click to reset.
  const config = { responsive: true, displaylogo: false, displayModeBar: false };

  const palette = () => {
    const style = getComputedStyle(document.documentElement);
    const get = (name) => style.getPropertyValue(name).trim();
    return { ink: get("--ink"), quiet: get("--quiet"), grid: get("--grid"), raised: get("--raised"), font: get("--font"),
      series: [...Array(8).keys()].map((i) => get(`--series-${i}`)) };
  };

  const paint = (trace, colors) => {
    const slot = trace.meta.slot;
    const color = slot < 0 ? colors.quiet : colors.series[slot % colors.series.length];
    const marker = { ...trace.marker, color };
    marker.line = { ...(trace.marker && trace.marker.line), color };
    const out = { ...trace, marker, line: { ...trace.line, color }, visible: !hidden.has(slot),
      textfont: { color: colors.quiet, size: 10 } };
    if (trace.error_y) out.error_y = { ...trace.error_y, color };
    return out;
  };

  const themed = (layout, colors) => {
    const axis = (its) => ({ automargin: true, gridcolor: colors.grid, linecolor: colors.grid, zeroline: false, showline: true,
      fixedrange: touch.matches, tickformat: ",~r", ...its, title: { ...its.title, font: { size: 11, color: colors.quiet } } });
    return { height: 270, margin: { l: 8, r: 14, t: 10, b: 8 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: colors.font, size: 11, color: colors.ink }, dragmode: touch.matches ? false : "zoom", hovermode: "closest",
      hoverlabel: { bgcolor: colors.raised, bordercolor: colors.grid, font: { color: colors.ink, family: colors.font, size: 12 }, align: "left" },
      xaxis: axis(layout.xaxis), yaxis: axis(layout.yaxis) };
  };

  const draw = (i) => {
    const element = plots[i];
    if (element.closest("[hidden]")) return; // it has no width yet; drawn when shown
    const colors = palette();
    Plotly.react(element, specs[i].data.map((trace) => paint(trace, colors)), themed(specs[i].layout, colors), config);
    drawn.add(i);
  };
  const redraw = () => drawn.forEach(draw);

  document.querySelectorAll(".legend button").forEach((button) => button.addEventListener("click", () => {
    const slot = Number(button.dataset.slot);
    if (!hidden.delete(slot)) hidden.add(slot);
    document.querySelectorAll(`.legend button[data-slot="${slot}"]`)
      .forEach((same) => same.setAttribute("aria-pressed", String(!hidden.has(slot))));
    redraw();
  }));

  document.querySelectorAll(".choose select").forEach((select) => select.addEventListener("change", () => {
    select.closest("section").querySelectorAll("figure").forEach((figure) => {
      figure.hidden = figure.dataset.load !== select.value;
      if (!figure.hidden) draw(plots.indexOf(figure.querySelector(".plot")));
    });
  }));

  dark.addEventListener("change", redraw);
  // Print with the light colours.
  window.addEventListener("beforeprint", () => { document.documentElement.classList.add("print"); redraw(); });
  window.addEventListener("afterprint", () => { document.documentElement.classList.remove("print"); redraw(); });

  // One plot per turn of the event loop, so that a page with hundreds of plots stays responsive.
  let next = 0;
  const step = () => {
    if (next < specs.length) { draw(next++); setTimeout(step, 0); } else { document.documentElement.dataset.drawn = "all"; }
  };
  step();
})();
