// Draws the charts, and tells what a mark stands for: to a mouse or a finger near it, and to the arrow keys.
"use strict";
const { charts, data, config } = JSON.parse(document.getElementById("content").textContent);
const tip = document.getElementById("tip");
const NEAR = 16; // pixels

function distance({ left, right, top, bottom }, x, y) {
  return Math.hypot(Math.max(left - x, 0, x - right), Math.max(top - y, 0, y - bottom));
}

function explain(chart) {
  let marks = [], chosen = null;

  function look() {
    // Vega labels the marks that stand for something.
    marks = [...chart.querySelectorAll("path[aria-label]")].map(node => ({ node, box: node.getBoundingClientRect() }));
  }
  function forget() {
    if (chosen) chosen.node.classList.remove("told");
    chosen = null;
    tip.hidden = true;
  }
  function tell(mark) {
    forget();
    if (!mark) return;
    chosen = mark;
    mark.node.classList.add("told");
    tip.textContent = mark.node.getAttribute("aria-label").replaceAll("; ", "\n");
    tip.hidden = false;
    const middle = (mark.box.left + mark.box.right) / 2 - tip.offsetWidth / 2;
    const above = mark.box.top - tip.offsetHeight - 8;
    const left = Math.max(4, Math.min(middle, document.documentElement.clientWidth - tip.offsetWidth - 4));
    tip.style.left = `${left + scrollX}px`;
    tip.style.top = `${(above > 0 ? above : mark.box.bottom + 8) + scrollY}px`;
  }
  chart.addEventListener("pointermove", event => {
    if (!marks.length) look();
    const near = marks.map(mark => [distance(mark.box, event.clientX, event.clientY), mark]);
    const [away, mark] = near.reduce((one, other) => (other[0] < one[0] ? other : one), [Infinity, null]);
    if (mark !== chosen) tell(away <= NEAR ? mark : null);
  });
  chart.addEventListener("keydown", event => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity }[event.key];
    if (event.key === "Escape") forget();
    if (!step) return;
    event.preventDefault();
    const before = chosen && chosen.node;
    look();
    const last = marks.length - 1, place = marks.findIndex(mark => mark.node === before);
    tell(marks[place < 0 && step === -1 ? last : Math.max(0, Math.min(place + step, last))]);
  });
  for (const away of ["pointerleave", "blur"]) chart.addEventListener(away, () => { forget(); marks = []; });
  for (const moved of ["scroll", "resize"]) addEventListener(moved, () => { marks = []; });
}

async function draw() {
  for (const chart of document.querySelectorAll("[data-chart]")) {
    const spec = { ...charts[chart.dataset.chart], description: chart.ariaLabel, datasets: data, config };
    await vegaEmbed(chart, spec, { renderer: "svg", actions: false, tooltip: false, defaultStyle: false });
    explain(chart);
    // What is drawn already may be shown before the next one.
    await new Promise(resolve => setTimeout(resolve));
  }
}

draw();
