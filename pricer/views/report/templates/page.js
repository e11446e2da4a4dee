"use strict";
(() => {
  const page = JSON.parse(document.getElementById("data").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const narrow = window.matchMedia("(max-width: 480px)");
  const coarse = window.matchMedia("(pointer: coarse)");
  const slider = document.getElementById("smoothing");
  const rule = document.getElementById("rule");

  // Pixels of a legend's line that are not free for the name: axis numbers, sign, and margins.
  const BESIDE_NAMES = 130;

  const ARRAYS = {
    f8: Float64Array, f4: Float32Array, i4: Int32Array, i2: Int16Array, i1: Int8Array,
    u4: Uint32Array, u2: Uint16Array, u1: Uint8Array,
  };

  // Columns are packed. They are unpacked once, for smoothing and so that redrawing does not decode them again.
  function unpacked(value) {
    if (Array.isArray(value)) return value.map(unpacked);
    if (value === null || typeof value !== "object") return value;
    if (typeof value.bdata === "string" && value.dtype in ARRAYS && value.shape === undefined) {
      const bytes = Uint8Array.from(atob(value.bdata), (character) => character.charCodeAt(0));
      return new ARRAYS[value.dtype](bytes.buffer);
    }
    return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, unpacked(inner)]));
  }

  // A copy in the colours of the current mode. Only values under a color key are replaced: a text may contain "#ffffff".
  function painted(value, name) {
    if (typeof value === "string") return /color$/i.test(name) && dark.matches ? page.dark[value] ?? value : value;
    if (value === null || typeof value !== "object" || ArrayBuffer.isView(value)) return value;
    if (Array.isArray(value)) return value.map((inner) => painted(inner, name));
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, painted(inner, key)]));
  }

  // The exponential moving average, corrected so that it does not start near zero.
  function smoothed(values, weight) {
    let total = 0, counted = 0;
    return Float64Array.from(values, (value) => {
      if (!Number.isFinite(value)) return NaN;
      total = weight * total + (1 - weight) * value;
      counted = weight * counted + (1 - weight);
      return total / counted;
    });
  }

  const charts = new Map();
  for (const place of document.querySelectorAll(".plot")) {
    const chart = page.charts[place.dataset.chart];
    charts.set(place, { data: unpacked(chart.data), layout: chart.layout, height: chart.height, title: chart.title });
  }

  // plotly does not wrap legends, so a name that is wider than the chart would be cut. "&lt;" is one character.
  const pen = document.createElement("canvas").getContext("2d");
  function wrapped(name, font, width) {
    pen.font = `${font.size}px ${font.family}`;
    const lines = [];
    let line = "";
    for (const character of name.match(/&\w+;|[^]/gu) ?? []) {
      if (line && pen.measureText(line.replace(/&\w+;/g, "&") + character[0]).width > width) {
        const blank = line.lastIndexOf(" ");
        lines.push(line.slice(0, blank > 0 ? blank : line.length));
        line = blank > 0 ? line.slice(blank + 1) : "";
      }
      line += character;
    }
    return [...lines, line].join("<br>");
  }

  function role(trace) {
    return trace.meta && trace.meta.role;
  }

  function traces(chart, place) {
    const font = fontOf(chart);
    return chart.data.map((trace) => {
      const drawn = painted(trace, "");
      if (trace.name) drawn.name = wrapped(trace.name, font, place.clientWidth - BESIDE_NAMES);
      if (role(trace) === "smoothed" && slider) drawn.y = smoothed(trace.y, Number(slider.value));
      if (role(trace) === "rule" && rule) drawn.visible = rule.checked;
      return drawn;
    });
  }

  function fontOf(chart) {
    return narrow.matches ? { ...chart.layout.font, size: 11 } : chart.layout.font;
  }

  function layout(chart) {
    const drawn = painted(chart.layout, "");
    drawn.height = narrow.matches ? Math.min(chart.height, 420) : chart.height;
    drawn.font.size = fontOf(chart).size;
    drawn.modebar = { bgcolor: "rgba(0,0,0,0)", color: drawn.xaxis.tickfont.color, activecolor: drawn.font.color };
    // On a touch screen, dragging scrolls the page.
    if (coarse.matches) drawn.dragmode = false;
    return drawn;
  }

  function options(chart) {
    return {
      responsive: true,
      displaylogo: false,
      displayModeBar: coarse.matches || narrow.matches ? false : "hover",
      modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d", "zoomIn2d", "zoomOut2d"],
      toImageButtonOptions: { scale: 2, filename: chart.title.toLowerCase().replace(/[^a-z0-9]+/g, "-") },
    };
  }

  function draw(which = () => true) {
    for (const [place, chart] of charts) {
      if (which(chart)) Plotly.react(place, traces(chart, place), layout(chart), options(chart));
    }
  }

  const changes = (wanted) => (chart) => chart.data.some((trace) => role(trace) === wanted);
  let waiting = false;
  slider?.addEventListener("input", () => {
    document.getElementById("smoothing-value").value = Number(slider.value).toFixed(2);
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      draw(changes("smoothed"));
    });
  });
  rule?.addEventListener("change", () => draw(changes("rule")));
  dark.addEventListener("change", () => draw());
  narrow.addEventListener("change", () => draw());

  draw();
  document.documentElement.dataset.drawn = "true";
})();
