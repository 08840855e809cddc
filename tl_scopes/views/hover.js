// Under a map of cells, the line that says what the mouse is on; without scripts each cell's own title does.
window.tlScopesHover = window.tlScopesHover || (function () {
  document.addEventListener("mouseover", (event) => {
    const cell = event.target.closest && event.target.closest(".tls-map td");
    if (!cell) return;
    const table = cell.closest(".tls-map");
    const line = table.parentElement.parentElement.querySelector(".tls-read");
    if (line) line.textContent = cell.title + (table.dataset.unit ? " " + table.dataset.unit : "");
  });
  return true;
})();
