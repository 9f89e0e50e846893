"use strict";
// The page: its sections in reading order, the theme, and updates while a run goes on.

const TOPICS = ["learning", "completions", "off-policy data", "update", "by lag", "time"];

// A section of this id takes the place of an earlier one.
function section(id, title, lead, ...content) {
  const node = el("section", { id, "aria-labelledby": `${id}-title` },
    el("h2", { id: `${id}-title` }, title), lead ? el("p", { className: "lead" }, lead) : null, ...content);
  const before = byId(id);
  if (before) {
    before.replaceWith(node);
  } else {
    byId("main").append(node);
    byId("sections").append(el("li", {}, el("a", { href: `#${id}` }, title)));
  }
  return node;
}

// --- overview

function overview(data) {
  const node = el("div", { id: "overview" });
  if (byId("overview")) byId("overview").replaceWith(node);
  else byId("main").append(node);
  const single = data.sources.length === 1;
  append(node, [
    el("h1", {}, single ? data.sources[0].name : plural(data.sources.length, "run")),
    single ? about(data.sources[0]) : null,
    single ? null : el("ul", { className: "chips", "aria-label": "Runs" }, data.sources.map((source, i) => el("li", {}, sourceChip(source, i)))),
  ]);
  if (single && data.headlines[0].length) node.append(tiles(data.headlines[0]));
  if (!single) node.append(headlineTable(data));
}

function about(source) {
  const facts = [source.command, source.created_at && `begun ${source.created_at.replace("T", " ").replace("Z", " UTC")}`, source.run_id && `run ${source.run_id}`];
  return el("p", { className: "sub" }, facts[0] ? el("code", {}, facts[0]) : null, facts[0] ? " · " : "", facts.slice(1).filter(Boolean).join(" · "));
}

function sourceChip(source, place) {
  const box = el("input", { type: "checkbox", checked: !hiddenSources.has(place), onchange: () => {
    hiddenSources[box.checked ? "delete" : "add"](place);
    redrawCharts();
  } });
  return el("label", { className: "chip" }, box, key(colorOf(place), []), source.name);
}

function tiles(headlines) {
  return el("dl", { className: "numbers" }, headlines.map((each) =>
    el("div", {}, el("dt", {}, capital(each.label)),
      el("dd", { className: `value ${each.state === "bad" ? "bad-text" : ""}` }, each.value),
      el("dd", { className: "detail" }, each.detail))));
}

function headlineTable(data) {
  const labels = [...new Set(data.headlines.flat().map((each) => each.label))];
  const rows = data.sources.map((source, i) => {
    const found = new Map(data.headlines[i].map((each) => [each.label, each]));
    return [el("span", {}, key(colorOf(i), []), " ", source.name), ...labels.map((label) => {
      const each = found.get(label);
      return each ? el("span", { className: each.state === "bad" ? "bad-text" : null, title: each.detail }, each.value) : "–";
    })];
  });
  return el("div", { className: "tools" }, table([{ title: "run" }, ...labels.map((title) => ({ title, number: true }))], rows, "Headline numbers"));
}

// --- evaluations

function evaluations(data) {
  if (!data.evaluations.length) return;
  section("evaluations", "Evaluations", "Figures of recorded answers, with intervals clustered by question.", el("div", { className: "two" }, evaluationTables(data)));
}

// --- curves

function curves(data) {
  if (!data.charts.length) return;
  const alarms = data.sources.flatMap((source, i) => source.alarms.map((alarm) => ({ ...alarm, source: i })));
  const node = section("curves", "Curves", "Over the steps, counted from 1. Dotted lines are the ends of a healthy range, red ticks are alarms. " +
    "Drag across a chart to zoom, double-click to see all of it.");
  for (const topic of TOPICS) {
    const shown = data.charts.filter((chart) => chart.topic === topic);
    if (!shown.length) continue;
    append(node, [el("h3", {}, capital(topic)), el("div", { className: "charts" }, shown.map((chart) => chartFigure(chart, data.sources, alarms)))]);
    if (topic === "learning" && alarms.length) node.append(alarmTable(data, alarms));
  }
}

function alarmTable(data, alarms) {
  const columns = [{ title: "step", number: true }, { title: "run" }, { title: "alarm" }, { title: "value", number: true }, { title: "threshold", number: true }, { title: "consequence" }];
  const rows = alarms.map((alarm) => [count(alarm.step), data.sources[alarm.source].name, alarm.alarm, alarm.value === null ? "infinite" : number(alarm.value, 4), number(alarm.threshold), alarm.consequence]);
  return el("details", { className: "alarms", open: alarms.length <= 12 }, el("summary", {}, plural(alarms.length, "alarm")), table(columns, rows, "Alarms", "tall"));
}

