"use strict";
// Verifiers that disagree, and signs of reward hacking.

function verifiersSection(data, browser) {
  const flips = data.flips.flatMap((found, i) => found.map((each) => ({ ...each, source: i })));
  if (!flips.length) return;
  const several = data.sources.length > 1;
  const columns = [...(several ? [{ title: "run" }] : []), { title: "verifier that counts" }, { title: "other verifier" }, { title: "scored by both", number: true },
    { title: "both right", number: true }, { title: "only the first", number: true }, { title: "only the other", number: true }, { title: "both wrong", number: true }, { title: "agreement", number: true }, { title: "kappa", number: true }];
  const rows = flips.map((each) => [...(several ? [data.sources[each.source].name] : []), each.verifier, each.other, count(each.total), count(each.both_right), count(each.only_verifier), count(each.only_other), count(each.both_wrong), percent(each.agreement), number(each.kappa)]);
  section("verifiers", "Verifiers", "Verdicts of two verifiers on the same rollouts. A reward of at least 0.5 counts as right.", table(columns, rows, "Flips between verifiers"),
    browser && flips.some((each) => each.only_verifier + each.only_other) ? el("p", {}, el("button", { type: "button", onclick: () => browser.show({ flip: "1" }) }, "Show rollouts on which they disagree")) : null);
}

function changesSection(data) {
  if (!data.changes.length) return;
  const node = section("changes", "What changed", "The same held-out questions, answered before and after. A question counts as right if at least half of its completions are.");
  for (const each of data.changes) {
    const source = data.sources.length > 1 ? `${data.sources[each.source].name}: ` : "";
    append(node, [
      el("h3", {}, `${source}${each.before} → ${each.after}`),
      table([{ title: "" }, { title: `right at ${each.after}`, number: true }, { title: `wrong at ${each.after}`, number: true }],
        [[`right at ${each.before}`, count(each.both_right), el("b", {}, `${count(each.lost)} lost`)], [`wrong at ${each.before}`, el("b", {}, `${count(each.gained)} gained`), count(each.both_wrong)]],
        `${plural(each.both_right + each.gained + each.lost + each.both_wrong, "question")}, ${each.greedy ? "asked at temperature 0" : "sampled"}`, "narrow-table"),
      each.changed.length ? el("details", { open: each.changed.length <= 6 }, el("summary", {}, `Show ${plural(each.changed.length, "changed question")}`),
        el("div", { className: "changed" }, each.changed.map((question) => changedQuestion(question, each)))) : null,
    ]);
  }
}

function changedQuestion(question, { before, after }) {
  const side = (name, right, share, text) => el("div", { className: "card" },
    el("div", { className: "line" }, badge(right ? "right" : "wrong"), el("span", {}, name), share > 0 && share < 1 ? el("span", { className: "facts" }, `${percent(share)} right`) : null),
    el("pre", { className: "text", tabindex: "0" }, text === null ? "(no text)" : text));
  return el("div", { className: "question" },
    el("pre", { className: "text", tabindex: "0" }, question.prompt), question.gold === null ? null : el("p", { className: "gold" }, "Gold answer ", el("code", {}, question.gold)),
    el("div", { className: "two" }, side(before, !question.gained, question.shares[0], question.before), side(after, question.gained, question.shares[1], question.after)));
}

const FIGURES = { avg: "accuracy", maj: "majority", greedy: "greedy", reward: "mean reward", tokens: "mean tokens" };

function evaluationTables(data) {
  const none = ({ source, reason }) => el("p", { className: "note" }, `No figures of ${data.sources[source].name}: ${reason}`);
  return data.evaluations.flatMap(({ source, about, reason, sets }) => reason ? none({ source, reason }) : sets.map((set) => {
    const rows = set.figures.map((figure) => {
      const value = ["reward", "tokens"].includes(figure.name) ? (each) => number(each, 4) : percent;
      return [FIGURES[figure.name] || figure.name, value(figure.value), figure.low === null ? "–" : `${value(figure.low)} to ${value(figure.high)}`, count(figure.questions)];
    });
    const caption = `${set.dataset}${set.split ? ` (${set.split})` : ""}, verified by ${set.verifier} ${set.versions.join(", ")}; ${plural(set.completions, "completion")} of ${plural(set.questions, "question")}`;
    return el("div", { className: "evaluation" }, el("h3", {}, `${data.sources[source].name}${about ? `, ${about}` : ""}`),
      table([{ title: "figure" }, { title: "value", number: true }, { title: "95% interval", number: true }, { title: "questions", number: true }], rows, caption));
  }));
}

