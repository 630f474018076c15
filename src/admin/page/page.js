// The page: reads /stream, shows what it says, and changes backends by the admin API. Whatever comes from outside becomes
// text by textContent and nothing else. Nothing is kept but the rows of 15 minutes, the events, and the token for the tab.
"use strict";

const ROWS_MAX = 900;
const EVENTS_MAX = 300;
// Seconds that the charts show at least, so that a young weir does not fill them with a few points.
const SPAN_MIN = 60;
// Milliseconds without a message after which the page says so.
const STALE = 3500;
const GOOD = ["up"];
const WARN = ["ramping", "draining", "disabled", "maintenance"];
const OUT = ["draining", "maintenance"];

const $ = (id) => document.getElementById(id);
const rows = [];
const events = [];
// By name: the elements of a backend's row.
const shown = new Map();
let latest = null;
let run = 0, nextRow = 0, nextEvent = 0;
let heard = 0;
// The number of the row that the reader points at; none: the newest.
let pointed = null;

// ---- numbers and times

const number = (value, digits = 0) => value.toLocaleString("en", { maximumFractionDigits: digits });
const rate = (value) => number(value, value < 100 ? 1 : 0);
function micros(us) {
  if (!us) return "–";
  if (us < 1000) return `${Math.round(us)} µs`;
  const [value, unit] = us < 1e6 ? [us / 1e3, "ms"] : [us / 1e6, "s"];
  return `${number(value, value < 10 ? 2 : value < 100 ? 1 : 0)} ${unit}`;
}
const clock = (ms) => new Date(ms).toLocaleTimeString("en-GB");
function span(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}
const age = (iso) => span(Math.max(0, (Date.now() - Date.parse(iso)) / 1000));
const perSecond = (row, key) => row[key] * 1000 / row.ms;
const sum = (values) => values.reduce((all, value) => all + value, 0);

// ---- elements

// Sets a text only if it is another one: what does not change is not announced, and a selection in it stays.
function write(element, text) {
  if (element.textContent !== String(text)) element.textContent = text;
}
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}
function svg(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}
const chosen = (name) => document.querySelector(`input[name=${name}]:checked`).value;

// ---- what the charts share: the rows that are shown, and where a second lies

function view() {
  const seconds = Math.min(Number(chosen("span")), Math.max(SPAN_MIN, rows.length));
  return { seconds, rows: rows.slice(-seconds) };
}
const LEFT = 58, TOP = 8, BOTTOM = 18, RIGHT = 6;
// The newest row is at the right edge whatever is missing at the left.
function place(width, seconds, count) {
  const step = (width - LEFT - RIGHT) / Math.max(1, seconds - 1);
  return (index) => width - RIGHT - (count - 1 - index) * step;
}
function times(width, height, seconds) {
  const label = (ago) => ago < 120 ? `−${Math.round(ago)} s` : `−${number(ago / 60, 1)} min`;
  return [[0, label(seconds), "start"], [0.5, label(seconds / 2), "middle"], [1, "now", "end"]].map(([part, text, anchor]) =>
    svg("text", { x: LEFT + (width - LEFT - RIGHT) * part, y: height - 4, "text-anchor": anchor }, text));
}
// 1, 2 or 5 times a power of ten, not below `value`.
function round(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((times) => times * power).find((step) => step >= value * 0.9999);
}
function linear(most) {
  const top = round(Math.max(most, 1));
  return { at: (value) => value / top, ticks: [0, top / 2, top], show: rate };
}
// From a power of ten to a power of ten, in µs.
function logarithmic(values) {
  const found = values.filter((value) => value > 0);
  const low = Math.floor(Math.log10(Math.min(...found, 1e3)));
  const high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(...found, 1e3))));
  const ticks = Array.from({ length: high - low + 1 }, (_, at) => 10 ** (low + at));
  return { at: (value) => (Math.log10(value) - low) / (high - low), ticks, show: micros };
}

