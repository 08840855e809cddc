// Maps of cells, charts of marks, lines of tokens: what the mouse or the keyboard is on is outlined, and its words stand on
// the line below. Without scripts each mark's own title does. A chart takes the focus; arrow keys, Home and End walk its
// marks.
window.tlScopesHover = window.tlScopesHover || (function () {
  const CHART = ".tls-map, .tls-chart, .tls-tokens > .tls-static";
  const MARK = ".tls-map td, .tls-chart .tls-mark, .tls-tokens > .tls-static > span";
  const STEPS = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };

  function read(mark) {
    const chart = mark.closest(CHART), line = chart.closest(".tls-scroll, .tls-tokens").nextElementSibling;
    for (const old of chart.querySelectorAll(".tls-at")) old.classList.remove("tls-at");
    mark.classList.add("tls-at");
    if (!line || !line.matches(".tls-read")) return;
    const own = mark.querySelector("title");
    line.textContent = own ? own.textContent : mark.title && mark.title.replace("\n", ": ") + (chart.dataset.unit ? " " + chart.dataset.unit : "");
  }

  function next(chart, key) {
    const rows = chart.tBodies ? [...chart.tBodies[0].rows].map((row) => [...row.querySelectorAll("td")].filter((cell) => cell.offsetParent))
      : [[...chart.querySelectorAll(chart.matches(".tls-chart") ? ".tls-mark" : ":scope > span")]];
    const at = chart.querySelector(".tls-at");
    let r = Math.max(0, rows.findIndex((row) => row.includes(at))), c = rows[r].indexOf(at);
    if (key === "Home") c = 0;
    else if (key === "End") c = rows[r].length - 1;
    else if (at) [r, c] = [r + (rows.length > 1 ? STEPS[key][0] : 0), c + STEPS[key][1] + (rows.length > 1 ? 0 : STEPS[key][0])];
    r = Math.min(Math.max(r, 0), rows.length - 1);
    return rows[r][Math.min(Math.max(c, 0), rows[r].length - 1)];
  }

  // What comes to lie under a resting mouse, by a redraw or a scroll, is not pointed at.
  let place = "";
  const at = (event) => `${event.screenX} ${event.screenY}`;
  document.addEventListener("mousemove", (event) => { place = at(event); }, true);
  document.addEventListener("mouseover", (event) => {
    if (event.isTrusted && at(event) === place && event.target.closest && event.target.closest(".tls")) event.stopImmediatePropagation();
  }, true);

  document.addEventListener("mouseover", (event) => {
    const mark = event.target.closest && event.target.closest(MARK);
    if (mark) read(mark);
  });
  document.addEventListener("keydown", (event) => {
    const chart = event.target.closest && event.target.closest(CHART);
    if (!chart || !(event.key in STEPS || event.key === "Home" || event.key === "End")) return;
    event.preventDefault();
    const mark = next(chart, event.key);
    read(mark);
    mark.scrollIntoView({ block: "nearest", inline: "nearest" });
  });
  return true;
})();
