"use strict";
// Draws the episode that stands in #data. Texts only ever become text nodes, so that no name can be read as markup.
(() => {
const data = JSON.parse(document.getElementById("data").textContent);
const TABS = ["network", "prices", "trades", "batteries", "money"];
const PARTS = ["energy", "loss", "reactive", "voltage", "congestion"];
const STEP_MS = 800, MOST_TRADES = 12;
const now = { t: 0, tab: "network", bus: data.microgrids[0].bus, whose: -1, timer: 0 };
const n = data.hours.length, agents = data.microgrids.map((_, i) => i);
const byId = (id) => document.getElementById(id);
const sum = (values) => values.reduce((a, b) => a + b, 0);
const across = (rows, i) => rows.map((row) => row[i]);

// --- numbers and elements ---------------------------------------------------------------------------------------------

function num(value, digits = 1) {
  const text = value.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "\u2212");
}
const kw = (power) => num(power, Math.abs(power) < 99.95 ? 1 : 0) + " kW";
const nameOf = (i) => `microgrid ${i} (bus ${data.buses[data.microgrids[i].bus]})`;
const colourOf = (i) => `var(--m${i % 8})`;
const dashOf = (i) => (i < 8 ? "" : "5 3");

/** A colour between variables: share 0 is the first, 1 the last. */
function ramp(share, names) {
  const at = Math.min(Math.max(share, 0), 1) * (names.length - 1), k = Math.min(Math.floor(at), names.length - 2);
  return `color-mix(in oklab, var(--${names[k + 1]}) ${((at - k) * 100).toFixed(0)}%, var(--${names[k]}))`;
}
const LOADING = ["l0", "l1", "l2"], VOLTAGE = ["v0", "v1", "v2", "v3", "v4"];
const [vLow, vHigh] = data.voltageLimits;
const vHalf = 1.2 * Math.max(Math.abs(vLow - 1), Math.abs(vHigh - 1));
const voltageShare = (v) => (v - 1 + vHalf) / (2 * vHalf);

/** An SVG element: attributes, then children; a string child becomes its hover title, but the text of a text. */
function svg(tag, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  for (const child of children) {
    if (typeof child !== "string") made.append(child);
    else if (tag === "text" || tag === "title") made.textContent = child;
    else made.append(svg("title", {}, child));
  }
  return made;
}
function html(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}
const path = (points) => points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");

/** A table whose rows begin with their names; isAlarm(row, column) marks what must not be overlooked. */
function table(caption, head, rows, isAlarm = () => false) {
  const cells = rows.map((row, i) => html("tr", {}, html("th", { scope: "row" }, row[0]),
    ...row.slice(1).map((text, k) => html("td", isAlarm(i, k) ? { class: "alarm" } : {}, text))));
  const heads = head.map((text) => html("th", { scope: "col" }, text));
  return html("table", {}, html("caption", {}, caption), html("thead", {}, html("tr", {}, ...heads)),
    html("tbody", {}, ...cells));
}

/** Room for a figure: a legible one even in a window that is none yet. */
const widthOf = (box) => Math.max(box.clientWidth, 280);

// --- the feeder -------------------------------------------------------------------------------------------------------

function drawMap(box) {
  const t = now.t, deepest = Math.max(...data.x, 1), tall = data.tall;
  const width = Math.max(widthOf(box), 110 + 30 * deepest);
  const gap = (width - 48 - 56) / deepest;
  const x = data.x.map((depth) => 48 + depth * gap), y = data.y.map((level) => tall - 34 - level * (tall - 78));
  const parts = { lines: svg("g", {}), trades: svg("g", {}), buses: svg("g", {}), marks: svg("g", {}) };
  const isMarked = new Set([0, ...data.generators, ...data.microgrids.map((m) => m.bus)]);

  const most = Math.max(...data.flow[t].map(Math.abs), 1e-9);
  const order = data.buses.map((_, j) => j).slice(1).sort((a, b) => data.loading[t][a] - data.loading[t][b]);
  for (const j of order) {
    const p = data.parent[j], flow = data.flow[t][j], wide = 1.4 + 5.5 * Math.abs(flow) / most;
    const [from, to] = flow >= 0 ? [p, j] : [j, p];
    const told = `line ${data.buses[p]} to ${data.buses[j]}\n${kw(Math.abs(flow))} from ${data.buses[from]} to ` +
      `${data.buses[to]}\nloading ${num(100 * data.loading[t][j])} % of rating`;
    const stroke = ramp(data.loading[t][j], LOADING), d = path([[x[p], y[p]], [x[p], y[j]], [x[j], y[j]]]);
    parts.lines.append(svg("path", { d, fill: "none", style: `stroke:${stroke};stroke-width:${wide.toFixed(2)}`,
      "stroke-linejoin": "round", "stroke-linecap": "round" }));
    if (Math.abs(flow) > 0.01 * most) {
      const size = (wide + 5) / 2, at = (x[j] + x[p]) / 2, way = flow > 0 ? 1 : -1;
      const head = path([[at - way * size, y[j] - size], [at + way * size, y[j]], [at - way * size, y[j] + size]]) + "Z";
      const dark = `color-mix(in oklab, ${stroke} 60%, var(--ink))`;
      parts.lines.append(svg("path", { d: head, style: `fill:${dark};stroke:var(--paper);stroke-width:0.7` }));
    }
    if (data.loading[t][j] > 1.0001)
      parts.lines.append(svg("path", { d, fill: "none", class: "alarm", "stroke-dasharray": "4 3" }));
    parts.lines.append(svg("path", { d, fill: "none", stroke: "transparent", "stroke-width": 11 }, told));
  }
  drawTrades(parts.trades, x, y, tall);

  const small = Math.max(2.6, Math.min(5, 165 / data.buses.length));
  for (const [j, name] of data.buses.entries()) {
    const v = data.voltage[t][j], fill = ramp(voltageShare(v), VOLTAGE), radius = isMarked.has(j) ? 11 : small;
    const shed = data.shed[t][j] > 0.05 ? `, ${kw(data.shed[t][j])} shed` : "";
    const who = data.microgrids.findIndex((m) => m.bus === j);
    const told = `${j ? "bus" : "substation, bus"} ${name}${who < 0 ? "" : `, microgrid ${who}`}\n` +
      `${num(v, 4)} p.u.\n${num(data.price[t][j], 4)} currency/kWh\nload ${kw(data.load[t][j])}${shed}`;
    const bus = svg("g", { class: "bus" }, told);
    if (data.beyond[t].includes(j))
      bus.append(svg("circle", { cx: x[j], cy: y[j], r: radius + 3.5, fill: "none", class: "alarm" }));
    const style = `fill:${fill};stroke:var(--ink);stroke-width:${isMarked.has(j) ? 1.4 : 0.8}`;
    const generates = data.generators.includes(j);
    if (j === 0) bus.append(svg("rect", { x: x[j] - 9, y: y[j] - 9, width: 18, height: 18, style }));
    else if (generates && who < 0)
      bus.append(svg("path", { d: `M${x[j]} ${y[j] - 10}l10 17h-20Z`, style }));
    else bus.append(svg("circle", { cx: x[j], cy: y[j], r: radius, style }));
    if (generates && who >= 0) bus.append(svg("path", { d: `M${x[j] - 17} ${y[j] - 7}l7 12h-14Z`, style }));
    bus.addEventListener("click", () => choose({ bus: j, tab: "prices" }));
    parts.buses.append(bus);
    if (who >= 0) drawMicrogrid(parts.marks, who, x[j], y[j], v);
    else if (gap >= 30 && data.buses.length <= 40 && j && !generates) {
      const below = data.parent.some((p, k) => k && p === j && data.y[k] > data.y[j]);
      parts.marks.append(svg("text", { x: x[j], y: y[j] + (below ? 17 : -9), class: "pale halo middle" }, name));
    }
  }
  const source = (j, text, isAbove) => parts.marks.append(
    svg("text", { x: x[j], y: y[j] + (isAbove ? -20 : 24), class: "halo middle" }, text));
  source(0, "substation", true);
  source(0, kw(data.substation[t]), false);
  data.generators.forEach((j, k) => source(j, `DSO ${kw(data.generation[t][k])}`, isAgent(j) || gap < 45));
  box.replaceChildren(svg("svg", { width, height: tall, viewBox: `0 0 ${width} ${tall}`, role: "img",
    "aria-label": `Map of the feeder, ${sentence()}` }, parts.lines, parts.trades, parts.buses, parts.marks));
}
const isAgent = (j) => data.microgrids.some((m) => m.bus === j);

function drawTrades(group, x, y, tall) {
  const largest = [...data.trades[now.t]].sort((a, b) => b[2] - a[2]).slice(0, MOST_TRADES);
  for (const [seller, buyer, power] of largest) {
    const a = data.microgrids[seller].bus, b = data.microgrids[buyer].bus;
    const dx = x[b] - x[a], dy = y[b] - y[a];
    const control = (bend) => [(x[a] + x[b]) / 2 - bend * dy, (y[a] + y[b]) / 2 + bend * dx];
    const clearance = (bend) => { // mean distance from buses and their labels, where the arc stays on the map
      const [cx, cy] = control(bend);
      let total = 0;
      for (let k = 1; k < 20; k += 1) {
        const s = k / 20, at = (from, middle, to) => (1 - s) ** 2 * from + 2 * s * (1 - s) * middle + s ** 2 * to;
        const px = at(x[a], cx, x[b]), py = at(y[a], cy, y[b]);
        const near = Math.min(30, ...x.map((bx, j) => Math.hypot(bx - px, y[j] - py)));
        total += near - 40 * Math.max(0, 8 - py, py - tall + 8);
      }
      return total;
    };
    const bend = [0.18, -0.18, 0.3, -0.3, 0.1, -0.1, 0.42, -0.42].reduce((best, other) =>
      (clearance(other) > clearance(best) + 1e-9 ? other : best));
    const [cx, cy] = control(bend), away = (fx, fy, j, room) => {
      const d = Math.hypot(fx - x[j], fy - y[j]) || 1;
      return `${(x[j] + (fx - x[j]) / d * room).toFixed(1)} ${(y[j] + (fy - y[j]) / d * room).toFixed(1)}`;
    };
    group.append(svg("path", { d: `M${away(cx, cy, a, 13)}Q${cx.toFixed(1)} ${cy.toFixed(1)} ${away(cx, cy, b, 14)}`,
      fill: "none", "marker-end": "url(#head)", "stroke-opacity": 0.85,
      style: `stroke:var(--trade);stroke-width:${(1 + 2.6 * power / largest[0][2]).toFixed(2)}` },
      `contract: ${nameOf(seller)} sells ${kw(power)} to ${nameOf(buyer)}`));
  }
}

function drawMicrogrid(group, i, x, y, v) {
  const t = now.t, proposed = data.proposed[t][i], accepted = data.accepted[t][i];
  const tallest = Math.max(...data.proposed.flat().map(Math.abs), ...data.accepted.flat().map(Math.abs), 1e-9);
  const white = Math.abs(voltageShare(v) - 0.5) > 0.3;
  group.append(svg("text", { x, y: y + 4, "text-anchor": "middle", "pointer-events": "none",
    style: `font-weight:700;fill:${white ? "#fff" : "#16191c"}` }, String(i)));
  const beside = Math.min(proposed, accepted) < 0 ? { x: x + 12, "text-anchor": "end" } : { x, "text-anchor": "middle" };
  group.append(svg("text", { ...beside, y: y + 25, class: "halo" }, num(data.price[t][data.microgrids[i].bus], 3)));
  const bar = (from, to, fill) => svg("rect", { x: x + 14, width: 7, y: y - Math.max(from, to) * 26 / tallest,
    height: Math.max(Math.abs(to - from) * 26 / tallest, 0.01), style: `fill:${fill}` });
  const told = `${nameOf(i)}\nproposed ${kw(proposed)}, accepted ${kw(accepted)}` +
    (data.isCurtailed[t][i] ? `\ncurtailed by ${kw(Math.abs(proposed - accepted))}` : "");
  const bars = svg("g", {}, told, bar(0, accepted, "var(--solid)"));
  if (data.isCurtailed[t][i]) bars.append(bar(accepted, proposed, "url(#cut)"));
  bars.append(svg("path", { d: `M${x + 12} ${y}h11`, style: "stroke:var(--ink)" }));
  group.append(bars);
}

function drawKey(box) {
  const mark = (...children) => svg("svg", { width: 20, height: 16, "aria-hidden": "true" }, ...children);
  const bar = (fill) => svg("rect", { x: 6, y: 1, width: 8, height: 14, style: `fill:${fill}` });
  const style = "fill:var(--v2);stroke:var(--ink)";
  const colours = (what, names, low, high) => {
    const style = `background:linear-gradient(to right in oklab,${names.map((name) => `var(--${name})`)})`;
    return [html("span", {}, `${what} ${low}`), html("span", { class: "ramp", style }), high];
  };
  const entries = [
    [mark(svg("rect", { x: 4, y: 2, width: 12, height: 12, style })), "substation"],
    [mark(svg("path", { d: "M10 2l7 12h-14Z", style })), "generator of the DSO"],
    [mark(svg("circle", { cx: 10, cy: 8, r: 7, style })), "microgrid, beneath it the nodal price in currency/kWh"],
    [mark(bar("var(--solid)")), "accepted, up injected, down drawn"],
    [mark(bar("url(#cut)")), "curtailed"],
    [mark(svg("path", { d: "M1 8h17", "marker-end": "url(#head)", style: "stroke:var(--trade);stroke-width:2" })),
      `contract, seller to buyer (the largest ${MOST_TRADES})`],
    [mark(svg("path", { d: "M1 8h18", style: "stroke:var(--l1);stroke-width:4" })), "line, width by active power"],
    [mark(svg("circle", { cx: 10, cy: 8, r: 6, fill: "none", class: "alarm" })), "voltage beyond limits"],
    colours("loading", LOADING, "0", "100 % of rating"),
    colours("voltage", VOLTAGE, num(1 - vHalf, 2), `${num(1 + vHalf, 2)} p.u.`),
  ];
  box.replaceChildren(...entries.map((parts) => html("li", {}, ...parts)));
}

// --- diagrams over the day --------------------------------------------------------------------------------------------

function ticks(low, high, room) {
  const raw = (high - low) / Math.max(2, Math.floor(room / 32)), power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((k) => k * power).find((k) => k >= raw * 0.999);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9) + (step / power === 2.5 ? 1 : 0));
  const values = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k += 1) values.push(k * step);
  return { values, digits };
}

