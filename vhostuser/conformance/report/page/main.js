// Puts the page together, and listens to the keyboard.

const KEYS = [
  ["/", "search"],
  ["j k", "next, previous result"],
  ["Enter", "open or close it"],
  ["f", "failures only"],
  ["Esc", "show all"],
];

function step(by) {
  const summaries = [...document.querySelectorAll(".row:not([hidden]) > summary")];
  const place = summaries.indexOf(document.activeElement);
  const next = summaries[place < 0 ? (by > 0 ? 0 : summaries.length - 1) : place + by];
  if (next) {
    next.focus({ preventScroll: true });
    next.scrollIntoView({ block: "nearest" });
  }
}

function onKey(event) {
  const typing = event.target.matches("input, select, textarea");
  if (event.ctrlKey || event.metaKey || event.altKey || (typing && event.key !== "Escape")) return;
  const actions = {
    "/": () => document.getElementById("words").focus(),
    j: () => step(1),
    k: () => step(-1),
    f: chooseFailures,
    Escape: () => {
      clear();
      document.activeElement.blur();
    },
  };
  if (!Object.hasOwn(actions, event.key)) return;
  event.preventDefault();
  actions[event.key]();
}

function showFoot() {
  const keys = KEYS.map(([key, does]) => make("span", {}, make("kbd", {}, key), ` ${does}`));
  document.getElementById("foot").append(make("p", { class: "keys" }, keys));
}

showHead();
showOverview(choose);
showFilter();
showResults();
showFoot();
apply();
openFailuresOnPaper();
openLinked(clear);
addEventListener("hashchange", () => openLinked(clear));
addEventListener("keydown", onKey);
