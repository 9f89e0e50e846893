"use strict";
// The rollout browser: filters over columns of numbers, one page of results, one rollout or one group in detail.

const PAGE = 50;
const STATUSES = ["right", "wrong", "unparsed", "abstained", "invalid", "timeout", "error"];
const SORTS = {
  place: { title: "order of the files", value: (rows, i) => i },
  reward: { title: "reward", value: (rows, i) => rows.reward[i] },
  advantage: { title: "advantage", value: (rows, i) => rows.advantage[i] },
  tokens: { title: "length", value: (rows, i) => (rows.tokens[i] === null ? (rows.completion[i] || "").length : rows.tokens[i]) },
  lag: { title: "lag", value: (rows, i) => rows.lag[i] },
  step: { title: "step", value: (rows, i) => rows.step[i] },
};
const FILTERS = ["q", "verdict", "from", "to", "low", "high", "lag", "group", "source", "flip"];

class Rollouts {
  constructor(data, store) {
    this.sources = data.sources;
    this.buckets = data.rollouts.buckets;
    this.state = { sort: "place", down: "", page: 0, id: "", view: "one", color: "logprob" };
    this.chunks = new Map();
    this.build(data);
    this.load(data, store);
  }

  // --- data

  load(data, { rows, groups, verifiers }) {
    this.sources = data.sources;
    this.hasRatio = data.rollouts.with_ratios > 0;
    this.tell(data);
    this.rows = rows;
    this.groups = groups;
    this.verifiers = verifiers;
    this.count = rows.id.length;
    const numbers = (values) => Float64Array.from(values, (value) => (value === null ? NaN : value));
    this.reward = numbers(rows.reward);
    this.step = numbers(rows.step);
    this.status = Uint8Array.from(rows.status, (value) => (value === null ? STATUSES.length : STATUSES.indexOf(value)));
    this.bucket = Uint8Array.from(rows.bucket);
    this.group = Int32Array.from(rows.group);
    this.source = Uint8Array.from(rows.group, (group) => groups.source[group]);
    this.flip = Uint8Array.from(rows.flip, Number);
    this.text = null;
    this.orders = {};
    this.byId = new Map(rows.id.map((id, i) => [id, i]));
    this.members = groups.id.map(() => []);
    rows.group.forEach((group, i) => this.members[group].push(i));
    this.chunks.clear();
    this.fillChoices();
    (window.requestIdleCallback || setTimeout)(() => this.searchable());
    this.apply();
  }

  // Texts in lower case, joined per rollout: a search is one `includes` each.
  searchable() {
    if (this.text === null) {
      const { id, completion, scores } = this.rows;
      this.text = id.map((each, i) => `${each}\n${completion[i] || ""}\n${scores[i].map((score) => `${score[3] || ""} ${score[4] || ""}`).join("\n")}`.toLowerCase());
      this.asked = this.groups.prompt.map((prompt, i) => `${prompt || ""}\n${this.groups.gold[i] || ""}`.toLowerCase());
    }
    return this.text;
  }

  order() {
    const { sort, down } = this.state, name = sort + down;
    if (!this.orders[name]) {
      const value = SORTS[sort].value, sign = down ? -1 : 1;
      const keys = Float64Array.from({ length: this.count }, (_, i) => {
        const key = value(this.rows, i);
        return key === null ? Infinity : sign * key;
      });
      this.orders[name] = Uint32Array.from({ length: this.count }, (_, i) => i).sort((a, b) => keys[a] - keys[b] || a - b);
    }
    return this.orders[name];
  }