/**
 * A diagram over the intervals of the day, as a figure.
 * series: {name, colour, values, kind, dash} with kind "stack" (bars), "bar" (from `base` to values), "step", "line" (at
 * boundaries), "dot" or "tick"; hover texts say `told` where it is given. levels: {value, name}, lines across.
 */
function chart({ title, unit, width, height = 270, digits = 2, series, levels = [], legend = true }) {
  const left = 52, right = 8, top = 8, bottom = 34;
  const wide = width - left - right, tall = height - top - bottom;
  const stacks = series.filter((s) => s.kind === "stack");
  const up = Array(n).fill(0), down = Array(n).fill(0), bars = [];
  for (const s of stacks)
    s.values.forEach((value, t) => {
      const base = value >= 0 ? up : down;
      bars.push([s, t, base[t], base[t] + value]);
      base[t] += value;
    });
  for (const s of series.filter((s) => s.kind === "bar"))
    s.values.forEach((value, t) => bars.push([s, t, s.base[t], value]));
  const shown = [...up, ...down, ...bars.flatMap((bar) => [bar[2], bar[3]]), ...levels.map((l) => l.value),
    ...series.filter((s) => s.kind !== "stack" && s.kind !== "bar").flatMap((s) => s.values)];
  let low = Math.min(...shown), high = Math.max(...shown);
  const span = Math.max(high - low, 1e-3);
  [low, high] = [low < 0 ? low - 0.05 * span : low, high > 0 ? high + 0.05 * span : high];
  if (high - low < 1e-3) high = low + 1e-3;
  const atX = (boundary) => left + wide * boundary / n, atY = (value) => top + tall * (high - value) / (high - low);

  const drawn = svg("svg", { width, height, role: "img", "aria-label": `${title}, in ${unit}, over the day` });
  drawn.append(svg("rect", { x: atX(now.t), y: top, width: wide / n, height: tall, style: "fill:var(--now)" }));
  const marks = ticks(low, high, tall);
  for (const value of marks.values) {
    const style = `stroke:var(--${Math.abs(value) < 1e-9 ? "ink" : "rule"})`;
    drawn.append(svg("path", { d: `M${left} ${atY(value)}h${wide}`, style }));
    drawn.append(svg("text", { x: left - 5, y: atY(value) + 4, "text-anchor": "end" }, num(value, marks.digits)));
  }
  const dayHours = n * data.stepHours;
  const every = [0.25, 0.5, 1, 2, 3, 6, 12, 24].find((hours) => wide * hours / dayHours >= 26) || 24;
  for (let hour = 0; hour <= dayHours + 1e-9; hour += every) {
    const x = atX(hour / data.stepHours);
    drawn.append(svg("path", { d: `M${x} ${top + tall}v4`, style: "stroke:var(--pale)" }));
    drawn.append(svg("text", { x, y: top + tall + 16, class: "middle" }, String(hour)));
  }
  drawn.append(svg("text", { x: left + wide, y: height - 4, "text-anchor": "end", class: "pale" }, "hour of the day"));
  drawn.append(svg("text", { x: left, y: height - 4, class: "pale" }, unit));
  for (const level of levels)
    drawn.append(svg("path", { d: `M${left} ${atY(level.value)}h${wide}`, "stroke-dasharray": "3 3",
      style: "stroke:var(--pale)" }, level.name));
  for (const [s, t, from, to] of bars)
    if (Math.abs(to - from) > 1e-12)
      drawn.append(svg("rect", { x: atX(t) + 0.12 * wide / n, width: 0.76 * wide / n, y: atY(Math.max(from, to)),
        height: Math.abs(atY(from) - atY(to)), style: `fill:${s.colour}` }));
  for (const s of series) drawSeries(drawn, s, atX, atY, wide / n);
  for (let t = 0; t < n; t += 1) {
    const valueOf = (s) => (s.told ? s.told[t] : s.values[s.kind === "line" ? t + 1 : t]);
    const told = series.map((s) => `${s.name}: ${num(valueOf(s), digits)}`);
    const hit = svg("rect", { x: atX(t), y: top, width: wide / n, height: tall, class: "hit" },
      `${data.hours[t]}, ${unit}\n${told.join("\n")}`);
    hit.addEventListener("click", () => choose({ t }));
    drawn.append(hit);
  }
  const caption = html("figcaption", {}, title), key = html("ul", { class: "key" });
  key.append(...entriesOf(series));
  return html("figure", {}, caption, ...(legend ? [key] : []), drawn);
}

