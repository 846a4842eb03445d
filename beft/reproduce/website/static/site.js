// The menu, light and dark, tables that sort and filter, and the search. Plain scripts, so that they run from files too.
"use strict";

const root = document.documentElement.dataset.root;

function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// Menu, on narrow screens

const menu = document.querySelector("button.menu");
menu.addEventListener("click", () => {
  const open = document.body.classList.toggle("menu-open");
  menu.setAttribute("aria-expanded", String(open));
});

// Light and dark

document.querySelector("button.theme").addEventListener("click", () => {
  const chosen = document.documentElement.style.colorScheme;
  const dark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.style.colorScheme = dark ? "light" : "dark";
  try {
    localStorage.setItem("colour-scheme", dark ? "light" : "dark");
  } catch {
    // Not kept: the choice holds for this page.
  }
});

// Tables that sort. Cells with data-value sort by that number, others by their text, numbers in it as numbers.

function valueOf(cell) {
  const number = cell.dataset.value;
  if (number !== undefined && number !== "") return Number(number);
  const text = cell.textContent.trim();
  if (text === "" || text === "\u2013") return null;
  return /^[+-]?[\d,]*\.?\d+(e[+-]?\d+)?$/i.test(text) ? Number(text.replaceAll(",", "")) : text;
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), "en", { numeric: true });
}

function sortBy(table, column, descending) {
  const body = table.tBodies[0];
  const keyed = [...body.rows].map((row) => [valueOf(row.cells[column]), row]);
  keyed.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null); // what is missing comes last
    return descending ? compare(b, a) : compare(a, b);
  });
  body.append(...keyed.map(([, row]) => row));
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = make("button", { type: "button" });
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") === "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      sortBy(table, column, descending);
    });
  });
}

const filter = document.querySelector(".filter");
if (filter) {
  const rows = [...document.querySelectorAll("#runs tbody tr")];
  const texts = rows.map((row) => [...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase());
  const show = () => {
    const words = filter.querySelector("input").value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, i) => {
      row.hidden = !words.every((word) => texts[i].includes(word));
      shown += !row.hidden;
    });
    filter.querySelector(".count").textContent = `${shown} of ${rows.length}`;
  };
  filter.hidden = false;
  filter.querySelector("input").addEventListener("input", show);
  show();
}

// Search over all pages. The index comes as a script, because pages from files may not read other files.

const MOST = 20;
const field = document.querySelector(".search input");
const found = document.querySelector(".search .found");
let loading = null;

function load() {
  loading ??= new Promise((resolve, reject) => {
    const script = make("script", { src: `${root}static/search-index.js` });
    script.addEventListener("load", () => {
      resolve(window.searchIndex.map(([address, page, title, text]) => {
        const lower = { page: page.toLowerCase(), title: title.toLowerCase(), text: text.toLowerCase() };
        return { address, page, title, text, lower, record: address.startsWith("records/") };
      }));
    });
    script.addEventListener("error", reject);
    document.head.append(script);
  });
  return loading;
}

// How well a section fits: all words must be in it; those in titles count more, records come after pages.
function fit(section, words) {
  let sum = section.record ? -5 : 0;
  for (const word of words) {
    const { page, title, text } = section.lower;
    const inTitle = title.includes(word);
    const inPage = page.includes(word);
    if (!inTitle && !inPage && !text.includes(word)) return null;
    sum += (inTitle ? 10 : 0) + (inPage ? 6 : 0) + Math.min(text.split(word).length - 1, 5);
  }
  return sum;
}

// The text around the first word that is in it, with the words marked.
function excerpt(section, words) {
  const places = words.map((word) => section.lower.text.indexOf(word)).filter((place) => place >= 0);
  const start = Math.max(0, Math.min(...places, section.text.length) - 50);
  const text = section.text.slice(places.length ? start : 0, (places.length ? start : 0) + 160);
  const line = make("span", { className: "excerpt" }, start > 0 && places.length ? "\u2026" : "");
  const lower = text.toLowerCase();
  let end = 0;
  while (end < text.length) {
    let next = null;
    for (const word of words) {
      const place = lower.indexOf(word, end);
      if (place >= 0 && (next === null || place < next[0])) next = [place, word];
    }
    if (next === null) break;
    line.append(text.slice(end, next[0]), make("mark", {}, text.slice(next[0], next[0] + next[1].length)));
    end = next[0] + next[1].length;
  }
  line.append(text.slice(end), "\u2026");
  return line;
}

function result(section, words) {
  const titles = [section.page, section.title].filter(Boolean).join(" \u203a ");
  return make("a", { href: root + section.address }, make("span", { className: "where" }, titles), excerpt(section, words));
}

async function search() {
  const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length === 0) {
    found.hidden = true;
    return;
  }
  const sections = await load();
  const fitting = sections.map((section) => [fit(section, words), section]).filter(([sum]) => sum !== null);
  fitting.sort(([a], [b]) => b - a);
  const count = `${fitting.length} ${fitting.length === 1 ? "place" : "places"}`;
  const note = fitting.length > MOST ? `${count}, the first ${MOST}:` : `${count}${fitting.length ? ":" : ""}`;
  found.replaceChildren(make("p", {}, note), ...fitting.slice(0, MOST).map(([, section]) => result(section, words)));
  found.hidden = false;
}

field.addEventListener("focus", load, { once: true });
field.addEventListener("input", search);
field.addEventListener("focus", () => field.value && search());
document.addEventListener("click", (event) => {
  if (!event.target.closest(".search") || event.target.closest(".found a")) found.hidden = true;
});
document.querySelector(".search").addEventListener("keydown", (event) => {
  const links = [...found.querySelectorAll("a")];
  const place = links.indexOf(document.activeElement);
  if (event.key === "Escape") {
    found.hidden = true;
    field.blur();
  } else if (event.key === "Enter" && document.activeElement === field && links.length) {
    links[0].click();
  } else if ((event.key === "ArrowDown" || event.key === "ArrowUp") && links.length) {
    const next = place + (event.key === "ArrowDown" ? 1 : -1);
    (next < 0 ? field : links[Math.min(next, links.length - 1)]).focus();
    event.preventDefault();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !event.target.closest("input, textarea")) {
    field.focus();
    event.preventDefault();
  }
});