  matching() {
    const { state, count } = this, order = this.order(), found = new Uint32Array(count);
    const wanted = (state.q || "").trim().toLowerCase();
    const text = wanted ? this.searchable() : null;
    const asked = wanted ? Uint8Array.from(this.asked, (each) => each.includes(wanted)) : null;
    const status = state.verdict ? (state.verdict === "none" ? STATUSES.length : STATUSES.indexOf(state.verdict)) : -1;
    const bucket = state.lag ? this.buckets.indexOf(state.lag) : -1;
    const source = state.source ? Number(state.source) : -1;
    const bound = (value, other) => (value === undefined || value === "" || Number.isNaN(Number(value)) ? other : Number(value));
    const low = bound(state.low, -Infinity), high = bound(state.high, Infinity), rewards = low !== -Infinity || high !== Infinity;
    const from = bound(state.from, -Infinity), to = bound(state.to, Infinity), steps = from !== -Infinity || to !== Infinity;
    const group = state.group ? Uint8Array.from(this.groups.id, (id) => id.includes(state.group)) : null;
    let n = 0;
    for (let at = 0; at < count; at++) {
      const i = order[at];
      if (status >= 0 && this.status[i] !== status) continue;
      if (bucket >= 0 && this.bucket[i] !== bucket) continue;
      if (source >= 0 && this.source[i] !== source) continue;
      if (rewards && !(this.reward[i] >= low && this.reward[i] <= high)) continue;
      if (steps && !(this.step[i] >= from && this.step[i] <= to)) continue;
      if (group && !group[this.group[i]]) continue;
      if (state.flip && !this.flip[i]) continue;
      if (text && !asked[this.group[i]] && !text[i].includes(wanted)) continue;
      found[n++] = i;
    }
    return found.subarray(0, n);
  }

  // --- the section

  build(data) {
    const field = (name, title, properties) => {
      const input = el("input", { type: "search", ...properties, oninput: () => this.change(name, input.value) });
      this.inputs[name] = input;
      return el("label", {}, title, input);
    };
    const choice = (name, title, onchange) => {
      const select = el("select", { onchange: () => (onchange || ((value) => this.change(name, value)))(select.value) });
      this.inputs[name] = select;
      return el("label", {}, title, select);
    };
    this.inputs = {};
    const flip = el("input", { type: "checkbox", onchange: () => this.change("flip", flip.checked ? "1" : "") });
    this.inputs.flip = flip;
    const down = el("button", { type: "button", "aria-label": "Sort in the other direction", onclick: () => this.change("down", this.state.down ? "" : "1") }, "↑");
    this.inputs.down = down;
    this.told = el("p", { className: "told", role: "status" });
    this.list = el("ul", { className: "rows", role: "listbox", tabindex: "0", "aria-label": "Rollouts" });
    this.list.addEventListener("keydown", (event) => this.listKey(event));
    this.list.addEventListener("click", (event) => {
      const item = event.target.closest("[data-row]");
      if (item) this.select(Number(item.dataset.row), true);
    });
    this.back = el("button", { type: "button", onclick: () => this.turn(-1) }, "Previous page");
    this.on = el("button", { type: "button", onclick: () => this.turn(1) }, "Next page");
    this.detail = el("article", { className: "rollout", "aria-label": "Rollout", tabindex: "-1" });
    this.node = section("rollouts", "Rollouts", " ",
      el("div", { className: "tools", role: "search", "aria-label": "Filter rollouts" },
        field("q", "Search", { placeholder: "text, answer, reason or id", className: "wide" }),
        choice("verdict", "Verdict"),
        field("low", "Reward from", { type: "number", step: "any", className: "narrow" }),
        field("high", "to", { type: "number", step: "any", className: "narrow" }),
        field("from", "Step from", { type: "number", min: "0", className: "narrow" }),
        field("to", "to", { type: "number", min: "0", className: "narrow" }),
        choice("lag", "Lag"),
        field("group", "Group", { placeholder: "id" }),
        data.sources.length > 1 ? choice("source", "Run") : null,
        el("label", { className: "check" }, flip, "Verifiers disagree"),
        choice("sort", "Sort by"), down,
        el("button", { type: "button", onclick: () => this.reset() }, "Clear")),
      this.told,
      el("div", { className: "browser" },
        el("div", { className: "pane" }, this.list, el("div", { className: "pager" }, this.back, this.on,
          el("span", { className: "hint" }, el("kbd", {}, "j"), " ", el("kbd", {}, "k"), " move, ", el("kbd", {}, "/"), " search, ", el("kbd", {}, "←"), " ", el("kbd", {}, "→"), " in the group, ", el("kbd", {}, "g"), " whole group"))),
        this.detail));
    document.addEventListener("keydown", (event) => this.globalKey(event));
    addEventListener("hashchange", () => this.readHash());
  }