function drawSeries(drawn, s, atX, atY, wide) {
  const line = { fill: "none", style: `stroke:${s.colour};stroke-width:2`, "stroke-dasharray": s.dash || "none" };
  const middle = (t) => atX(t + 0.5);
  if (s.kind === "step")
    drawn.append(svg("path", { d: path(s.values.flatMap((v, t) => [[atX(t), atY(v)], [atX(t + 1), atY(v)]])), ...line }));
  if (s.kind === "line") drawn.append(svg("path", { d: path(s.values.map((v, k) => [atX(k), atY(v)])), ...line }));
  if (s.kind === "dot")
    s.values.forEach((v, t) => drawn.append(svg("circle", { cx: middle(t), cy: atY(v), r: 3.2,
      style: "fill:var(--paper);stroke:var(--ink);stroke-width:1.3" })));
  if (s.kind === "tick")
    s.values.forEach((v, t) => drawn.append(svg("path", { d: `M${middle(t) - 0.46 * wide} ${atY(v)}h${0.92 * wide}`,
      style: `stroke:${s.colour};stroke-width:2.6` })));
}

const entriesOf = (series) => series.map((s) => html("li", {}, swatch(s), s.name));

function swatch(s) {
  const box = svg("svg", { width: 20, height: 12, "aria-hidden": "true" });
  const stroke = { style: `stroke:${s.colour};stroke-width:2.4`, "stroke-dasharray": s.dash || "none" };
  if (s.kind === "dot") drawSeries(box, { ...s, values: [6] }, () => 10, (v) => v, 20);
  else if (s.kind === "stack" || s.kind === "bar")
    box.append(svg("rect", { x: 3, y: 1, width: 14, height: 10, style: `fill:${s.colour}` }));
  else box.append(svg("path", { d: "M1 6h18", ...stroke }));
  return box;
}

