"use strict";
(() => {
  const data = JSON.parse(document.getElementById("tls-path").textContent);
  const slider = document.getElementById("tls-alpha");
  const tokens = [...document.querySelectorAll(".tls-token")];
  const curves = [...document.querySelectorAll("[data-curve]")];

  function draw() {
    const i = +slider.value, alpha = data.alphas[i].toFixed(3);
    document.getElementById("tls-value").textContent = alpha;
    slider.setAttribute("aria-valuetext", `α = ${alpha}`);
    tokens.forEach((token, t) => {
      const [paper, ink, dark] = data.ramp[data.steps[i][t]];
      token.style.setProperty("--paper", paper);
      token.style.setProperty("--ink", ink);
      token.style.setProperty("--dark", dark);
      token.title = `position ${t}: ${data.norms[i][t]}`;
    });
    for (const svg of curves) {
      const name = svg.dataset.curve, dot = svg.querySelector("circle"), now = svg.querySelector("line");
      dot.setAttribute("cx", data.x[i]);
      dot.setAttribute("cy", data.y[name][i]);
      now.setAttribute("x1", data.x[i]);
      now.setAttribute("x2", data.x[i]);
      document.getElementById(`tls-${name}`).textContent = data.text[name][i];
    }
  }

  function follow(svg, event) {
    const box = svg.getBoundingClientRect(), at = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
    let best = 0;
    data.x.forEach((x, i) => { if (Math.abs(x - at) < Math.abs(data.x[best] - at)) best = i; });
    slider.value = best;
    draw();
  }

  for (const svg of curves) {
    svg.addEventListener("pointerdown", event => { svg.setPointerCapture(event.pointerId); follow(svg, event); });
    svg.addEventListener("pointermove", event => { if (event.buttons) follow(svg, event); });
  }
  slider.addEventListener("input", draw);
  slider.disabled = false;
  draw();
})();