function chart(id, lines, scale, label) {
  const root = $(id);
  const { seconds, rows: visible } = view();
  const width = Math.max(200, root.clientWidth), height = Math.max(80, root.clientHeight);
  const x = place(width, seconds, visible.length);
  const y = (value) => height - BOTTOM - (height - BOTTOM - TOP) * scale.at(value);
  const parts = [];
  for (const tick of scale.ticks) {
    parts.push(svg("path", { class: "axis", d: `M${LEFT} ${y(tick).toFixed(1)}H${width - RIGHT}` }));
    parts.push(svg("text", { x: LEFT - 6, y: y(tick) + 4, "text-anchor": "end" }, scale.show(tick)));
  }
  parts.push(...times(width, height, seconds));
  for (const line of lines) {
    // A second without an answer is a gap.
    let drawn = false;
    const d = visible.map((row, index) => {
      const value = line.of(row);
      if (value === null) { drawn = false; return ""; }
      const to = `${drawn ? "L" : "M"}${x(index).toFixed(1)} ${y(value).toFixed(1)}`;
      const alone = !drawn && (index + 1 === visible.length || line.of(visible[index + 1]) === null);
      drawn = true;
      return alone ? `${to}h1` : to;
    });
    parts.push(svg("path", { class: line.class, d: d.join("") }));
  }
  const at = visible.findIndex((row) => row.number === pointed);
  if (at >= 0) parts.push(svg("path", { class: "at", d: `M${x(at).toFixed(1)} ${TOP}V${height - BOTTOM}` }));
  root.setAttribute("viewBox", `0 0 ${width} ${height}`);
  root.replaceChildren(...parts);
  root.setAttribute("aria-label", label);
}

function charts() {
  const { rows: visible } = view();
  const last = rows[rows.length - 1];
  const most = Math.max(0, ...visible.map((row) => Math.max(perSecond(row, "requests"), perSecond(row, "errors"))));
  chart("chart-rate", [
    { class: "a", of: (row) => perSecond(row, "requests") },
    { class: "b", of: (row) => perSecond(row, "errors") },
  ], linear(most), last
    ? `Line chart. Now ${rate(perSecond(last, "requests"))} requests and ${rate(perSecond(last, "errors"))} errors a second, at most ${rate(most)}.`
    : "Line chart without values yet.");
  const keys = [["p50", "a"], ["p99", "c"], ["p999", "b"]];
  const values = visible.flatMap((row) => keys.map(([key]) => row[key]));
  chart("chart-latency", keys.map(([key, style]) => ({ class: style, of: (row) => row[key] || null })), logarithmic(values), last
    ? `Line chart. Now p50 ${micros(last.p50)}, p99 ${micros(last.p99)}, p99.9 ${micros(last.p999)}; p99.9 at most ${micros(Math.max(0, ...visible.map((row) => row.p999)))}.`
    : "Line chart without values yet.");
  heat();
  readout();
  if ($("as-table").open) distribution();
}

// ---- the heat map: rows have pairs of a bucket's number and its count, four buckets a power of two (see metrics/history.rs)

const lowest = (bucket) => bucket < 4 ? bucket : (4 + bucket % 4) * 2 ** (Math.floor(bucket / 4) - 1);
function bucketOf(us) {
  if (us < 4) return us;
  const halvings = Math.floor(Math.log2(us)) - 2;
  return 4 * halvings + us / 2 ** halvings;
}