// --- panels -----------------------------------------------------------------------------------------------------------

const panels = {
  network() {
    drawMap(byId("map"));
    drawKey(byId("map-key"));
    const t = now.t;
    const head = ["microgrid", "PV", "diesel", "battery", "load", "contract", "proposed", "accepted", "curtailed"];
    const told = ["pv", "diesel", "battery", "consumption", "contract", "proposed", "accepted"];
    const rows = agents.map((i) => [nameOf(i), ...told.map((what) => num(data[what][t][i])),
      num(Math.abs(data.proposed[t][i] - data.accepted[t][i])), num(data.price[t][data.microgrids[i].bus], 4)]);
    const isCut = (i, k) => k === told.length && data.isCurtailed[t][i];
    byId("network-table").replaceChildren(
      table(`Microgrids, ${data.hours[t]}; power in kW`, [...head, "price, currency/kWh"], rows, isCut));
  },
  prices() {
    const bus = now.bus, t = now.t;
    byId("bus").value = String(bus);
    const lmp = { name: "LMP", colour: "var(--ink)", values: data.lmp, kind: "step", dash: "5 3" };
    const price = { name: "price", values: across(data.price, bus), kind: "dot" };
    const parts = PARTS.map((part) => (
      { name: part, colour: `var(--${part})`, values: across(data.parts[part], bus), kind: "stack" }));
    const own = agents.map((i) => ({ name: nameOf(i), colour: colourOf(i), dash: dashOf(i), kind: "step",
      values: across(data.price, data.microgrids[i].bus) }));
    const look = { unit: "currency/kWh", digits: 4 };
    fill("price-parts", { ...look, title: `Nodal price at bus ${data.buses[bus]}, by cause`, series: [...parts, lmp, price] });
    fill("price-microgrids", { ...look, title: "Nodal price at the microgrids", series: [...own, lmp] });
    const rows = agents.map((i) => {
      const at = data.microgrids[i].bus, agreed = data.contract[t][i] ? num(data.contractPrice[t][i], 4) : "\u2013";
      return [nameOf(i), ...PARTS.map((part) => num(data.parts[part][t][at], 4)), num(data.price[t][at], 4), agreed];
    });
    byId("price-table").replaceChildren(table(`Prices, ${data.hours[t]}, in currency/kWh; LMP ${num(data.lmp[t], 4)}`,
      ["microgrid", ...PARTS, "price", "of the contract"], rows));
  },
  trades() {
    const looks = [{ name: "accepted", colour: "var(--solid)", kind: "stack" },
      { name: "curtailed", colour: "url(#cut)", kind: "bar" }, { name: "contract", colour: "var(--trade)", kind: "tick" }];
    byId("injection-key").replaceChildren(...entriesOf(looks));
    fillGrid("injections", (i, width) => {
      const accepted = across(data.accepted, i), cut = across(data.isCurtailed, i);
      const proposed = across(data.proposed, i).map((p, t) => (cut[t] ? p : accepted[t]));
      const told = proposed.map((p, t) => Math.abs(p - accepted[t]));
      const drawn = [{ values: accepted }, { values: proposed, base: accepted, told }, { values: across(data.contract, i) }];
      return [chart({ title: nameOf(i), unit: "kW, below zero drawn", width, height: 170, digits: 1, legend: false,
        series: looks.map((look, k) => ({ ...look, ...drawn[k] })) })];
    });
    const sold = (hours) => {
      const total = agents.map(() => agents.map(() => 0));
      hours.forEach((pairs) => pairs.forEach(([a, b, power]) => { total[a][b] += power; }));
      return total;
    };
    const matrix = (caption, total, scale) => table(caption, ["seller", ...agents.map((b) => `to ${b}`)],
      total.map((row, a) => [nameOf(a), ...row.map((power) => (power ? num(power * scale) : "\u2013"))]));
    byId("pairs-now").replaceChildren(matrix(`Contracts, ${data.hours[now.t]}, in kW`, sold([data.trades[now.t]]), 1));
    byId("pairs-day").replaceChildren(matrix("Contracts of the whole day, in kWh", sold(data.trades), data.stepHours));
  },
  batteries() {
    fillGrid("stored", (i, width) => {
      const m = data.microgrids[i], own = { width, digits: 1, legend: false };
      const levels = [{ value: m.minKwh, name: `least: ${num(m.minKwh)} kWh` },
        { value: m.maxKwh, name: `most: ${num(m.maxKwh)} kWh` }];
      const stored = { name: "stored at the end", colour: "var(--deviation)", values: across(data.stored, i), kind: "line" };
      const power = { name: "battery", colour: "var(--solid)", values: across(data.battery, i), kind: "stack" };
      return [
        chart({ ...own, title: `${nameOf(i)}: energy stored`, unit: "kWh, dashed the limits", height: 160, levels,
          series: [stored] }),
        chart({ ...own, title: `microgrid ${i}: battery power`, unit: "kW, positive discharged", height: 140,
          series: [power] })];
    });
    const t = now.t, rows = agents.map((i) => {
      const m = data.microgrids[i], end = data.stored[t + 1][i], usable = m.maxKwh - m.minKwh;
      return [nameOf(i), num(data.battery[t][i]), num(data.stored[t][i]), num(end),
        usable > 0 ? num(100 * (end - m.minKwh) / usable, 0) : "\u2013"];
    });
    byId("battery-table").replaceChildren(table(`Batteries, ${data.hours[t]}`, ["microgrid", "power, kW",
      "stored at the start, kWh", "at the end, kWh", "share of the usable energy at the end, %"], rows));
  },
  money() {
    const t = now.t, parts = Object.keys(data.money).filter((part) => data.money[part].flat().some((v) => v));
    const label = (part) => part.replace("_", " ");
    const sofar = (rows, i, from = 0) => {
      let total = 0;
      return [0, ...rows.map((row) => (total += i < 0 ? sum(row) : row[i]))].slice(from);
    };
    const own = agents.map((i) => (
      { name: nameOf(i), colour: colourOf(i), dash: dashOf(i), values: sofar(data.gain, i), kind: "line" }));
    fill("gain", { title: "Gain since midnight, by microgrid", unit: "currency", series: own });
    const who = now.whose < 0 ? "all microgrids together" : nameOf(now.whose);
    const stacked = parts.map((part) => (
      { name: label(part), colour: `var(--${part})`, values: sofar(data.money[part], now.whose, 1), kind: "stack" }));
    const gain = { name: "gain", values: sofar(data.gain, now.whose, 1), kind: "dot" };
    fill("gain-parts", { title: `Gain since midnight by part, ${who}`, series: [...stacked, gain],
      unit: "currency, costs and payments below zero" });
    const figures = [...parts.map((part) => data.money[part]), data.gain];
    const of = (perInterval) => num(sum(perInterval.slice(0, t + 1)), 2);
    byId("money-table").replaceChildren(table(`From midnight to ${data.hours[t].split(" ").pop()}, in currency; ` +
      `welfare ${of(data.welfare)}, kept by the DSO ${of(data.dsoResult)}`, ["microgrid", ...parts.map(label), "gain"],
      agents.map((i) => [nameOf(i), ...figures.map((rows) => num(sofar(rows, i)[t + 1], 2))])));
  },
};

