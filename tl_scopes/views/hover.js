// Under a map of cells or a series, the line that says what the mouse is on; without scripts each mark's own title does.
window.tlScopesHover = window.tlScopesHover || (function () {
  document.addEventListener("mouseover", (event) => {
    if (!event.target.closest) return;
    const mark = event.target.closest(".tls-series [data-tip]");
    if (mark) mark.closest("section").querySelector(".tls-readout").textContent = mark.dataset.tip;
    const cell = event.target.closest(".tls-map td");
    if (!cell) return;
    const table = cell.closest(".tls-map");
    const line = table.parentElement.parentElement.querySelector(".tls-read");
    if (line) line.textContent = cell.title + (table.dataset.unit ? " " + table.dataset.unit : "");
  });
  return true;
})();