function heat() {
  const canvas = $("heat");
  const context = canvas.getContext("2d");
  const style = getComputedStyle(document.documentElement);
  const { seconds, rows: visible } = view();
  const dense = window.devicePixelRatio || 1;
  const [width, height] = [Math.max(200, canvas.clientWidth), Math.max(80, canvas.clientHeight)];
  [canvas.width, canvas.height] = [width * dense, height * dense];
  context.scale(dense, dense);
  const buckets = visible.flatMap((row) => row.heat.map(([bucket]) => bucket));
  // One more on either side, and never a few cells blown up to the whole height.
  const low = Math.max(0, Math.min(...buckets, 36) - 1);
  const high = Math.max(Math.max(...buckets, 0) + 2, low + 16);
  const y = (bucket) => height - BOTTOM - (height - BOTTOM - TOP) * (bucket - low) / (high - low);
  const cells = new Map();
  const x = place(width, seconds, visible.length);
  const step = (width - LEFT - RIGHT) / seconds;
  // A second's column ends where the next one begins; seconds that share a column of pixels are added up.
  const pixel = (at) => Math.round(at * dense);
  visible.forEach((row, index) => {
    const right = pixel(width - RIGHT - (visible.length - 1 - index) * step);
    const left = Math.min(right - 1, pixel(width - RIGHT - (visible.length - index) * step));
    for (const [bucket, count] of row.heat) {
      const key = `${left} ${bucket}`;
      const cell = cells.get(key) || { left, wide: right - left, bucket, count: 0 };
      cell.count += count;
      cells.set(key, cell);
    }
  });
  const most = Math.max(1, ...[...cells.values()].map((cell) => cell.count));
  context.fillStyle = style.getPropertyValue("--water");
  for (const { left, wide, bucket, count } of cells.values()) {
    const [above, below] = [pixel(y(bucket + 1)), pixel(y(bucket))];
    context.globalAlpha = 0.12 + 0.88 * Math.log1p(count) / Math.log1p(most);
    context.fillRect(left / dense, above / dense, wide / dense, (below - above) / dense);
  }
  context.globalAlpha = 1;
  labels(context, style, width, height, seconds, low, high, y);
  const at = visible.findIndex((row) => row.number === pointed);
  if (at >= 0) {
    context.fillStyle = style.getPropertyValue("--edge");
    context.fillRect(x(at), TOP, 1, height - BOTTOM - TOP);
  }
  write($("heat-key"), buckets.length ? `the darkest: ${number(most)} answers` : "");
  canvas.setAttribute("aria-label", heatInWords());
}

function labels(context, style, width, height, seconds, low, high, y) {
  context.font = "11px system-ui, sans-serif";
  context.textAlign = "right";
  for (let power = 0; power <= 9; power += 1) {
    const bucket = bucketOf(10 ** power);
    if (bucket < low || bucket > high) continue;
    context.fillStyle = style.getPropertyValue("--line");
    context.fillRect(LEFT, y(bucket), width - LEFT - RIGHT, 1);
    context.fillStyle = style.getPropertyValue("--muted");
    context.fillText(micros(10 ** power), LEFT - 6, y(bucket) + 4);
  }
  context.fillStyle = style.getPropertyValue("--muted");
  for (const text of times(width, height, seconds)) {
    context.textAlign = { start: "left", middle: "center", end: "right" }[text.getAttribute("text-anchor")];
    context.fillText(text.textContent, Number(text.getAttribute("x")), height - 4);
  }
}

function heatInWords() {
  const last = rows[rows.length - 1];
  const answers = last ? sum(last.heat.map(([, count]) => count)) : 0;
  if (!answers) return "Heat map. No answers in the last second.";
  const [bucket] = last.heat.reduce((most, pair) => pair[1] > most[1] ? pair : most);
  return `Heat map. In the last second ${number(answers)} answers, most of them within ${micros(lowest(bucket))} to ${micros(lowest(bucket + 1))}, `
    + `the slowest ${micros(last.max)}. There is a table of it below.`;
}

// By powers of two: what the heat map has, added up over all seconds that are shown.
function distribution() {
  const counts = new Map();
  const { rows: visible } = view();
  for (const row of visible) {
    for (const [bucket, count] of row.heat) {
      const key = Math.floor(bucket / 4);
      counts.set(key, (counts.get(key) || 0) + count);
    }
  }
  const all = sum([...counts.values()]);
  let below = 0;
  const made = [...counts.keys()].sort((a, b) => a - b).map((key) => {
    const count = counts.get(key);
    below += count;
    const text = `${key ? micros(lowest(4 * key)) : "0 µs"} to ${micros(lowest(4 * key + 4))}`;
    const row = element("tr", {}, element("th", { scope: "row" }, text));
    for (const value of [number(count), `${number(100 * count / all, 2)} %`, `${number(100 * below / all, 2)} %`]) {
      row.append(element("td", { class: "number" }, value));
    }
    return row;
  });
  write($("as-table-caption"), `${number(all)} answers of ${visible.length} seconds`);
  $("distribution").replaceChildren(...made);
}