const fill = (id, about) => byId(id).replaceChildren(chart({ ...about, width: widthOf(byId(id)) }));

/** Draw something for every microgrid, side by side: draw(i, width) gives its elements. */
function fillGrid(id, draw) {
  const gap = 26, room = widthOf(byId(id)), most = Math.max(1, Math.floor((room + gap) / (330 + gap)));
  const columns = Math.ceil(agents.length / Math.ceil(agents.length / most));
  byId(id).style.gridTemplateColumns = `repeat(${columns}, minmax(0, 1fr))`;
  byId(id).replaceChildren(...agents.map((i) => html("div", {}, ...draw(i, (room - gap * (columns - 1)) / columns))));
}

// --- what the user does -----------------------------------------------------------------------------------------------

function sentence() {
  const t = now.t, voltage = data.voltage[t].slice(1), cut = agents.filter((i) => data.isCurtailed[t][i]).length;
  const most = 100 * Math.max(...data.loading[t]), traded = sum(data.trades[t].map((pair) => pair[2]));
  return `${data.hours[t]}: LMP ${num(data.lmp[t], 3)} per kWh, traded ${kw(traded)}, ` +
    `${cut ? `${cut} of ${agents.length} microgrids curtailed` : "nobody curtailed"}, ` +
    `voltages ${num(Math.min(...voltage), 3)} to ${num(Math.max(...voltage), 3)} p.u., ` +
    `most loaded line ${num(most, 0)} %, losses ${kw(data.losses[t])}`;
}

