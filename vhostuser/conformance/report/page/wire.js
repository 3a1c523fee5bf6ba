// The log of a case: a table of exchanges; those with bytes show them when asked.

const ARROWS = { sent: "→", received: "←", note: "·" };
const HEX_LINE = 16;

function wireLog(result) {
  const many = new Set(result.log.map((each) => each.connection)).size > 1;
  const body = make("tbody");
  for (const exchange of result.log) body.append(...exchangeRows(exchange, many));
  const columns = ["seconds", many ? "conn." : null, "", "message", "descriptors", "bytes"].filter((each) => each !== null);
  const head = make("tr", {}, columns.map((each) => make("th", { scope: "col" }, each)));
  return make("div", { class: "scroll" }, make("table", { class: "wire" }, make("thead", {}, head), body));
}

function exchangeRows(exchange, many) {
  const hex = exchange.data ? make("tr", { class: "hex", hidden: true }) : null;
  const bytes = hex ? bytesButton(exchange, hex, many) : exchange.size || "";
  const row = make(
    "tr",
    { class: exchange.direction },
    make("td", { class: "number" }, exchange.seconds.toFixed(4)),
    many ? make("td", { class: "number" }, String(exchange.connection)) : null,
    make("td", { class: "arrow", title: exchange.direction }, ARROWS[exchange.direction] ?? "·"),
    make("td", { class: "message" }, exchange.text),
    make("td", { class: "fds" }, exchange.fds.map((fd) => make("span", { class: "fd" }, fd))),
    make("td", { class: "number" }, bytes),
  );
  return hex ? [row, hex] : [row];
}

function bytesButton(exchange, hex, many) {
  const size = exchange.size || exchange.data.length / 2;
  const button = make("button", { type: "button", class: "bytes", "aria-expanded": "false" }, String(size));
  button.title = "show the bytes";
  button.addEventListener("click", () => {
    if (!hex.hasChildNodes()) {
      const cell = make("td", { colspan: many ? 6 : 5 }, make("pre", {}, hexdump(exchange.data, size)));
      hex.append(cell);
    }
    hex.hidden = !hex.hidden;
    button.setAttribute("aria-expanded", String(!hex.hidden));
  });
  return button;
}

// Offset, sixteen bytes, and what of them is ASCII.
function hexdump(data, size) {
  const octets = data.match(/../g) ?? [];
  const lines = [];
  for (let at = 0; at < octets.length; at += HEX_LINE) {
    const part = octets.slice(at, at + HEX_LINE);
    const halves = [part.slice(0, 8).join(" "), part.slice(8).join(" ")];
    lines.push(`${at.toString(16).padStart(4, "0")}  ${halves.join("  ").padEnd(48)}  ${part.map(asCharacter).join("")}`);
  }
  if (size > octets.length) lines.push(`… ${size - octets.length} more bytes that the log did not keep`);
  return lines.join("\n");
}

function asCharacter(octet) {
  const code = parseInt(octet, 16);
  return code >= 0x20 && code < 0x7f ? String.fromCharCode(code) : ".";
}
