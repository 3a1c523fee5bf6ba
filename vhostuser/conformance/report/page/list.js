// The list of results, group by group.  A row makes its details when it is first opened.

function showResults() {
  const results = document.getElementById("results");
  for (const group of Object.keys(DATA.groups)) results.append(groupSection(group));
  results.append(make("p", { id: "nothing", hidden: ROWS.length > 0 }, ROWS.length ? "No result is like that." : "No case was run."));
}

function groupSection(group) {
  const rows = ROWS.filter((row) => row.group === group);
  const counts = countVerdicts(rows.flatMap((row) => row.results));
  const head = make("h2", {}, make("span", { class: "code" }, group), DATA.groups[group], make("small", {}, countWords(counts)));
  return make("section", { class: "group", "data-group": group }, head, columnNames(), rows.map(rowElement));
}

function columnNames() {
  if (!SEVERAL) return null;
  const names = RUNS.map((run) => make("span", { title: run.target }, run.label));
  return make("div", { class: "columns", "aria-hidden": "true" }, make("span", { class: "badges" }, names));
}

function rowElement(row) {
  const badges = make("span", { class: "badges" }, row.results.map(badge));
  const times = row.results.filter(Boolean).map((result) => result.seconds);
  const summary = make(
    "summary",
    {},
    badges,
    make("span", { class: "id" }, row.name),
    make("span", { class: "title" }, row.about.title),
    make("span", { class: "level" }, row.about.level),
    make("span", { class: "time" }, seconds(Math.max(0, ...times))),
    make("a", { class: "link", href: `#${encodeURIComponent(row.name)}`, title: "link to this result" }, "#"),
  );
  row.element = make("details", { class: "row", id: row.name }, summary);
  row.element.addEventListener("toggle", () => fill(row));
  row.text = haystack(row);
  return row.element;
}

function fill(row) {
  if (row.element.open && row.element.children.length === 1) {
    row.element.append(make("div", { class: "inside" }, details(row)));
  }
}

function open(row) {
  row.element.open = true;
  fill(row); // the event comes later than a printer may
}

// --- by id: the part of the address behind "#" ---

function openLinked(showAll) {
  const name = decodeURIComponent(location.hash.slice(1));
  const row = ROWS.find((each) => each.name === name) ?? ROWS.find((each) => each.about.id === name);
  if (!row) return;
  if (row.element.hidden) showAll();
  open(row);
  row.element.scrollIntoView({ block: "start" });
  row.element.querySelector("summary").focus({ preventScroll: true });
}

// --- on paper: what failed is shown whole ---

function openFailuresOnPaper() {
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = ROWS.filter((row) => failed(row) && !row.element.open && !row.element.hidden);
    opened.forEach(open);
  });
  addEventListener("afterprint", () => opened.forEach((row) => (row.element.open = false)));
}
