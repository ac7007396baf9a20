// The home page of a site: filters the list of runs, and chooses two to compare. Without it everything is there to read.
(() => {
  "use strict";
  document.documentElement.classList.add("scripts");
  const $ = (selector, from = document) => from.querySelector(selector);
  const $$ = (selector, from = document) => [...from.querySelectorAll(selector)];
  const chosen = [];

  const filter = () => {
    const words = $("#filter").value.toLowerCase().split(/\s+/).filter(Boolean), rows = $$("#list tbody tr");
    rows.forEach((row) => { const text = row.textContent.toLowerCase(); row.hidden = !words.every((word) => text.includes(word)); });
    const shown = rows.filter((row) => !row.hidden).length;
    $("#count").textContent = words.length ? `${shown} of ${rows.length}` : `${rows.length} runs`;
  };
  const choose = () => {
    $$("#list input[data-run]").forEach((box) => { box.checked = chosen.includes(box.dataset.run); });
    const place = $("#chosen"), order = $$("#list input[data-run]").map((box) => box.dataset.run);
    place.textContent = chosen.length === 1 ? "choose a second run to compare" : "";
    if (chosen.length !== 2) return;
    const [candidate, base] = [...chosen].sort((a, b) => order.indexOf(a) - order.indexOf(b)); // the newest is first
    place.append(Object.assign(document.createElement("a"), { href: `compare.html#${new URLSearchParams({ base, candidate })}`, textContent: "Compare the two runs" }));
  };
  if ($("#list")) {
    $("#filter").addEventListener("input", filter);
    $("#runs").addEventListener("change", (event) => {
      const run = event.target.dataset.run;
      if (!run) return;
      if (chosen.includes(run)) chosen.splice(chosen.indexOf(run), 1);
      else { chosen.push(run); if (chosen.length > 2) chosen.shift(); }
      choose();
    });
    filter();
    choose(); // a browser may have kept the boxes as they were
  }
  document.documentElement.dataset.ready = "page";
})();