  tell(data) {
    const { total, count: shown, groups, total_groups: all, with_tokens: tokens, without_text: bare } = data.rollouts;
    const notes = [shown < total
      ? `${count(shown)} of ${count(total)} rollouts are on this page, in ${count(groups)} of ${count(all)} groups: whole groups of every step and outcome, ` +
        "those of rare outcomes first. Headline numbers, charts and tables are of all."
      : `All ${plural(total, "rollout")} are on this page, in ${plural(groups, "group")}.`,
    data.rollouts.with_ratios ? `${plural(data.rollouts.with_ratios, "rollout")} also have the importance weights w of their tokens under the model of --model.` : "",
    tokens < shown ? `Single tokens are shown for ${count(tokens)} of them.` : "",
    bare.length ? `Token ids of ${bare.join(", ")} have no text: no tokenizer beside the weights gives back the completions.` : ""];
    this.node.querySelector(".lead").textContent = notes.filter(Boolean).join(" ");
  }

  fillChoices() {
    const tally = (values, size) => {
      const counts = new Array(size).fill(0);
      for (const value of values) counts[value]++;
      return counts;
    };
    const fill = (name, options) => {
      const select = this.inputs[name];
      if (select) append(clear(select), options.map(([value, title]) => el("option", { value }, title)));
    };
    const statuses = tally(this.status, STATUSES.length + 1), buckets = tally(this.bucket, this.buckets.length);
    fill("verdict", [["", "any"], ...STATUSES.map((name, i) => [name, `${name} (${count(statuses[i])})`]).filter((_, i) => statuses[i]),
      ...(statuses[STATUSES.length] ? [["none", `not scored (${count(statuses[STATUSES.length])})`]] : [])]);
    fill("lag", [["", "any"], ...this.buckets.map((name, i) => [name, `${name} (${count(buckets[i])})`]).filter((_, i) => buckets[i])]);
    fill("source", [["", "any"], ...this.sources.map((source, i) => [String(i), source.name])]);
    fill("sort", Object.entries(SORTS).map(([name, { title }]) => [name, title]));
    this.inputs.flip.disabled = !this.flip.includes(1);
    this.showState();
  }

  // --- state

  change(name, value) {
    this.state[name] = value;
    if (name !== "page") this.state.page = 0;
    this.apply();
    this.writeHash();
  }

  reset() {
    for (const name of FILTERS) this.state[name] = "";
    Object.assign(this.state, { sort: "place", down: "", page: 0 });
    this.showState();
    this.apply();
    this.writeHash();
  }

  showState() {
    for (const [name, input] of Object.entries(this.inputs)) {
      if (name === "flip") input.checked = Boolean(this.state.flip);
      else if (name === "down") input.textContent = this.state.down ? "↓" : "↑";
      else input.value = this.state[name] || "";
    }
  }

  writeHash() {
    const parts = new URLSearchParams();
    for (const name of [...FILTERS, "sort", "down", "page", "id", "view", "color"]) {
      const value = this.state[name], plain = { sort: "place", view: "one", color: "logprob", page: 0 }[name] || "";
      if (value !== undefined && String(value) !== String(plain) && value !== "" && value !== 0) parts.set(name, value);
    }
    const text = parts.toString();
    this.own = text ? `#rollouts?${text}` : "#rollouts";
    history.replaceState(null, "", this.own);
  }

