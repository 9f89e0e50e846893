"use strict";
// Elements and numbers. Text of any origin enters the document through `textContent` or a text node, nowhere else.

function el(tag, properties, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name in node && name !== "list" && typeof value !== "string") node[name] = value;
    else node.setAttribute(name === "className" ? "class" : name, value === true ? "" : value);
  }
  append(node, children);
  return node;
}

function append(node, children) {
  for (const child of children.flat(9)) {
    if (child !== undefined && child !== null && child !== false) {
      node.append(child instanceof Node ? child : document.createTextNode(visible(String(child))));
    }
  }
}

// Characters that reorder or hide text, and controls, are shown as escapes; tabs and line ends stay.
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]|\udb40[\udc00-\udfff]/g;

function visible(text) {
  return text.replace(HIDDEN, (found) =>
    Array.from(found, (c) => "\\u" + c.codePointAt(0).toString(16).padStart(4, "0")).join(""));
}

function clear(node) {
  node.replaceChildren();
  return node;
}

function byId(id) {
  return document.getElementById(id);
}

function capital(text) {
  return /^[a-z]/.test(text) ? text[0].toUpperCase() + text.slice(1) : text;
}

// --- numbers

const GROUPED = new Intl.NumberFormat("en-US");

function count(value) {
  return GROUPED.format(value);
}

function plural(value, one, many) {
  return `${count(value)} ${value === 1 ? one : many || one + "s"}`;
}

function number(value, digits) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1000) return GROUPED.format(Math.round(value));
  if (size !== 0 && size < 0.001) return value.toExponential(1);
  return String(Number(value.toPrecision(digits || 3)));
}

function percent(value) {
  return value === null || value === undefined || Number.isNaN(value) ? "–" : `${(100 * value).toFixed(1)}%`;
}

// --- data in the page

function embedded(name) {
  return JSON.parse(byId(name).textContent);
}

let fetched = null; // packed parts that a server sent in place of those in the page

async function unpacked(name) {
  const text = fetched ? fetched[name] : (byId(`packed-${name}`) || {}).textContent;
  return text === undefined ? null : inflate(text);
}

async function inflate(base64) {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

// --- a table

function table(columns, rows, caption, className) {
  // columns: [{title, number}], rows: arrays of cells (text, or nodes)
  const cell = (tag, column, content) =>
    el(tag, { className: column.number ? "num" : column.text ? "text" : null, scope: tag === "th" ? "col" : null }, content);
  return el("div", { className: `scroll ${className || ""}`, tabindex: "0", role: "group", "aria-label": caption || "Table" },
    el("table", {},
      caption ? el("caption", {}, caption) : null,
      el("thead", {}, el("tr", {}, columns.map((column) => cell("th", column, column.title)))),
      el("tbody", {}, rows.map((row) =>
        el("tr", { className: row.className }, columns.map((column, i) => cell("td", column, row[i])))))));
}