function hackingSection(data, browser) {
  const views = data.hacking.map((view, i) => ({ ...view, source: i })).filter((view) => view.charts.length || view.suspicious.length || view.clusters.length);
  if (!views.length) return;
  const several = data.sources.length > 1;
  const node = section("hacking", "Reward hacking", "A policy that exploits its verifier earns more from it, and not from another one. " +
    "Shadow verifiers (verifier.shadow) score a share of a run's rollouts for this; the alarm hacking reads the same excess.");
  const gaps = views.flatMap((view) => view.gaps.map((gap) => ({ ...gap, source: view.source })));
  if (gaps.length) {
    node.append(table([...(several ? [{ title: "run" }] : []), { title: "other verifier" }, { title: "rollouts", number: true }, { title: "training reward", number: true }, { title: "its reward", number: true }, { title: "gap", number: true }, { title: "growth of the gap", number: true }],
      gaps.map((gap) => [...(several ? [data.sources[gap.source].name] : []), gap.verifier, count(gap.rollouts), number(gap.reward), number(gap.shadow), number(gap.reward - gap.shadow), gap.excess === null ? "too few groups" : `${number(gap.excess)} standard errors`]),
      "Training reward against other verifiers"));
  } else {
    node.append(el("p", { className: "note" }, "No second verifier scored these rollouts, so growing rewards cannot be confirmed here. Add one to a run with --set verifier.shadow='[NAME]', or to files with rlvr score."));
  }
  const alarms = data.sources.flatMap((source, i) => source.alarms.map((alarm) => ({ ...alarm, source: i })));
  node.append(el("div", { className: "charts spaced" }, overlaid(views).map((chart) => chartFigure(chart, data.sources, alarms))));
  for (const view of views) {
    const name = several ? `: ${data.sources[view.source].name}` : "";
    if (view.suspicious.length) append(node, [el("h3", {}, `Most suspicious rollouts${name}`), suspects(view, browser)]);
    if (view.clusters.length) append(node, [el("h3", {}, `Completions by how they end${name}`), clusterTable(view, browser)]);
  }
}

// Charts of the same title are one chart, with the curves of every run.
function overlaid(views) {
  const found = new Map();
  for (const view of views) {
    for (const chart of view.charts) {
      if (found.has(chart.title)) found.get(chart.title).curves.push(...chart.curves);
      else found.set(chart.title, { ...chart, curves: [...chart.curves] });
    }
  }
  return [...found.values()];
}

function suspects(view, browser) {
  return el("ol", { className: "suspects" }, view.suspicious.map((each) => el("li", {},
    el("button", { type: "button", onclick: () => browser && browser.open(each.id) }, each.id),
    el("span", {}, ` ${each.step === null ? "" : `step ${count(each.step)}, `}reward ${number(each.reward)}: ${each.reasons.join("; ")}`))));
}

function clusterTable(view, browser) {
  const columns = [{ title: "last line, 0 for numbers", text: true }, { title: "rollouts", number: true }, { title: "first third", number: true }, { title: "last third", number: true }, { title: "gain", number: true }, { title: "reward", number: true }, { title: "others' reward", number: true }, { title: "" }];
  const rows = view.clusters.map((each) => {
    const row = [el("code", {}, each.shape || "(empty)"), count(each.count), percent(each.early), percent(each.late), `${each.gain >= 0 ? "+" : "−"}${number(Math.abs(each.gain))}`, number(each.reward), number(each.shadow),
      el("button", { type: "button", onclick: () => browser && browser.open(each.example) }, "Example")];
    if (each.is_suspicious) row.className = "differs";
    return row;
  });
  return table(columns, rows, "Share of the rollouts in the first and the last third of the steps; the gain is what the change adds to the mean reward. Marked: the reward grows, and other verifiers do not confirm it.");
}