  readHash() {
    if (!location.hash.startsWith("#rollouts?") || location.hash === this.own) return false;
    for (const name of FILTERS) this.state[name] = "";
    Object.assign(this.state, { sort: "place", down: "", page: 0, view: "one", color: "logprob" });
    for (const [name, value] of new URLSearchParams(location.hash.slice(10))) {
      if (FILTERS.includes(name) || ["down", "id"].includes(name)) this.state[name] = value;
      if (name === "sort" && Object.hasOwn(SORTS, value)) this.state.sort = value;
      if (name === "page") this.state.page = Math.max(0, Number.parseInt(value, 10) || 0);
      if (name === "view" && value === "group") this.state.view = value;
      if (name === "color" && COLORINGS.some(([known]) => known === value)) this.state.color = value;
    }
    this.showState();
    this.apply();
    this.node.scrollIntoView();
    return true;
  }

  // --- the list

  apply() {
    const begun = performance.now();
    this.found = this.matching();
    const pages = Math.max(1, Math.ceil(this.found.length / PAGE));
    this.state.page = Math.min(this.state.page, pages - 1);
    this.fillList();
    const took = performance.now() - begun;
    this.told.dataset.ms = took.toFixed(1);
    this.told.dataset.count = this.found.length;
    append(clear(this.told), [`${count(this.found.length)} of ${plural(this.count, "rollout")} match`,
      pages > 1 ? ` · page ${count(this.state.page + 1)} of ${count(pages)}` : "", ` · ${took < 1 ? "<1" : Math.round(took)} ms`]);
    const chosen = this.byId.get(this.state.id);
    if (chosen === undefined) this.select(this.found.length ? this.found[this.state.page * PAGE] : null, false, true);
    else this.select(chosen, false, true);
  }

  fillList() {
    const { page } = this.state, shown = this.found.subarray(page * PAGE, (page + 1) * PAGE);
    clear(this.list).append(...Array.from(shown, (i) => this.item(i)));
    if (!shown.length) this.list.append(el("li", { className: "none" }, "No rollout matches."));
    this.back.disabled = page === 0;
    this.on.disabled = (page + 1) * PAGE >= this.found.length;
  }

  item(i) {
    const { rows } = this;
    const facts = [rows.step[i] === null ? "" : `step ${count(rows.step[i])}`, rows.lag[i] === null ? "" : `lag ${rows.lag[i]}`, rows.tokens[i] === null ? "" : plural(rows.tokens[i], "token")];
    return el("li", { role: "option", id: `row-${i}`, "data-row": String(i), "aria-selected": "false" },
      el("div", { className: "line" }, badge(rows.status[i]), el("b", { className: "num" }, number(rows.reward[i])), this.flip[i] ? el("span", { className: "flip" }, "disagree") : null,
        el("span", { className: "facts" }, facts.filter(Boolean).join(" · "))),
      el("div", { className: "excerpt" }, excerpt(rows.completion[i])));
  }

  turn(by) {
    this.change("page", Math.max(0, this.state.page + by));
    this.list.scrollTop = 0;
    const first = this.found[this.state.page * PAGE];
    if (first !== undefined) this.select(first, false);
  }

  move(by) {
    const at = this.found.indexOf(this.current);
    const to = Math.min(this.found.length - 1, Math.max(0, at < 0 ? this.state.page * PAGE : at + by));
    if (!this.found.length) return;
    const page = Math.floor(to / PAGE);
    if (page !== this.state.page) {
      this.state.page = page;
      this.apply();
    }
    this.select(this.found[to], false);
  }

  sibling(by) {
    if (this.current === null || this.current === undefined) return;
    const own = this.members[this.group[this.current]];
    this.select(own[(own.indexOf(this.current) + by + own.length) % own.length], false);
  }

  listKey(event) {
    const by = { ArrowDown: 1, ArrowUp: -1, PageDown: PAGE, PageUp: -PAGE }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    this.move(by);
  }