// ---- one second, by pointer or slider

function readout() {
  const { rows: visible } = view();
  const slider = $("second");
  const at = visible.findIndex((row) => row.number === pointed);
  slider.max = Math.max(0, visible.length - 1);
  slider.value = at < 0 ? slider.max : at;
  const row = visible[at];
  if (!row) {
    slider.setAttribute("aria-valuetext", "the newest");
    return;
  }
  const long = row.ms > 1500 ? ` (${number(row.ms / 1000, 1)} s long)` : "";
  const text = `${clock(row.at)}${long}: ${rate(perSecond(row, "requests"))} requests/s, ${rate(perSecond(row, "errors"))} errors/s, `
    + `p50 ${micros(row.p50)}, p90 ${micros(row.p90)}, p99 ${micros(row.p99)}, p99.9 ${micros(row.p999)}, slowest ${micros(row.max)}`;
  write($("readout"), text);
  slider.setAttribute("aria-valuetext", text);
}

function point(event) {
  const { seconds, rows: visible } = view();
  const box = event.currentTarget.getBoundingClientRect();
  const step = (box.width - LEFT - RIGHT) / Math.max(1, seconds - 1);
  const back = Math.round((box.width - RIGHT - (event.clientX - box.left)) / step);
  const row = visible[visible.length - 1 - back];
  pointed = row ? row.number : null;
  charts();
}

// ---- the parts of the page

function showNow(message) {
  write($("version"), message.version);
  write($("about"), `${message.strategy}, up ${span(message.uptime_ms / 1000)}, ${message.status}`);
  write($("total"), number(message.requests));
  write($("connections"), number(message.connections));
  const [p50, , p99, p999] = message.recent;
  for (const [key, ns] of [["p50", p50], ["p99", p99], ["p999", p999]]) write($(key), micros(ns / 1000));
  const last = rows[rows.length - 1];
  if (!last) return;
  write($("rate"), rate(perSecond(last, "requests")));
  write($("errors"), rate(perSecond(last, "errors")));
  write($("failures"), rate(perSecond(last, "failures")));
}

const tone = (state) => GOOD.includes(state) ? "good" : WARN.includes(state) ? "warn" : "bad";

// A backend's row. It is made once and then written to, so that a press of its button is not lost between two seconds.
function rowOf(name) {
  const cell = (label, style) => element("td", { role: "cell", class: style, "data-label": label });
  const part = {
    name: element("span"), url: element("small"), state: element("span"), why: element("span"), since: element("small"),
    inFlight: cell("In flight", "number"), share: cell("Share", "number"), rate: cell("Rate", "number"),
    p50: cell("p50", "number p50"), p99: cell("p99", "number p99"), breaker: cell("Breaker", ""),
    requests: cell("Requests", "number requests"), failures: cell("No answer", "number"),
    button: element("button", { type: "button" }), view: null,
  };
  part.button.addEventListener("click", () => ask(part.view, part.button.dataset.action));
  const service = element("td", { role: "cell", class: "service" }, part.button);
  part.row = element("tr", { role: "row", "data-backend": name },
    element("th", { role: "rowheader", scope: "row" }, part.name, part.url),
    element("td", { role: "cell" }, part.state), element("td", { role: "cell", class: "why" }, part.why, " ", part.since),
    part.inFlight, part.share, part.rate, part.p50, part.p99, part.breaker, part.requests, part.failures, service);
  return part;
}

