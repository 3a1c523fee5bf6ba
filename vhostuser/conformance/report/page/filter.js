// Which rows are shown: by words, verdict, level, group and target.  Nothing chosen in one of them means all.

const chosen = { words: [], verdicts: new Set(), levels: new Set(), group: "", run: null };

function showFilter() {
  const form = document.getElementById("filter");
  const counts = countVerdicts(RUNS.flatMap((run) => run.results));
  const bad = ROWS.filter(failed).length;
  const levels = LEVELS.filter((level) => ROWS.some((row) => row.about.level === level));
  form.append(
    make("input", { type: "search", id: "words", placeholder: "Search  ( / )", "aria-label": "Search", autocomplete: "off" }),
    bad ? make("button", { type: "button", id: "failures", onclick: chooseFailures }, `${bad} failed`) : "",
    make("span", { class: "chips", role: "group", "aria-label": "Verdict" }, [...counts].map(([name, count]) => verdictChip(name, count))),
    make("span", { class: "chips", role: "group", "aria-label": "Level" }, levels.map((name) => chip(name, chosen.levels, name))),
    select("group", "every group", Object.entries(DATA.groups).map(([code, title]) => [code, `${code}  ${title}`])),
    SEVERAL ? select("run", "every target", RUNS.map((run, number) => [String(number), run.label])) : "",
    make("button", { type: "button", id: "clear", onclick: clear }, "Show all"),
    make("output", { id: "shown", "aria-live": "polite" }),
  );
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", apply);
}

const failed = (row) => row.results.some((result) => result && kindOf(result.verdict) === "bad");

function verdictChip(name, count) {
  const element = chip(`${name} ${count}`, chosen.verdicts, name);
  element.classList.add(kindOf(name));
  element.title = VERDICTS.get(name).meaning;
  return element;
}

function chip(label, set, name) {
  const element = make("button", { type: "button", class: "chip", "aria-pressed": "false", "data-name": name }, label);
  element.addEventListener("click", () => {
    if (!set.delete(name)) set.add(name);
    apply();
  });
  return element;
}

function select(name, all, options) {
  const choices = [["", all], ...options].map(([value, label]) => make("option", { value }, label));
  return make("select", { id: name, "aria-label": name === "run" ? "Target" : "Group" }, choices);
}

function apply() {
  const field = (id) => document.getElementById(id)?.value ?? "";
  chosen.words = field("words").toLowerCase().split(/\s+/).filter(Boolean);
  chosen.group = field("group");
  chosen.run = field("run") === "" ? null : Number(field("run"));
  let shown = 0;
  for (const row of ROWS) {
    row.element.hidden = !matches(row);
    shown += row.element.hidden ? 0 : 1;
  }
  for (const section of document.querySelectorAll(".group")) {
    section.hidden = !section.querySelector(".row:not([hidden])");
  }
  for (const element of document.querySelectorAll(".chip")) {
    const name = element.dataset.name;
    element.setAttribute("aria-pressed", String(chosen.verdicts.has(name) || chosen.levels.has(name)));
  }
  document.getElementById("nothing").hidden = shown > 0;
  document.getElementById("clear").disabled = shown === ROWS.length;
  document.getElementById("shown").textContent = `${shown} of ${ROWS.length}`;
}

function matches(row) {
  const results = chosen.run === null ? row.results : [row.results[chosen.run]];
  const seen = results.filter(Boolean);
  return (
    seen.length > 0 &&
    (!chosen.group || row.group === chosen.group) &&
    (!chosen.levels.size || chosen.levels.has(row.about.level)) &&
    (!chosen.verdicts.size || seen.some((result) => chosen.verdicts.has(result.verdict))) &&
    chosen.words.every((word) => row.text.includes(word))
  );
}

function clear() {
  chosen.verdicts.clear();
  chosen.levels.clear();
  for (const id of ["words", "group", "run"]) if (document.getElementById(id)) document.getElementById(id).value = "";
  apply();
}

function choose(group, run) {
  clear();
  document.getElementById("group").value = group;
  if (SEVERAL) document.getElementById("run").value = String(run);
  apply();
  document.getElementById("filter").scrollIntoView({ block: "start" });
}

function chooseFailures() {
  clear();
  for (const [name, { kind }] of VERDICTS) if (kind === "bad") chosen.verdicts.add(name);
  apply();
}
