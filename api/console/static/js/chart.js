// A line chart with its numbers as a table: uPlot draws, in the page's colours, as wide as there is room.

import uPlot from "../vendor/uplot/uPlot.esm.js";
import { element } from "./page.js";

const HEIGHT_PX = 200;
const MIN_SPAN_S = 120; // uPlot would show a year around a single sample
const ROWS = 60; // of the table, the latest
// What an axis of whole numbers, and one of seconds, may count by: no two of its ticks then read the same.
export const WHOLE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6];
export const SECONDS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200, 86400, 172800];
// Lines differ by their dashes too, for those who do not see colours.
const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3], [4, 2]];
const dark = matchMedia("(prefers-color-scheme: dark)");

// `lines` are [{ key, label, show(value) }]; `x` is { label, time } or { label, show(value) }; `steps` is what the ticks
// of the other axis may be apart, by default anything.
export class Chart {
  constructor(place, { title, lines, x, min_top = 1, steps }) {
    Object.assign(this, { lines, x, min_top, steps, columns: null, plot: null });
    this.drawing = element("div", { role: "img", "aria-label": title });
    this.table = element("table", {}, element("caption", { className: "unseen" }, title));
    this.details = element("details", {},
      element("summary", {}, "As a table"),
      element("div", { className: "scroll tall", tabIndex: 0, role: "region", "aria-label": title }, this.table));
    this.details.addEventListener("toggle", () => this.fillTable());
    place.append(element("figure", { className: "card chart" },
      element("figcaption", {}, title), this.drawing, this.details));
    new ResizeObserver(() => this.fit()).observe(this.drawing);
    dark.addEventListener("change", () => this.draw());
    this.title = title;
  }

  // `columns.x` rises; every line has its column by its key, with null where there is nothing.
  set(columns) {
    this.columns = columns;
    if (this.plot) this.plot.setData(this.data());
    else this.draw();
    this.drawing.setAttribute("aria-label", `${this.title}. ${this.latest()}`);
    this.fillTable();
  }

  data() {
    return [this.columns.x, ...this.lines.map((line) => this.columns[line.key])];
  }

  latest() {
    if (!this.columns.x.length) return "Nothing yet.";
    return this.lines.map((line) => `${line.label}: ${this.say(line, this.last(line))}`).join(", ");
  }

  // Of a line that has a value now and then, the last one that it has.
  last(line) {
    const column = this.columns[line.key];
    return line.spanGaps ? column.findLast((value) => value !== null) : column.at(-1);
  }

  say(line, value) {
    return value === null || value === undefined ? "–" : line.show(value);
  }

  sayX(value) {
    if (value === undefined) return "–";
    if (!this.x.time) return this.x.show(value);
    return new Date(value * 1000).toLocaleString("en-GB", { dateStyle: "short", timeStyle: "medium" });
  }

  fit() {
    const width = this.drawing.clientWidth;
    if (this.plot && width && width !== this.plot.width) this.plot.setSize({ width, height: HEIGHT_PX });
    else if (!this.plot && this.columns) this.draw();
  }

  draw() {
    this.plot?.destroy();
    this.plot = null;
    const width = this.drawing.clientWidth;
    if (!width || !this.columns) return;
    if (!this.columns.x.length) {
      this.drawing.replaceChildren(element("p", { className: "quiet" }, this.latest()));
      return;
    }
    this.drawing.replaceChildren();
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const axis = {
      stroke: colour("--quiet"),
      font: "12px system-ui, sans-serif",
      grid: { stroke: colour("--line"), width: 1 },
      ticks: { stroke: colour("--line"), width: 1 },
    };
    this.plot = new uPlot({
      width,
      height: HEIGHT_PX,
      padding: [8, 26, 0, 0],
      scales: { x: this.spread(), y: { range: (_, low, high) => this.span(low, high) } },
      axes: [{ ...axis, space: 80, values: (_, ticks) => this.ticks(ticks) },
        { ...axis, size: 72, incrs: this.steps, values: (_, ticks) => ticks.map((tick) => this.say(this.lines[0], tick)) }],
      series: [
        // Without a pointer over the chart, the legend shows the latest values.
        { label: this.x.label, value: (_, value) => this.sayX(value ?? this.columns.x.at(-1)) },
        ...this.lines.map((line, number) => ({
          label: line.label,
          stroke: colour(`--curve-${number + 1}`),
          width: 2,
          dash: DASHES[number % DASHES.length],
          spanGaps: Boolean(line.spanGaps),
          // A single sample makes no line.
          points: { show: line.points ? true : (plot) => plot.data[0].length === 1, size: 7, fill: colour(`--curve-${number + 1}`) },
          value: (_, value, __, index) => this.say(line, index === null ? this.last(line) : value),
        })),
      ],
      legend: { live: true },
      cursor: { drag: { x: true, y: false } },
    }, this.data(), this.drawing);
  }

  // The day once, where it begins.
  ticks(ticks) {
    if (!this.x.time) return ticks.map((tick) => `${Number(tick.toFixed(2))}`);
    const [day, time] = [{ day: "numeric", month: "short" }, { hour: "2-digit", minute: "2-digit" }];
    if (ticks[1] - ticks[0] < 60) time.second = "2-digit";
    return ticks.map((tick, number) => {
      const [now, before] = [new Date(tick * 1000), new Date((ticks[number - 1] ?? 0) * 1000)];
      const clock = now.toLocaleTimeString("en-GB", time);
      return now.toDateString() === before.toDateString() ? clock : `${clock}\n${now.toLocaleDateString("en-GB", day)}`;
    });
  }

  spread() {
    if (!this.x.time) return { time: false };
    return { time: true, range: ({ data: [times] }, first, last) => {
      const end = times.length === 1 ? times[0] : last; // uPlot shows years around a single one
      return [Math.min(first, end - MIN_SPAN_S), end];
    } };
  }

  span(low, high) {
    return [Math.min(0, low ?? 0), Math.max(this.min_top, (high ?? 0) * 1.06)];
  }

  // Only while the table is open: rebuilding it costs more than drawing.
  fillTable() {
    if (!this.details.open || !this.columns) return;
    const { x } = this.columns;
    const head = element("tr", {}, ...[this.x, ...this.lines].map(({ label }) => element("th", { scope: "col" }, label)));
    const rows = [];
    for (let row = x.length - 1; row >= Math.max(0, x.length - ROWS); row -= 1) {
      rows.push(element("tr", {}, element("th", { scope: "row" }, this.sayX(x[row])),
        ...this.lines.map((line) => element("td", { className: "number" }, this.say(line, this.columns[line.key][row])))));
    }
    this.table.replaceChildren(this.table.caption, element("thead", {}, head), element("tbody", {}, ...rows));
  }
}