  globalKey(event) {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, select, textarea, [role='img']")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const action = {
      j: () => this.move(1), k: () => this.move(-1),
      ArrowRight: () => this.sibling(1), ArrowLeft: () => this.sibling(-1),
      g: () => this.toggleView(),
      "/": () => { this.node.scrollIntoView(); this.inputs.q.focus({ preventScroll: true }); this.inputs.q.select(); },
    }[event.key];
    if (!action) return;
    event.preventDefault();
    if (event.key === "j" || event.key === "k") this.ensureVisible();
    action();
  }

  ensureVisible() {
    const { top, bottom } = this.list.getBoundingClientRect();
    if (bottom < 80 || top > innerHeight - 80) this.node.scrollIntoView();
  }

  // --- one rollout, one group

  select(i, byHand, quiet) {
    for (const item of this.list.querySelectorAll("[aria-selected='true']")) item.setAttribute("aria-selected", "false");
    this.current = i;
    if (i === null || i === undefined) {
      this.list.removeAttribute("aria-activedescendant");
      clear(this.detail);
      return;
    }
    const item = byId(`row-${i}`);
    if (item) {
      item.setAttribute("aria-selected", "true");
      this.list.setAttribute("aria-activedescendant", item.id);
      const above = item.offsetTop - this.list.offsetTop, height = this.list.clientHeight;
      if (above < this.list.scrollTop) this.list.scrollTop = above;
      else if (above + item.offsetHeight > this.list.scrollTop + height) this.list.scrollTop = above + item.offsetHeight - height;
    }
    if (!quiet) {
      this.state.id = this.rows.id[i];
      this.writeHash();
    }
    this.showDetail();
    if (byHand && getComputedStyle(this.list.parentElement.parentElement).gridTemplateColumns.split(" ").length === 1) this.detail.scrollIntoView();
  }

  toggleView() {
    this.state.view = this.state.view === "one" ? "group" : "one";
    this.showDetail();
    this.writeHash();
  }

  open(id) {
    const i = this.byId.get(id);
    if (i === undefined) return;
    this.reset();
    this.select(i, false);
    this.node.scrollIntoView();
  }

  show(filters) {
    this.reset();
    Object.assign(this.state, filters);
    this.showState();
    this.apply();
    this.writeHash();
    this.node.scrollIntoView();
  }

  showDetail() {
    const i = this.current;
    if (i === null || i === undefined) return;
    const own = this.members[this.group[i]], { groups, rows } = this, group = this.group[i];
    const whole = this.state.view === "group";
    const members = el("div", { className: "members", role: "group", "aria-label": "Members of the group" }, own.map((each) =>
      el("button", { type: "button", className: `member ${verdictClass(rows.status[each])}`, "aria-pressed": String(each === i), title: `${rows.id[each]}: ${rows.status[each] || "not scored"}, reward ${number(rows.reward[each])}`, onclick: () => this.select(each, false) },
        rows.index[each] === null ? own.indexOf(each) + 1 : rows.index[each] + 1)));
    append(clear(this.detail), [
      el("div", { className: "head" }, el("h3", {}, whole ? `Group ${groups.id[group]}` : rows.id[i]),
        el("button", { type: "button", "aria-pressed": String(whole), onclick: () => this.toggleView() }, "Whole group")),
      members,
      el("h4", {}, "Prompt"), el("pre", { className: "text", tabindex: "0" }, groups.prompt[group] === null ? "(none)" : groups.prompt[group]),
      groups.gold[group] === null ? null : el("p", { className: "gold" }, "Gold answer ", el("code", {}, groups.gold[group]), groups.dataset[group] ? ` · ${groups.dataset[group]}` : ""),
      this.coloring(own),
      whole ? el("div", { className: "side" }, own.map((each) => this.card(each))) : this.single(i),
    ]);
  }

  single(i) {
    const { rows } = this;
    const facts = [["policy version", rows.versions[i]], ["lag", rows.lag[i]], ["step", rows.step[i]], ["tokens", rows.tokens[i]], ["finished", rows.finish[i]], ["advantage", rows.advantage[i]],
      ["group", this.groups.id[this.group[i]]], this.sources.length > 1 ? ["run", this.sources[this.source[i]].name] : null];
    return [
      el("h4", {}, "Completion ", badge(rows.status[i]), " ", el("b", { className: "num" }, number(rows.reward[i]))),
      this.completion(i),
      el("dl", { className: "factlist" }, facts.filter((fact) => fact && fact[1] !== null).map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, typeof value === "number" ? number(value, 4) : value)))),
      el("h4", {}, "Scores"), this.scores(i),
    ];
  }

  card(i) {
    const { rows } = this;
    return el("div", { className: `card ${i === this.current ? "current" : ""}` },
      el("div", { className: "line" }, badge(rows.status[i]), el("b", { className: "num" }, number(rows.reward[i])),
        el("span", { className: "facts" }, [rows.advantage[i] === null ? "" : `advantage ${number(rows.advantage[i])}`, rows.tokens[i] === null ? "" : plural(rows.tokens[i], "token")].filter(Boolean).join(" · "))),
      this.completion(i));
  }

  scores(i) {
    const found = this.rows.scores[i];
    if (!found.length) return el("p", { className: "sub" }, "This rollout has no score.");
    const columns = [{ title: "verifier" }, { title: "verdict" }, { title: "reward", number: true }, { title: "extracted", text: true }, { title: "reason", text: true }, { title: "options", text: true }, { title: "seconds", number: true }];
    const rows = found.map(([verifier, status, reward, extracted, reason, seconds, parts]) => {
      const about = this.verifiers[verifier];
      return [`${about.name} ${about.version}`, status, number(reward), extracted === null ? "–" : el("code", {}, extracted),
        [reason === null ? "–" : reason, parts ? el("ul", { className: "parts" }, parts.map(([name, state, value, why]) => el("li", {}, `${name}: ${state}${value === "null" ? "" : ` ${value}`}${why === "null" ? "" : `, ${why}`}`))) : null],
        about.options === "{}" ? "–" : el("details", {}, el("summary", {}, "show"), el("code", {}, about.options)), number(seconds, 2)];
    });
    return table(columns, rows, `${plural(found.length, "score")}, in the order in which they were given`);
  }

  // --- tokens

  coloring(own) {
    if (!own.some((i) => this.rows.chunk[i] !== null)) return null;
    const available = COLORINGS.filter(([name]) => name !== "ratio" || this.hasRatio);
    const select = el("select", { onchange: () => { this.state.color = select.value; this.showDetail(); this.writeHash(); } },
      available.map(([name, title]) => el("option", { value: name, selected: name === this.state.color }, title)));
    return el("div", { className: "coloring" }, el("label", {}, "Tokens by ", select), legend(this.state.color));
  }

  completion(i) {
    const text = el("pre", { className: "text", tabindex: "0" }, this.rows.completion[i] === null ? "(no text)" : this.rows.completion[i] || "(empty)");
    const chunk = this.rows.chunk[i];
    if (chunk === null || this.state.color === "none") return text;
    const holder = el("div", {}, text);
    this.chunk(chunk).then(({ rows, texts }) => {
      if (rows[i]) append(clear(holder), [this.tokens(i, rows[i], texts)]);
    });
    return holder;
  }

  chunk(number) {
    if (!this.chunks.has(number)) this.chunks.set(number, this.fetchChunk(number));
    return this.chunks.get(number);
  }

  fetchChunk(number) {
    return unpacked(`tokens-${number}`);
  }

  tokens(i, [ids, milli, ratios], texts) {
    const told = el("p", { className: "token-told", "aria-live": "off" }, "Point at a token to read its id and probability.");
    const source = this.source[i], advantage = this.rows.advantage[i];
    const pieces = ids.map((id, t) => {
      const known = texts[`${source}:${id}`], logprob = milli[t] === null ? null : -milli[t] / 1000;
      const ratio = ratios && ratios[t] !== null ? ratios[t] / 1000 : null;
      const piece = el("span", { className: known === undefined ? "token bare" : "token" }, known === undefined ? String(id) : known === "" ? "∅" : known);
      piece.style.backgroundColor = shade(this.state.color, logprob, ratio, advantage);
      piece.told = `Token ${t + 1}: ${known === undefined ? "" : JSON.stringify(known) + ", "}id ${id}` +
        (logprob === null ? ", not sampled by the policy" : `, log-probability ${logprob.toFixed(3)} (${percent(Math.exp(logprob))})`) +
        (ratio === null ? "" : `, w ${number(Math.exp(ratio))} under the model`);
      return piece;
    });
    const text = el("pre", { className: "text tokens", tabindex: "0", "aria-label": "Completion, token by token" }, pieces);
    const tell = (event) => { if (event.target.told) clear(told).append(visible(event.target.told)); };
    text.addEventListener("pointerover", tell);
    text.addEventListener("click", tell);
    const list = el("details", { ontoggle: () => {
      if (list.open && list.children.length === 1) {
        list.append(table([{ title: "token", number: true }, { title: "text" }, { title: "id", number: true }, { title: "log-probability", number: true }],
          ids.map((id, t) => [String(t + 1), el("code", {}, texts[`${source}:${id}`] === undefined ? "" : JSON.stringify(texts[`${source}:${id}`])), String(id), milli[t] === null ? "–" : (-milli[t] / 1000).toFixed(3)]), "Tokens", "tall"));
      }
    } }, el("summary", {}, "Tokens as a table"));
    return el("div", {}, text, told, list);
  }
}

