// Makes the decision grid and the tables of the page interactive. Without it they are there, and readable.
(() => {
  "use strict";
  const $ = (selector, from = document) => from.querySelector(selector);
  const $$ = (selector, from = document) => [...from.querySelectorAll(selector)];
  const el = (tag, css, ...inside) => { const made = document.createElement(tag); if (css) made.className = css; made.append(...inside); return made; };
  const names = new Map($$(".legend button").map((button) => [Number(button.dataset.slot), $("span", button).textContent]));

  // -- the grid under limits: those that keep them, compared by the ranges of their restarts ---------------------------------------
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
})();
