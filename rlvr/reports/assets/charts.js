"use strict";
// Charts: uPlot draws them; caption, keys, readout, table and keyboard are added here.

const COLORS = 7;
const DASHES = [[], [7, 4], [2, 3]];
const charts = new Set();
const hiddenSources = new Set();

function variable(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function faded(color, alpha) {
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
  return `rgba(${r}, ${g}, ${b}, ${alpha})`;
}

function colorOf(place) {
  return variable(`--c${place % COLORS}`);
}

// One chart per panel: a figure that draws itself when it comes near the window.
class ChartView {
  constructor(chart, sources, alarms) {
    this.chart = chart;
    this.sources = sources;
    this.alarms = chart.kind === "buckets" ? [] : alarms;
    this.byCurve = sources.length === 1;
    this.readout = el("div", { className: "readout" });
    this.plot = el("div", { className: "plot", tabindex: "0", role: "img", "aria-label": this.summary(chart.curves) });
    this.plot.addEventListener("keydown", (event) => this.key(event));
    this.details = el("details", { ontoggle: () => this.fillDetails() }, el("summary", {}, "About, and the numbers"));
    this.figure = el("figure", {},
      el("figcaption", {}, el("strong", {}, capital(chart.title)), el("span", { className: "unit" }, chart.unit)),
      this.readout, this.plot, this.details);
    charts.add(this);
  }

  get shown() {
    return this.chart.curves.filter((curve) => !hiddenSources.has(curve.source));
  }

  draw() {
    if (this.uplot) this.uplot.destroy();
    this.drawn = true;
    const curves = this.shown;
    this.curves = curves;
    this.plot.setAttribute("aria-label", this.summary(curves));
    const width = Math.max(200, this.plot.clientWidth || this.figure.clientWidth || 350);
    const stacked = this.chart.kind === "stack";
    const { data, series, bands } = stacked ? this.stack(curves) : this.lines(curves);
    this.uplot = new uPlot(this.options(width, series, bands), data, this.plot);
    this.read(null);
  }

  color(curve, place) {
    return colorOf(this.byCurve ? place : curve.source);
  }

  dash(curve) {
    return this.byCurve ? [] : DASHES[curve.style];
  }

  lines(curves) {
    const tables = [], series = [{}], bands = [];
    const positive = (values) => (this.chart.axis === "log" ? values.map((v) => (v > 0 ? v : null)) : values);
    curves.forEach((curve, place) => {
      const color = this.color(curve, place), dash = this.dash(curve);
      const columns = [curve.x], few = curve.x.length <= 24;
      const add = (values, style) => {
        columns.push(positive(values));
        series.push({ points: { show: false }, ...style });
        return series.length - 1;
      };
      if (curve.low) {
        const high = add(curve.high, { width: 0 }), low = add(curve.low, { width: 0 });
        bands.push({ series: [high, low], fill: faded(color, 0.14) });
      }
      if (curve.smooth) add(curve.y, { stroke: faded(color, 0.3), width: 1 });
      const main = add(curve.smooth || curve.y, { stroke: color, width: 1.75, dash, points: { show: true, filter: (u, at) => marked(u.data[at], few), size: 5, fill: color, stroke: color } });
      curve.at = { series: main, raw: curve.smooth ? main - 1 : main };
      tables.push(columns);
    });
    const data = tables.length ? uPlot.join(tables) : [[], []];
    return { data, series: tables.length ? series : [{}, {}], bands };
  }

  stack(curves) {
    const x = curves.length ? curves[0].x : [], sums = x.map(() => 0), layers = [], series = [{}], bands = [];
    curves.forEach((curve, place) => {
      const byX = new Map(curve.x.map((value, i) => [value, curve.y[i]]));
      x.forEach((value, i) => { sums[i] += byX.get(value) || 0; });
      layers.push(sums.slice());
      const color = this.color(curve, place);
      series.push({ stroke: color, width: 1, fill: place === 0 ? faded(color, 0.5) : undefined, points: { show: false } });
      curve.at = { series: place + 1, raw: place + 1 };
      if (place > 0) bands.push({ series: [place + 1, place], fill: faded(color, 0.5) });
    });
    return { data: [x, ...layers], series, bands };
  }

  options(width, series, bands) {
    const chart = this.chart, ink = variable("--muted"), grid = { stroke: variable("--line"), width: 1 };
    // Of a logarithmic axis only powers of ten have a line, unless there are fewer than three.
    const decades = (u, splits) => {
      const isPower = (value) => value === 0 || (value !== null && Number.isInteger(Math.round(1e6 * Math.log10(Math.abs(value))) / 1e6));
      const few = splits.filter((value) => isPower(value) && value >= u.scales.y.min && value <= u.scales.y.max).length < 3;
      const isRound = (value) => [1, 2, 5].includes(Number(String(Math.abs(value).toExponential(0))[0]));
      return asLog ? splits.map((value) => ((few ? isRound(value) : isPower(value)) ? value : null)) : splits;
    };
    const asLog = chart.axis === "log" || chart.axis === "symlog";
    const font = "11.5px system-ui, sans-serif";
    const asPercent = chart.axis === "percent" || (chart.axis === "0-1");
    const label = (value) => (value === null ? "" : asPercent && chart.axis === "percent" ? `${number(100 * value)}%` : number(value));
    const scale = {};
    if (chart.axis === "log") scale.distr = 3;
    else if (chart.axis === "symlog") { scale.distr = 4; scale.asinh = 1e-4; }
    else scale.range = (_, low, high) => this.range(low, high);
    const buckets = chart.kind === "buckets";
    const whole = (values) => values.map((value) => (Number.isInteger(value) ? count(value) : ""));
    return {
      width, height: 190, series, bands, pxAlign: 0,
      legend: { show: false },
      padding: [8, 10, 0, 0],
      cursor: { sync: buckets ? undefined : { key: "steps", setSeries: false }, drag: { x: !buckets, y: false }, points: { size: 6 } },
      scales: { x: { time: false, range: buckets ? () => [-0.3, chart.ticks.length - 0.7] : undefined }, y: scale },
      axes: [
        { stroke: ink, grid: { show: false }, ticks: { ...grid, size: 4 }, font, size: 26, gap: 3, space: buckets ? 30 : 60,
          incrs: buckets ? [1] : [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6],
          values: (_, values) => (buckets ? values.map((v) => chart.ticks[v] || "") : whole(values)) },
        { stroke: ink, grid: { ...grid, filter: decades }, filter: decades, ticks: { show: false }, font, size: 50, gap: 4, space: 34, values: (_, values) => values.map(label) },
      ],
      hooks: { draw: [(u) => this.marks(u)], setCursor: [(u) => this.read(u.cursor.idx)] },
    };
  }

  range(low, high) {
    if (low === null || high === null) return [0, 1];
    if (this.chart.axis === "0-1") return [Math.min(0, low), Math.max(1, high)];
    if (this.chart.axis === "percent") low = Math.min(0, low);
    if (this.chart.kind === "stack") low = 0;
    const room = (high - low || Math.abs(high) || 1) * 0.06;
    return [low === 0 ? 0 : low - room, high + room];
  }

  // Ends of the healthy range as dashed lines, alarms as ticks at the bottom.
  marks(u) {
    const { left, top, width, height } = u.bbox, context = u.ctx, ratio = devicePixelRatio || 1;
    context.save();
    context.strokeStyle = variable("--edge");
    context.setLineDash([2 * ratio, 4 * ratio]);
    context.lineWidth = ratio;
    for (const end of [this.chart.low, this.chart.high]) {
      if (end === null || end === undefined) continue;
      const y = u.valToPos(end, "y", true);
      if (y < top || y > top + height) continue;
      context.beginPath();
      context.moveTo(left, y);
      context.lineTo(left + width, y);
      context.stroke();
    }
    context.setLineDash([]);
    context.strokeStyle = variable("--bad");
    context.lineWidth = 1.5 * ratio;
    for (const alarm of this.alarms) {
      const x = u.valToPos(alarm.step, "x", true);
      if (hiddenSources.has(alarm.source) || x < left || x > left + width) continue;
      context.beginPath();
      context.moveTo(x, top + height);
      context.lineTo(x, top + height - 9 * ratio);
      context.stroke();
    }
    context.restore();
  }

  name(curve) {
    return [this.sources.length > 1 ? this.sources[curve.source].name : "", curve.label].filter(Boolean).join(", ");
  }

  text(value) {
    return this.chart.axis === "percent" ? percent(value) : number(value, 4);
  }

  valueOf(curve, place) {
    const u = this.uplot;
    const at = (i) => {
      const value = u.data[curve.at.raw][i];
      const below = this.chart.kind === "stack" && curve.at.series > 1 ? u.data[curve.at.series - 1][i] : 0;
      return value === undefined || value === null ? value : value - below;
    };
    if (place !== null) return at(place);
    for (let i = u.data[0].length - 1; i >= 0; i--) if (at(i) !== undefined && at(i) !== null) return at(i);
    return null;
  }

  read(place) {
    if (!this.uplot) return;
    const known = place !== null && place !== undefined && this.uplot.data[0][place] !== undefined;
    const x = known ? this.uplot.data[0][place] : null;
    const where = !known ? "last" : this.chart.kind === "buckets" ? `lag ${this.chart.ticks[x]}` : `step ${count(x)}`;
    append(clear(this.readout), [
      el("span", {}, this.chart.kind === "buckets" && !known ? "mean over the run" : where),
      this.curves.filter((curve) => known || this.chart.kind !== "buckets" || this.name(curve)).slice(0, 12).map((curve, i) =>
        el("span", {}, key(this.color(curve, i), this.dash(curve)), this.name(curve),
          this.chart.kind === "buckets" && !known ? null : el("b", {}, this.text(this.valueOf(curve, known ? place : null))))),
    ]);
  }

  key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (step === undefined || !this.uplot) return;
    event.preventDefault();
    const last = this.uplot.data[0].length - 1;
    const from = this.place === undefined ? (step < 0 ? last + 1 : -1) : this.place;
    this.place = Math.min(last, Math.max(0, from + step));
    this.uplot.setCursor({ left: this.uplot.valToPos(this.uplot.data[0][this.place], "x"), top: 20 });
    this.read(this.place);
    this.plot.setAttribute("aria-label", this.readout.textContent);
  }

  summary(curves) {
    const parts = curves.map((curve) => {
      const known = curve.y.filter((value) => value !== null);
      const name = this.name(curve);
      return known.length
        ? `${name ? name + ": " : ""}first ${this.text(known[0])}, last ${this.text(known[known.length - 1])}, ` +
          `from ${this.text(Math.min(...known))} to ${this.text(Math.max(...known))}`
        : "";
    });
    return `${this.chart.title} (${this.chart.unit}). ${parts.filter(Boolean).join(". ")}. ` +
      "Left and right arrows read single values; the numbers are in a table below.";
  }

  fillDetails() {
    if (!this.details.open || this.details.children.length > 1) return;
    const curves = this.chart.curves;
    const xs = [...new Set(curves.flatMap((curve) => curve.x))].sort((a, b) => a - b);
    const most = 200, every = Math.ceil(xs.length / most), kept = xs.filter((_, i) => i % every === 0 || i === xs.length - 1);
    const found = curves.map((curve) => new Map(curve.x.map((x, i) => [x, i])));
    const cell = (curve, i) => {
      if (i === undefined) return "";
      const interval = curve.low && curve.low[i] !== null ? ` (${this.text(curve.low[i])} to ${this.text(curve.high[i])})` : "";
      return this.text(curve.y[i]) + interval;
    };
    append(this.details, [
      el("p", {}, this.chart.about, this.chart.healthy ? ` Healthy: ${this.chart.healthy}.` : ""),
      table(
        [{ title: this.chart.kind === "buckets" ? "lag" : "step" }, ...curves.map((curve) => ({ title: this.name(curve) || this.chart.title, number: true }))],
        kept.map((x) => [this.chart.kind === "buckets" ? this.chart.ticks[x] : count(x), ...curves.map((curve, i) => cell(curve, found[i].get(x)))]),
        `${this.chart.title}, ${this.chart.unit}${every > 1 ? `; every ${every}th of ${count(xs.length)} points` : ""}`,
        "tall"),
    ]);
  }
}

