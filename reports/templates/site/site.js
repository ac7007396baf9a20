// The home page of a site: filters the list of runs, and chooses two to compare. Served by `bench view`, pages also follow their runs.
// Without it everything is there to read.
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
  if ($("#filter")) {
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

  // -- following: parts of the page that have changed are replaced by those of the page as it is now ------------------------------------
  const refresh = async () => {
    const answer = await fetch(location.pathname, { cache: "no-store" });
    if (!answer.ok) return;
    if (answer.redirected) return location.replace(answer.url); // the run has ended: to its report
    const now = new DOMParser().parseFromString(await answer.text(), "text/html"), focus = document.activeElement?.dataset?.run;
    for (const part of $$("[data-part]")) {
      const other = now.getElementById(part.id);
      if (other && other.outerHTML !== part.outerHTML) part.replaceWith(document.adoptNode(other));
    }
    $$("head style").forEach((style, i) => { const other = $$("head style", now)[i]; if (other && other.textContent !== style.textContent) style.textContent = other.textContent; });
    if ($("#filter")) { filter(); choose(); }
    if (focus && document.activeElement === document.body) $$("#list input[data-run]").find((box) => box.dataset.run === focus)?.focus();
  };
  const every = (pause, step) => { const go = async () => { if (!document.hidden) await step().catch(() => {}); setTimeout(go, pause); }; setTimeout(go, pause); };
  const { follow, live } = document.body.dataset;
  if (follow) every(Number(follow), refresh);
  if (live !== undefined) {
    let version = null;
    every(2000, async () => {
      const news = await (await fetch("live.json", { cache: "no-store" })).json();
      if (news.version !== version) await refresh();
      version = news.version;
    });
  }
  document.documentElement.dataset.ready = "page";
})();