// --- configuration

function configuration(data) {
  const { sources, rows } = data.settings;
  if (!rows.length) return;
  const several = sources.length > 1, different = rows.filter((row) => row.differs).length;
  const body = el("div", {});
  const search = el("input", { type: "search", placeholder: "e.g. lr", oninput: fill });
  const only = el("input", { type: "checkbox", checked: several && different > 0, onchange: fill });
  function fill() {
    const wanted = search.value.trim().toLowerCase();
    const shown = rows.filter((row) => (!only.checked || row.differs) && (!wanted || `${row.key} ${row.values.join(" ")}`.toLowerCase().includes(wanted)));
    const cells = shown.map((row) => {
      const line = [el("code", {}, row.key), ...row.values.map((value) => el("code", {}, value === null ? "–" : value))];
      line.className = several && row.differs ? "differs" : null;
      return line;
    });
    clear(body).append(table([{ title: "setting" }, ...sources.map((title) => ({ title: several ? title : "value", text: true }))], cells, `${count(shown.length)} of ${plural(rows.length, "setting")}`, "tall"));
  }
  fill();
  section("configuration", "Configuration", several ? `The resolved settings of each run; ${different ? `they differ in ${count(different)}` : "they are equal"}.` : "The resolved settings of the run.",
    el("div", { className: "tools" }, el("label", {}, "Search", search),
      several ? el("label", { className: "check" }, only, "Differences only") : null), body);
}

// --- theme

const dark = matchMedia("(prefers-color-scheme: dark)");
let theme = "auto";

function applyTheme() {
  document.documentElement.dataset.theme = theme === "auto" ? (dark.matches ? "dark" : "light") : theme;
  byId("theme").textContent = `Theme: ${theme}`;
  redrawCharts();
}

function themes() {
  byId("theme").addEventListener("click", () => {
    theme = { auto: "dark", dark: "light", light: "auto" }[theme];
    applyTheme();
  });
  dark.addEventListener("change", applyTheme);
  applyTheme();
}

// --- all of it

let browser = null;

async function render(data) {
  dropCharts();
  clear(byId("sections"));
  clear(byId("main"));
  overview(data);
  curves(data);
  evaluations(data);
  const store = await unpacked("rollouts");
  browser = store === null ? null : new Rollouts(data, store);
  verifiersSection(data, browser);
  changesSection(data);
  hackingSection(data, browser);
  configuration(data);
  foot(data);
  if (!(browser && browser.readHash()) && location.hash.length > 1) {
    const target = byId(location.hash.slice(1).split("?")[0]);
    if (target) target.scrollIntoView();
  }
}

function foot(data) {
  const at = data.created_at.replace("T", " ").replace("Z", " UTC");
  clear(byId("foot")).append(`Written by rlvr ${data.version} at ${at}. ` + (data.live ? "It follows the run." : "Everything on this page is in this file; it loads nothing."));
}

// --- a run that goes on

const PAUSE = 2000;

// New content, with what the reader has opened, chosen and typed left as it is.
async function refresh(data) {
  const store = await unpacked("rollouts");
  if ((store === null) !== (browser === null)) return render(data);
  const open = [...document.querySelectorAll("figure details[open]")].map((node) => node.closest("figure").querySelector("strong").textContent);
  const configured = byId("configuration");
  dropCharts();
  overview(data);
  if (data.charts.length) curves(data);
  evaluations(data);
  if (browser) browser.load(data, store);
  verifiersSection(data, browser);
  changesSection(data);
  hackingSection(data, browser);
  if (!configured) configuration(data);
  for (const node of document.querySelectorAll("figure details")) {
    if (open.includes(node.closest("figure").querySelector("strong").textContent)) node.open = true;
  }
  foot(data);
}

async function follow(state) {
  const told = byId("live"), address = new URLSearchParams(location.search);
  told.hidden = false;
  for (;;) {
    try {
      address.set("since", state);
      const answer = await fetch(`data?${address}`);
      if (!answer.ok) throw new Error(`the server says ${answer.status}`);
      const { state: newest, error, data, packed } = await answer.json();
      if (data) {
        fetched = packed;
        await refresh(data);
      }
      state = newest;
      told.className = error ? "lost" : "";
      told.textContent = error ? visible(error) : `Live · ${new Date().toLocaleTimeString()}`;
      told.dataset.state = state;
    } catch (error) {
      told.className = "lost";
      told.textContent = "The server does not answer";
    }
    await new Promise((resume) => setTimeout(resume, PAUSE));
  }
}

themes();
const content = embedded("data");
render(content).then(() => {
  document.documentElement.dataset.ready = "true";
  if (content.live) follow(content.state);
});