// Points with a mark: all of a short curve, else those that no line reaches.
function marked(values, all) {
  const there = (value) => value !== null && value !== undefined;
  const known = values.map((value, i) => (there(value) ? i : -1)).filter((i) => i >= 0);
  return all ? known : known.filter((i, n) => {
    const gap = (from, to) => values.slice(from + 1, to).includes(null);
    return (n === 0 || gap(known[n - 1], i)) && (n === known.length - 1 || gap(i, known[n + 1]));
  });
}

function key(color, dash) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg"), line = document.createElementNS(space, "line");
  for (const [name, value] of Object.entries({ class: "key", viewBox: "0 0 18 8", "aria-hidden": "true" })) svg.setAttribute(name, value);
  for (const [name, value] of Object.entries({ x1: 0, x2: 18, y1: 4, y2: 4, stroke: color, "stroke-width": 2.5, "stroke-dasharray": dash.join(" ") })) line.setAttribute(name, value);
  svg.append(line);
  return svg;
}

const nearby = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    nearby.unobserve(target);
    target.view.draw();
  }
}, { rootMargin: "900px 0px" });

const resized = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const { view } = target;
    if (view.uplot && target.clientWidth > 0 && view.uplot.width !== target.clientWidth) {
      view.uplot.setSize({ width: target.clientWidth, height: 190 });
    }
  }
});

function chartFigure(chart, sources, alarms) {
  const view = new ChartView(chart, sources, alarms || []);
  view.plot.view = view;
  nearby.observe(view.plot);
  resized.observe(view.plot);
  return view.figure;
}

function redrawCharts() {
  for (const view of charts) if (view.drawn) view.draw();
}

function dropCharts() {
  for (const view of charts) {
    if (view.uplot) view.uplot.destroy();
    nearby.unobserve(view.plot);
    resized.unobserve(view.plot);
  }
  charts.clear();
}