function show() {
  const t = now.t;
  byId("time").value = String(t);
  byId("time").setAttribute("aria-valuetext", data.hours[t]);
  byId("clock").textContent = data.hours[t];
  byId("now").replaceChildren(sentence() + ".");
  if (data.alarms[t]) byId("now").append(" ", html("span", { class: "alarm" }, data.alarms[t]));
  for (const tab of TABS) {
    byId(tab).hidden = tab !== now.tab;
    byId("tab-" + tab).setAttribute("aria-selected", String(tab === now.tab));
    byId("tab-" + tab).tabIndex = tab === now.tab ? 0 : -1;
  }
  panels[now.tab]();
}

function choose(what) {
  Object.assign(now, what);
  now.t = Math.min(Math.max(now.t, 0), n - 1);
  show();
}

function play(starts) {
  clearInterval(now.timer);
  now.timer = starts ? setInterval(() => (now.t < n - 1 ? choose({ t: now.t + 1 }) : play(false)), STEP_MS) : 0;
  byId("now").setAttribute("aria-live", starts ? "off" : "polite");
  byId("play").textContent = starts ? "Pause" : "Play";
  byId("play").setAttribute("aria-pressed", String(starts));
  if (starts && now.t === n - 1) choose({ t: 0 });
}

byId("time").max = String(n - 1);
byId("time").addEventListener("input", (event) => choose({ t: Number(event.target.value) }));
byId("back").addEventListener("click", () => choose({ t: now.t - 1 }));
byId("on").addEventListener("click", () => choose({ t: now.t + 1 }));
byId("play").addEventListener("click", () => play(!now.timer));
data.buses.forEach((name, j) => {
  const who = data.microgrids.findIndex((m) => m.bus === j);
  byId("bus").append(html("option", { value: String(j) }, who < 0 ? name : `${name} (microgrid ${who})`));
});
byId("bus").addEventListener("change", (event) => choose({ bus: Number(event.target.value) }));
byId("whose").append(html("option", { value: "-1" }, "all microgrids"),
  ...agents.map((i) => html("option", { value: String(i) }, nameOf(i))));
byId("whose").addEventListener("change", (event) => choose({ whose: Number(event.target.value) }));
for (const tab of TABS) byId("tab-" + tab).addEventListener("click", () => choose({ tab }));
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select, input")) return;
  const inTabs = event.target.matches("[role=tab]"), step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (step && inTabs) {
    choose({ tab: TABS[(TABS.indexOf(now.tab) + step + TABS.length) % TABS.length] });
    byId("tab-" + now.tab).focus();
  } else if (step) choose({ t: now.t + step });
  else if (event.key === "Home") choose({ t: 0 });
  else if (event.key === "End") choose({ t: n - 1 });
  else if (event.key === " " && !event.target.matches("button")) play(!now.timer);
  else if (TABS[Number(event.key) - 1]) choose({ tab: TABS[Number(event.key) - 1] });
  else return;
  event.preventDefault();
});
addEventListener("resize", show);
// On paper every panel is shown, so every panel is drawn.
addEventListener("beforeprint", () => {
  document.querySelector("main").style.width = "690px";
  TABS.forEach((tab) => { byId(tab).hidden = false; });
  TABS.forEach((tab) => panels[tab]());
});
addEventListener("afterprint", () => { document.querySelector("main").style.width = ""; show(); });
show();
})();