const COLORINGS = [["logprob", "log-probability"], ["ratio", "w under --model"], ["advantage", "advantage"], ["none", "no color"]];

function shade(coloring, logprob, ratio, advantage) {
  const color = (sign, alpha) => `rgba(${variable(sign < 0 ? "--warm" : "--cold")}, ${Math.min(0.7, alpha).toFixed(3)})`;
  if (coloring === "logprob" && logprob !== null) return color(-1, -logprob / 6);
  if (coloring === "ratio" && ratio !== null) return color(ratio, Math.abs(ratio));
  if (coloring === "advantage" && logprob !== null && advantage !== null) return color(advantage, Math.abs(advantage) / 4);
  return "transparent";
}

function legend(coloring) {
  const steps = { logprob: [[0, "100%"], [-0.69, "50%"], [-2.3, "10%"], [-4.6, "≤1%"]], ratio: [[-0.7, "½"], [0, "1"], [0.7, "2"]], advantage: [[-2, "−2"], [-1, "−1"], [0, "0"], [1, "+1"], [2, "+2"]] }[coloring];
  if (!steps) return null;
  return el("span", { className: "legend" }, steps.map(([value, title]) => {
    const box = el("span", { className: "token" }, title);
    box.style.backgroundColor = coloring === "logprob" ? shade(coloring, value) : coloring === "ratio" ? shade(coloring, 0, value) : shade(coloring, 0, null, value);
    return box;
  }));
}

function verdictClass(status) {
  return status === "right" ? "is-right" : status === "wrong" ? "is-wrong" : "is-other";
}

function badge(status) {
  const mark = status === "right" ? "✓" : status === "wrong" ? "✗" : "–";
  return el("span", { className: `badge ${verdictClass(status)}` }, el("span", { "aria-hidden": "true" }, mark), ` ${status || "not scored"}`);
}

function excerpt(text) {
  return text === null ? "(no text)" : text.slice(0, 300).replace(/\s+/g, " ").trim() || "(empty)";
}
