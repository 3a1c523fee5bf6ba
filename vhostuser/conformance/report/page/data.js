"use strict";
// The runs, and from them the rows of the list: one for each case (and variant) that any run has a result of.

const DATA = JSON.parse(document.getElementById("data").textContent);
const RUNS = DATA.runs;
const SEVERAL = RUNS.length > 1;
const VERDICTS = new Map(DATA.verdicts.map((each) => [each.name, each]));
const LEVELS = ["must", "should", "may", "robustness"];
const KINDS = ["bad", "odd", "good", "quiet"]; // worst first

// An element with attributes and children; a string becomes text, never markup.
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

const nameOf = (result) => (result.variant ? `${result.case}[${result.variant}]` : result.case);
const groupOf = (id) => id.split("-")[1];
const kindOf = (verdict) => VERDICTS.get(verdict).kind;

function collectRows() {
  const rows = new Map();
  RUNS.forEach((run, number) => {
    for (const result of run.results) {
      const name = nameOf(result);
      if (!rows.has(name)) {
        const about = { id: result.case, ...run.cases[result.case] };
        rows.set(name, { name, about, group: groupOf(result.case), results: RUNS.map(() => null) });
      }
      rows.get(name).results[number] = result;
    }
  });
  return inGroups([...rows.values()]);
}

// Groups in the order in which they first occur; within a group the order of the runs.
function inGroups(rows) {
  const order = Object.keys(DATA.groups);
  return rows
    .map((row, place) => ({ row, place }))
    .sort((a, b) => order.indexOf(a.row.group) - order.indexOf(b.row.group) || a.place - b.place)
    .map((each) => each.row);
}

const ROWS = collectRows();

// What a search looks through: the words of the requirement and of the results, the wire log too.
function haystack(row) {
  const { id, title, section, rationale, provoke, passes, tags } = row.about;
  const told = [row.name, id, title, section, rationale, provoke, passes, ...tags];
  for (const result of row.results.filter(Boolean)) {
    told.push(result.reason, result.stderr, ...result.notes, ...result.log.map((each) => each.text));
    if (result.known) told.push(result.known.reason, result.known.link);
  }
  return told.join("\n").toLowerCase();
}

function countVerdicts(results) {
  const counts = new Map();
  for (const each of VERDICTS.keys()) {
    const count = results.filter((result) => result && result.verdict === each).length;
    if (count) counts.set(each, count);
  }
  return counts;
}

const worstKind = (counts) => KINDS.find((kind) => [...counts.keys()].some((each) => kindOf(each) === kind)) ?? "none";
const countWords = (counts) => [...counts].map(([verdict, count]) => `${count} ${verdict}`).join(", ") || "not run";

function seconds(value) {
  return value < 1 ? `${Math.round(value * 1000)} ms` : value < 90 ? `${value.toFixed(1)} s` : `${(value / 60).toFixed(1)} min`;
}
