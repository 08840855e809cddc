// The path of integrated gradients: the slider, or a click on the figure, chooses α; tokens take its colours, the figure
// marks it, and its figures stand on the line below.
(function () {
  for (const root of document.querySelectorAll(".tls-path:not([data-ready])")) {
    root.dataset.ready = "";
    const data = JSON.parse(root.querySelector(".tls-path-data").textContent);
    const slider = root.querySelector("input"), value = root.querySelector("output"), line = root.querySelector(".tls-read");
    const tokens = [...root.querySelectorAll(".tls-static > span[title]")];
    const places = [...root.querySelectorAll(".tls-chart .tls-mark")];

    const draw = () => {
      const i = +slider.value;
      value.textContent = data.alphas[i];
      slider.setAttribute("aria-valuetext", `α = ${data.alphas[i]}`);
      line.textContent = data.says[i];
      tokens.forEach((token, t) => {
        const [paper, light, dark] = data.ramp[data.steps[i][t]], text = token.firstElementChild;
        token.style.backgroundColor = paper;
        token.title = `position ${t}: ${data.norms[i][t]}`;
        text.style.color = light;
        text.dataset.flip = dark;
      });
      places.forEach((place, p) => place.classList.toggle("tls-now", p === i));
    };
    const choose = (event) => {
      const i = places.indexOf(event.target.closest(".tls-mark"));
      if (i >= 0) (slider.value = i, draw());
    };

    const chart = root.querySelector(".tls-chart");
    chart.addEventListener("pointerdown", choose);
    chart.addEventListener("pointermove", (event) => event.buttons && choose(event));
    slider.addEventListener("input", draw);
    slider.disabled = false;
    draw();
  }
})();
