// The page: reads /stream, shows what it says, and changes backends by the admin API. All text from outside goes through
// textContent. No library, nothing kept but the rows of 15 minutes.
"use strict";

const ROWS_MAX = 900;
const EVENTS_MAX = 200;
const GOOD = ["up"];
const WARN = ["ramping", "draining", "disabled", "maintenance"];

const $ = (id) => document.getElementById(id);
const rows = [];
const events = [];
const states = new Map();
let token = sessionStorage.getItem("weir-token") || "";
let nextRow = 0, nextEvent = 0;

const headers = (more) => Object.assign(token ? { Authorization: `Bearer ${token}` } : {}, more);

// ---- numbers and times

const number = (value, digits = 0) => value.toLocaleString("en", { maximumFractionDigits: digits });
function micros(us) {
  if (!us) return "–";
  if (us < 1000) return `${us} µs`;
  if (us < 1e6) return `${number(us / 1e3, us < 1e4 ? 2 : 1)} ms`;
  return `${number(us / 1e6, 2)} s`;
}
const clock = (ms) => new Date(ms).toLocaleTimeString("en-GB");
function age(iso) {
  const seconds = Math.max(0, (Date.now() - Date.parse(iso)) / 1000);
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

// ---- elements

function element(name, text, attributes) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  return made;
}
function svg(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// ---- the charts

const perSecond = (row, key) => row[key] * 1000 / row.ms;

// Seconds on the axis: what there is, two minutes at least.
const shown = () => Math.min(ROWS_MAX, Math.max(120, rows.length));

function chart(id, lines, show, label) {
  const [width, height, left, top, bottom] = [600, 150, 52, 8, 18];
  const root = $(id);
  const most = Math.max(...lines.flatMap((line) => line.values), 0) || 1;
  const span = shown();
  const x = (index) => left + (width - left) * (index + span - rows.length) / (span - 1);
  const y = (value) => height - bottom - (height - bottom - top) * value / most;
  const parts = [svg("path", { class: "axis", d: `M${left} ${top}V${height - bottom}H${width}` })];
  for (const part of [0.5, 1]) {
    parts.push(svg("text", { x: left - 6, y: y(most * part) + 4, "text-anchor": "end" }, show(most * part)));
  }
  const before = (rows) => rows < 120 ? `−${rows} s` : `−${number(rows / 60, 1)} min`;
  for (const [part, text, anchor] of [[0, before(span), "start"], [0.5, before(span / 2), "middle"], [1, "now", "end"]]) {
    parts.push(svg("text", { x: left + (width - left) * part, y: height - 4, "text-anchor": anchor }, text));
  }
  for (const line of lines) {
    const d = line.values.map((value, index) => `${index ? "L" : "M"}${x(index).toFixed(1)} ${y(value).toFixed(1)}`);
    if (d.length > 1) parts.push(svg("path", { class: line.class, d: d.join("") }));
  }
  root.replaceChildren(...parts);
  root.setAttribute("aria-label", label);
}

function heat() {
  const canvas = $("heat");
  const context = canvas.getContext("2d");
  const style = getComputedStyle(document.documentElement);
  const ink = style.getPropertyValue("--heat").trim();
  const cells = rows.length ? rows[rows.length - 1].heat.length : 22;
  const [width, height] = [canvas.width, canvas.height];
  const cell = height / cells;
  context.clearRect(0, 0, width, height);
  let most = 1;
  for (const row of rows) for (const count of row.heat) most = Math.max(most, count);
  const step = width / shown();
  rows.forEach((row, index) => {
    const x = width - (rows.length - index) * step;
    row.heat.forEach((count, at) => {
      if (!count) return;
      context.fillStyle = `rgba(${ink}, ${0.15 + 0.85 * Math.log1p(count) / Math.log1p(most)})`;
      context.fillRect(x, height - (at + 1) * cell, Math.ceil(step), cell);
    });
  });
  context.fillStyle = style.getPropertyValue("--muted");
  context.font = "11px system-ui, sans-serif";
  for (const at of [4, 8, 12, 16, 20]) {
    if (at < cells) context.fillText(`${micros(64 * 2 ** (at - 1))}`, 2, height - at * cell + 4);
  }
  const last = rows[rows.length - 1];
  if (!last) return;
  const total = last.heat.reduce((sum, count) => sum + count, 0);
  const busiest = last.heat.indexOf(Math.max(...last.heat));
  const range = busiest ? `${micros(64 * 2 ** (busiest - 1))} to ${micros(64 * 2 ** busiest)}` : "less than 64 µs";
  canvas.setAttribute("aria-label", total
    ? `Heat map. In the last second ${number(total)} answers, most of them took ${range}, the slowest ${micros(last.max)}.`
    : "Heat map. No answers in the last second.");
}

// ---- the parts of the page

function showNow(message) {
  const last = rows[rows.length - 1];
  $("version").textContent = message.version;
  $("about").textContent = `${message.strategy}, up ${age(new Date(Date.now() - message.uptime_ms).toISOString())}, ${message.status}`;
  $("total").textContent = number(message.requests);
  $("connections").textContent = number(message.connections);
  if (!last) return;
  $("rate").textContent = number(perSecond(last, "requests"), 1);
  $("errors").textContent = number(perSecond(last, "errors"), 1);
  for (const key of ["p50", "p99", "p999"]) $(key).textContent = micros(last[key]);
}

function tone(state) {
  return GOOD.includes(state) ? "good" : WARN.includes(state) ? "warn" : "bad";
}

function showBackends(list) {
  const changed = [];
  const made = list.map(({ view, ...figures }) => {
    const row = element("tr", undefined, { "data-backend": view.name, class: tone(view.state) });
    const name = element("th", view.name, { scope: "row" });
    name.append(element("small", view.url));
    const state = element("td");
    state.append(element("span", view.state, { class: `state ${tone(view.state)}` }));
    const cells = [
      name, state, element("td", `${view.why || "–"}, ${age(view.since)}`),
      ...[
        number(view.in_flight), `${number(figures.share * 100, 1)} %`, number(figures.rate, 1),
        micros(Math.round(figures.p50_ns / 1000)), micros(Math.round(figures.p99_ns / 1000)),
      ].map((text) => element("td", text, { class: "number" })),
      element("td", view.breaker.state.toLowerCase()),
      element("td", number(figures.requests), { class: "number requests" }),
      element("td", number(figures.failures), { class: "number" }),
    ];
    const out = ["draining", "maintenance"].includes(view.state);
    const button = element("button", out ? "Ready" : "Drain", {
      type: "button", "aria-label": `${out ? "Ready" : "Drain"} ${view.name}`, "data-action": out ? "ready" : "drain",
    });
    button.addEventListener("click", () => ask(view, out ? "ready" : "drain"));
    const service = element("td");
    service.append(button);
    row.append(...cells, service);
    if (states.has(view.name) && states.get(view.name) !== view.state) changed.push(`${view.name} is ${view.state}`);
    states.set(view.name, view.state);
    return row;
  });
  // A button that has the focus keeps it: rows are made anew each second.
  const focused = document.activeElement && document.activeElement.closest && document.activeElement.closest("tr[data-backend]");
  const kept = focused && focused.dataset.backend;
  $("backends").replaceChildren(...made);
  if (kept) {
    const row = made.find((row) => row.dataset.backend === kept);
    if (row) row.querySelector("button").focus({ preventScroll: true });
  }
  if (changed.length) $("changes").textContent = changed.join(", ");
}

function showWorkers() {
  const last = rows[rows.length - 1];
  if (!last) return;
  $("workers").replaceChildren(...last.connections.map((open, worker) => {
    const row = element("tr");
    row.append(
      element("th", worker, { scope: "row" }),
      element("td", `${last.busy[worker] ?? 0} %`, { class: "number" }),
      element("td", number((last.by_worker[worker] ?? 0) * 1000 / last.ms, 1), { class: "number" }),
      element("td", number(open), { class: "number" }),
    );
    return row;
  }));
}

function showEvents() {
  $("events").replaceChildren(...events.slice(-EVENTS_MAX).reverse().map((event) => {
    const item = element("li", undefined, { class: event.tone });
    item.append(
      element("time", clock(event.at), { datetime: new Date(event.at).toISOString() }),
      element("span", event.backend ? `${event.backend}: ${event.text}` : event.text),
    );
    return item;
  }));
}

function show(message) {
  rows.push(...message.rows);
  rows.splice(0, Math.max(0, rows.length - ROWS_MAX));
  events.push(...message.events);
  events.splice(0, Math.max(0, events.length - EVENTS_MAX));
  if (message.rows.length) nextRow = message.rows[message.rows.length - 1].number + 1;
  if (message.events.length) nextEvent = message.events[message.events.length - 1].number;
  showNow(message);
  showBackends(message.backends);
  showWorkers();
  if (message.events.length) showEvents();
  const last = rows[rows.length - 1];
  const rates = { class: "a", values: rows.map((row) => perSecond(row, "requests")) };
  const errors = { class: "b", values: rows.map((row) => perSecond(row, "errors")) };
  chart("chart-rate", [rates, errors], (value) => number(value, value < 10 ? 1 : 0), last
    ? `Line chart. Now ${number(perSecond(last, "requests"), 1)} requests and ${number(perSecond(last, "errors"), 1)} errors a second.`
    : "Line chart without values yet.");
  const latency = [["p50", "a"], ["p99", "c"], ["p999", "b"]].map(([key, style]) => ({ class: style, values: rows.map((row) => row[key]) }));
  chart("chart-latency", latency, micros, last
    ? `Line chart. Now p50 ${micros(last.p50)}, p99 ${micros(last.p99)}, p99.9 ${micros(last.p999)}.`
    : "Line chart without values yet.");
  heat();
}

// ---- changes

async function ask(view, action) {
  const dialog = $("confirm");
  $("confirm-title").textContent = action === "drain" ? `Drain ${view.name}?` : `Put ${view.name} back?`;
  $("confirm-text").textContent = action === "drain"
    ? "New work goes to the other backends; what is under way is finished, and clients that stick to it stay."
    : "It takes its share of new work again.";
  dialog.returnValue = "";
  $("confirm-yes").onclick = () => dialog.close("yes");
  $("confirm-no").onclick = () => dialog.close("no");
  dialog.onclose = () => { if (dialog.returnValue === "yes") change(view, action); };
  dialog.showModal();
}

async function change(view, action) {
  const path = `/v1/pools/${encodeURIComponent(view.pool)}/backends/${encodeURIComponent(view.name)}/${action}`;
  try {
    const answer = await fetch(path, { method: "POST", headers: headers({ "Content-Type": "application/json" }), body: "{}" });
    if (!answer.ok) throw new Error((await answer.json()).error || answer.status);
    $("changes").textContent = `${view.name}: ${action} was accepted`;
  } catch (error) {
    $("changes").textContent = `${view.name}: ${action} failed: ${error.message}`;
    status("lost", `${action} of ${view.name} failed: ${error.message}`);
  }
}

// ---- the stream

function status(kind, text) {
  const badge = $("link");
  if (badge.textContent !== text) badge.textContent = text;
  badge.className = `badge ${kind}`;
}

async function read() {
  const answer = await fetch(`/stream?after=${nextRow}&event=${nextEvent}`, { headers: headers() });
  if (answer.status === 401) {
    $("ask").hidden = false;
    status("lost", "a token is needed");
    return;
  }
  if (!answer.ok) throw new Error(`the server says ${answer.status}`);
  $("ask").hidden = true;
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
      const data = text.slice(0, end).split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6)).join("\n");
      text = text.slice(end + 2);
      if (data) {
        show(JSON.parse(data));
        status("live", "live");
      }
    }
  }
}

async function follow() {
  for (;;) {
    try {
      await read();
    } catch {
      status("lost", "connection lost, trying again");
    }
    await new Promise((resolve) => setTimeout(resolve, $("ask").hidden ? 500 : 3_600_000));
  }
}

$("use-token").addEventListener("click", () => {
  token = $("token").value.trim();
  sessionStorage.setItem("weir-token", token);
  location.reload();
});
follow();
