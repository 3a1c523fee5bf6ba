// What a row opens to: the requirement, and for each run what came of it.

function details(row) {
  const sections = row.results.map((result, number) => outcome(row, result, number));
  return [requirement(row.about), ...sections];
}

function requirement(about) {
  const facts = [
    ["Section", about.section],
    ["Level", about.level],
    ["Provoked by", about.provoke],
    ["Passes", about.passes],
    ["Needs", about.needs.join("; ")],
    ["Without", about.absent.join("; ")],
    ["Tags", about.tags.join(", ") + (about.destructive ? " (destructive)" : "")],
  ];
  const manual = about.manual ? make("p", { class: "manual" }, "Cannot be checked from outside.") : null;
  return make("div", { class: "requirement" }, make("p", { class: "rationale" }, about.rationale), manual, factList(facts));
}

function factList(facts) {
  const told = facts.filter(([, value]) => value);
  return make("dl", {}, told.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}

function outcome(row, result, number) {
  const head = SEVERAL ? make("h4", {}, badge(result), " ", RUNS[number].label) : null;
  if (!result) return make("div", { class: "outcome" }, head, make("p", { class: "quiet" }, "Not run."));
  return make(
    "div",
    { class: `outcome ${kindOf(result.verdict)}` },
    head,
    ...verdictWords(result),
    known(result.known),
    ...result.notes.map((note) => make("p", { class: "remark" }, note)),
    result.ending ? make("p", { class: "remark" }, `Target: ${result.ending}`) : null,
    result.log.length ? part(`Wire log, ${result.log.length} entries`, wireLog(result)) : null,
    result.stderr ? part("stderr of the target", make("pre", { class: "scroll", tabindex: "0" }, result.stderr)) : null,
    result.replay ? part("Run it alone", replay(result.replay)) : null,
  );
}

function verdictWords(result) {
  const meaning = make("p", { class: "meaning" }, badge(result), ` ${VERDICTS.get(result.verdict).meaning}, ${seconds(result.seconds)}`);
  if (!result.contrast) return [meaning, result.reason ? make("pre", { class: "reason" }, result.reason) : null];
  const { what, found, expected } = result.contrast;
  const sides = [side("found", found), side("expected", expected)];
  return [meaning, what ? make("p", { class: "what" }, what) : null, make("div", { class: "contrast" }, sides)];
}

const side = (name, text) => make("div", { class: name }, make("span", { class: "label" }, name), make("pre", {}, text));

const part = (title, content) => make("section", { class: "part" }, make("h5", {}, title), content);

function known(entry) {
  if (!entry) return null;
  const until = entry.until ? ` (until ${entry.until})` : "";
  const link = /^https?:\/\//.test(entry.link)
    ? make("a", { href: entry.link, rel: "noreferrer" }, entry.link)
    : entry.link;
  return make("p", { class: "known" }, make("strong", {}, "Known issue "), `${entry.cases}: ${entry.reason}${until} `, link);
}

function replay(command) {
  const code = make("code", { tabindex: "0" }, command);
  const button = make("button", { type: "button" }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(command);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code); // no clipboard for this page: the reader copies
    }
  });
  return make("div", { class: "replay" }, code, button);
}

function badge(result) {
  if (!result) return make("span", { class: "badge none", title: "not run" }, "–");
  return make("span", { class: `badge ${kindOf(result.verdict)}` }, result.verdict);
}