function showBackends(list) {
  const changed = [];
  const window = chosen("window");
  for (const { view, ...figures } of list) {
    const known = shown.get(view.name);
    const part = known || rowOf(view.name);
    shown.set(view.name, part);
    if (known && known.view.state !== view.state) changed.push(`${view.name} is ${view.state}: ${view.why}`);
    part.view = view;
    part.row.className = tone(view.state);
    part.state.className = `state ${tone(view.state)}`;
    const [p50, p99] = window === "ever" ? [figures.p50_ever_ns, figures.p99_ever_ns] : [figures.p50_ns, figures.p99_ns];
    for (const [key, text] of Object.entries({
      name: view.name, url: view.url, state: view.state, why: view.why || "–", since: `for ${age(view.since)}`,
      inFlight: number(view.in_flight), share: `${number(figures.share * 100, 1)} %`, rate: `${rate(figures.rate)}/s`,
      p50: micros(p50 / 1000), p99: micros(p99 / 1000), breaker: view.breaker.state.toLowerCase(),
      requests: number(figures.requests), failures: number(figures.failures),
    })) write(part[key], text);
    const action = OUT.includes(view.state) ? "ready" : "drain";
    part.button.dataset.action = action;
    write(part.button, action === "ready" ? "Ready" : "Drain");
    part.button.setAttribute("aria-label", `${action === "ready" ? "Ready" : "Drain"} ${view.name}`);
  }
  const names = list.map(({ view }) => view.name);
  for (const [name, part] of shown) {
    if (!names.includes(name)) {
      part.row.remove();
      shown.delete(name);
      changed.push(`${name} is gone`);
    }
  }
  const body = $("backends");
  names.forEach((name, at) => {
    const { row } = shown.get(name);
    if (body.children[at] !== row) body.insertBefore(row, body.children[at] || null);
  });
  if (changed.length) write($("changes"), changed.join("; "));
}

function showWorkers() {
  const minute = rows.slice(-60);
  const last = minute[minute.length - 1];
  if (!last) return;
  const of = (worker) => sum(minute.map((row) => row.by_worker[worker] || 0));
  const all = sum(last.connections.map((_, worker) => of(worker)));
  const body = $("workers");
  while (body.children.length > last.connections.length) body.lastChild.remove();
  last.connections.forEach((open, worker) => {
    if (!body.children[worker]) {
      body.append(element("tr", {}, element("th", { scope: "row" }, String(worker)), element("td", { class: "number" }),
        element("td", { class: "number" }), element("td", { class: "number" }), element("td", {}, element("span", { class: "bar" }))));
    }
    const [, busy, connections, requests, share] = body.children[worker].children;
    const part = all ? `${number(100 * of(worker) / all, 1)}%` : "0%";
    write(busy, `${last.busy[worker] || 0} %`);
    write(connections, number(open));
    write(requests, rate((last.by_worker[worker] || 0) * 1000 / last.ms));
    write(share.firstChild, part.replace("%", " %"));
    share.firstChild.style.setProperty("--share", part);
  });
}

function showEvents(fresh) {
  const list = $("events");
  for (const event of fresh) {
    const item = element("li", { class: event.tone },
      element("time", { datetime: new Date(event.at).toISOString() }, clock(event.at)));
    if (event.backend) item.append(element("b", {}, event.backend), ": ");
    item.append(event.text);
    list.prepend(item);
  }
  while (list.children.length > EVENTS_MAX) list.lastChild.remove();
}

function show(message) {
  if (message.run !== run) {
    // Another weir than before: what it counts begins anew.
    run = message.run;
    rows.length = 0;
    events.length = 0;
    $("events").replaceChildren();
  }
  latest = message;
  heard = Date.now();
  rows.push(...message.rows);
  rows.splice(0, Math.max(0, rows.length - ROWS_MAX));
  if (message.rows.length) nextRow = message.rows[message.rows.length - 1].number + 1;
  if (message.events.length) nextEvent = message.events[message.events.length - 1].number;
  showNow(message);
  showBackends(message.backends);
  showWorkers();
  showEvents(message.events);
  charts();
}

// ---- changes

function ask(view, action) {
  const dialog = $("confirm");
  const drain = action === "drain";
  write($("confirm-title"), drain ? `Drain ${view.name}?` : `Put ${view.name} back?`);
  write($("confirm-text"), drain
    ? "New work goes to the other backends; what is under way is finished, and clients that stick to it stay."
    : "It takes its share of new work again.");
  write($("confirm-yes"), drain ? "Drain it" : "Put it back");
  dialog.returnValue = "";
  $("confirm-yes").onclick = () => dialog.close("yes");
  $("confirm-no").onclick = () => dialog.close("no");
  dialog.onclose = () => { if (dialog.returnValue === "yes") change(view, action); };
  dialog.showModal();
}

