// The top of the page: what was tested, and the matrix of targets and groups.

function showHead() {
  const [first] = RUNS;
  const title = SEVERAL ? `${RUNS.length} targets` : first ? first.label : "no run";
  const head = document.getElementById("head");
  head.append(make("p", { class: "kicker" }, `vhost-user conformance${first ? ` of a ${first.role}` : ""}`));
  head.append(make("h1", {}, title));
  if (first && !SEVERAL) {
    if (first.label !== first.target) head.append(make("p", { class: "command" }, first.target));
    head.append(make("p", { class: "meta" }, facts(first)));
  }
  for (const run of RUNS.filter((each) => each.interrupted)) head.append(interrupted(run));
}

function facts(run) {
  const told = [run.started ? when(run.started) : "", seconds(run.seconds), `${run.results.length} results`, run.program];
  return told.filter(Boolean).join("  ·  ");
}

const when = (started) => started.replace("T", " ").replace(/(\.\d+)?(Z|\+00:00)$/, " UTC");

function interrupted(run) {
  const which = SEVERAL ? `${run.label}: the` : "The";
  return make("p", { class: "alert", role: "alert" }, `${which} run was interrupted: what follows is not the whole.`);
}

function showOverview(choose) {
  const overview = document.getElementById("overview");
  if (ROWS.length) overview.append(make("div", { class: "scroll" }, matrix(choose)));
  overview.append(offers());
}

function matrix(choose) {
  const groups = Object.keys(DATA.groups);
  const heads = groups.map((group) => make("th", { scope: "col", title: DATA.groups[group] }, group));
  const table = make("table", { class: "matrix" }, make("caption", { class: "unseen" }, "Targets and groups of cases"));
  table.append(make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "Target"), make("th", { scope: "col" }, "All"), heads)));
  const body = make("tbody");
  RUNS.forEach((run, number) => {
    const cells = groups.map((group) => cell(run, number, group, choose));
    const counts = countVerdicts(run.results);
    const total = make("td", {}, make("div", { class: "total", title: countWords(counts) }, bar(counts), make("span", {}, ratio(counts))));
    body.append(make("tr", {}, make("th", { scope: "row", title: run.target }, run.label), total, cells));
  });
  table.append(body);
  return table;
}

function cell(run, number, group, choose) {
  const counts = countVerdicts(run.results.filter((result) => groupOf(result.case) === group));
  const kind = worstKind(counts);
  const bad = [...counts].reduce((sum, [verdict, count]) => sum + (kindOf(verdict) === "bad" ? count : 0), 0);
  const shown = { bad: String(bad), odd: "!", good: "✓", quiet: "–", none: "" }[kind];
  const words = `${run.label}, ${DATA.groups[group] || group}: ${countWords(counts)}`;
  const attributes = { type: "button", class: `cell ${kind}`, title: words, "aria-label": words, disabled: kind === "none" };
  return make("td", {}, make("button", { ...attributes, onclick: () => choose(group, number) }, shown));
}

function bar(counts) {
  const strip = make("span", { class: "bar", "aria-hidden": "true" });
  for (const kind of KINDS) {
    const count = [...counts].reduce((sum, [verdict, number]) => sum + (kindOf(verdict) === kind ? number : 0), 0);
    if (!count) continue;
    const piece = make("span", { class: kind });
    piece.style.flexGrow = count;
    strip.append(piece);
  }
  return strip;
}

// Of those that were checked, how many are as they should be.
function ratio(counts) {
  const sum = (kinds) => [...counts].reduce((all, [verdict, count]) => all + (kinds.includes(kindOf(verdict)) ? count : 0), 0);
  return `${sum(["good"])} of ${sum(["good", "odd", "bad"])}`;
}

function offers() {
  const told = RUNS.filter((run) => SEVERAL || Object.keys(run.offered).length);
  if (!told.length) return "";
  const summary = make("summary", {}, SEVERAL ? "What the targets offer" : "What the target offers");
  return make("details", { class: "offer" }, summary, told.flatMap(offer));
}

function offer(run) {
  if (!SEVERAL) return [factList(Object.entries(run.offered))];
  const all = [["command or name", run.target], ["run", facts(run)], ...Object.entries(run.offered)];
  return [make("h3", {}, run.label), factList(all)];
}
