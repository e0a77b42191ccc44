"use strict";
(() => {
  const { specs, dark } = JSON.parse(document.getElementById("figures").textContent);
  const night = matchMedia("(prefers-color-scheme: dark)");
  const touch = matchMedia("(pointer: coarse)");
  const drawn = {};

  // Figures come in the light palette; replace every colour that has a dark counterpart.
  function themed(value, isDark) {
    if (typeof value === "string") return (isDark && dark[value]) || value;
    if (Array.isArray(value)) return value.map((item) => themed(item, isDark));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, themed(v, isDark)]));
    }
    return value;
  }

  function draw(name, isDark) {
    const target = document.getElementById("figure-" + name);
    const spec = themed(specs[name], isDark);
    spec.data.forEach((trace, i) => { trace.visible = drawn[name]?.visible[i] ?? true; });
    if (touch.matches) spec.layout.dragmode = false; // a finger on the figure scrolls the page
    if (drawn[name]?.all) showAll(spec.layout);
    const config = {
      responsive: true,
      displaylogo: false,
      modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]], // named, so that none shares the chart
      toImageButtonOptions: { format: "svg", filename: name },
    };
    Plotly.react(target, spec.data, spec.layout, config);
    drawn[name] ??= { visible: spec.data.map(() => true), all: false };
  }

  function drawAll(isDark) {
    Object.keys(specs).forEach((name) => draw(name, isDark));
    document.querySelectorAll(".legend svg").forEach((icon) => {
      icon.style.color = themed(icon.dataset.color, isDark);
    });
  }

  function showAll(layout) {
    for (const axis of ["xaxis", "yaxis"]) {
      delete layout[axis].range;
      layout[axis].autorange = true;
    }
  }

  document.querySelectorAll(".legend button").forEach((button) => {
    button.addEventListener("click", () => {
      const name = button.dataset.figure;
      const on = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(on));
      button.dataset.traces.split(",").map(Number).forEach((i) => { drawn[name].visible[i] = on; });
      draw(name, night.matches);
    });
  });

  document.querySelectorAll(".buttons button").forEach((button) => {
    button.addEventListener("click", () => {
      const { figure, view } = button.dataset;
      for (const other of button.parentElement.children) {
        other.setAttribute("aria-pressed", String(other === button));
      }
      drawn[figure].all = view === "all";
      draw(figure, night.matches);
    });
  });

  // Sorting: numbers by data-value, text by what it says; empty values last either way.
  document.querySelectorAll("table.sortable th button").forEach((button) => {
    button.addEventListener("click", () => {
      const head = button.closest("th");
      const body = head.closest("table").tBodies[0];
      const ascending = head.getAttribute("aria-sort") !== "ascending";
      const key = (row) => row.cells[head.cellIndex].dataset.value ?? row.cells[head.cellIndex].textContent.trim();
      const compare = (a, b) => {
        const [x, y] = [key(a), key(b)];
        if (x === "" || y === "") return (x === "") - (y === "");
        const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
        return ascending ? order : -order;
      };
      for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      body.append(...[...body.rows].sort(compare));
    });
  });

  const picker = document.getElementById("pick-config");
  function pick(id) {
    document.querySelectorAll("[data-layers]").forEach((block) => { block.hidden = block.dataset.layers !== id; });
    if (picker.value !== id) picker.value = id;
  }
  if (picker) {
    picker.addEventListener("change", () => pick(picker.value));
    document.querySelectorAll("[data-pick]").forEach((link) => {
      link.addEventListener("click", () => pick(link.dataset.pick));
    });
  }

  document.querySelectorAll(".code button").forEach((button) => {
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(button.parentElement.querySelector("pre").textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  });

  drawAll(night.matches);
  night.addEventListener("change", () => drawAll(night.matches));
  addEventListener("beforeprint", () => drawAll(false));
  addEventListener("afterprint", () => drawAll(night.matches));
})();