async function change(view, action) {
  const path = `/v1/pools/${encodeURIComponent(view.pool)}/backends/${encodeURIComponent(view.name)}/${action}`;
  try {
    const answer = await fetch(path, { method: "POST", headers: { ...credentials(), "Content-Type": "application/json" }, body: "{}" });
    if (!answer.ok) throw new Error((await answer.json()).error || `the answer was ${answer.status}`);
    write($("changes"), `${view.name}: ${action} was accepted`);
  } catch (error) {
    write($("changes"), `${view.name}: ${action} failed: ${error.message}`);
  }
}

// ---- the token

// A browser may refuse to store anything; then the token lasts as long as the page.
let token = "";
try { token = sessionStorage.getItem("weir-token") || ""; } catch { /* as without one */ }
const credentials = () => token ? { Authorization: `Bearer ${token}` } : {};

function askForToken() {
  $("ask").hidden = false;
  write($("ask-why"), token ? "That token was not taken." : "It is kept for this tab only.");
  status("lost", "a token is needed");
  $("token").focus();
  return new Promise((given) => {
    $("ask-form").onsubmit = (event) => {
      event.preventDefault();
      token = $("token").value.trim();
      $("token").value = "";
      try { sessionStorage.setItem("weir-token", token); } catch { /* it lasts as long as the page */ }
      $("ask").hidden = true;
      given();
    };
  });
}

// ---- the stream: by fetch, because an EventSource cannot send a token

function status(kind, text) {
  write($("link"), text);
  $("link").className = `badge ${kind}`;
}

// Reads until the stream ends. Gives whether anything came.
async function read() {
  const answer = await fetch(`/stream?run=${run}&after=${nextRow}&event=${nextEvent}`, { headers: credentials(), cache: "no-store" });
  if (answer.status === 401) {
    await askForToken();
    return true;
  }
  if (!answer.ok) throw new Error((await answer.json()).error || `the answer was ${answer.status}`);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  let any = false;
  for (;;) {
    const { value, done } = await reader.read().catch((error) => {
      // Cut off in the middle: what is missing comes with the next stream.
      if (any) return { done: true };
      throw error;
    });
    if (done) return any;
    text += value;
    for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
      const data = text.slice(0, end).split("\n").find((line) => line.startsWith("data: "));
      text = text.slice(end + 2);
      if (!data) continue;
      show(JSON.parse(data.slice(6)));
      status("live", "live");
      any = true;
    }
  }
}

async function follow() {
  for (let failed = 0; ; ) {
    let why = "the stream ended";
    try {
      failed = await read() ? 0 : failed + 1;
    } catch (error) {
      failed += 1;
      why = error.message;
    }
    if (failed) {
      status("lost", `no connection, trying again (${why})`);
      await new Promise((resolve) => setTimeout(resolve, Math.min(5000, 250 * 2 ** failed)));
    }
  }
}

// ---- the beginning

for (const id of ["chart-rate", "chart-latency", "heat"]) {
  $(id).addEventListener("pointermove", point);
  $(id).addEventListener("pointerleave", () => { pointed = null; charts(); });
}
$("second").addEventListener("input", (event) => {
  const { rows: visible } = view();
  const row = visible[Number(event.target.value)];
  pointed = row && Number(event.target.value) < visible.length - 1 ? row.number : null;
  charts();
});
$("as-table").addEventListener("toggle", charts);
for (const input of document.querySelectorAll("input[type=radio]")) {
  input.addEventListener("change", () => { if (latest) { showBackends(latest.backends); charts(); } });
}
window.addEventListener("resize", charts);
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", charts);
setInterval(() => {
  const silent = Date.now() - heard;
  if (heard && silent > STALE && $("link").classList.contains("live")) status("lost", `no news for ${span(silent / 1000)}`);
}, 1000);
follow();
