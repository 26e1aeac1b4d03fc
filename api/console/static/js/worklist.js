// Keeps the worklist up to date: rows change where they are, and new studies wait for a click so that nothing moves.

import { age, count } from "./page.js";

const PAUSE_MS = 4000;
const LONGEST_PAUSE_MS = 60000;
const MOST_ROWS = 500; // the most that a page may ask for

const news = document.getElementById("news");
const button = document.getElementById("show-news");
let list = document.getElementById("list");
let pause_ms = PAUSE_MS;
let timer = null;
let last = { address: null, etag: null };
let unseen = []; // rows above those that are shown
const served = new Map(); // rows as the server sent them, by their id

function rowsOf(place) {
  return [...place.querySelectorAll("tbody > tr")];
}

function showAges() {
  for (const time of document.querySelectorAll("#list time")) time.textContent = age(time.dateTime);
}

function remember(rows) {
  for (const row of rows) served.set(row.id, row.outerHTML);
}

// The page's own address, for as many rows as there are: those below would not be told of otherwise.
function address() {
  const asked = new URLSearchParams(location.search);
  const wanted = rowsOf(list).length + unseen.length;
  if (wanted > Number(asked.get("limit") ?? 50)) asked.set("limit", Math.min(MOST_ROWS, wanted));
  return `${location.pathname}?${asked}`.replace(/\?$/, "");
}

async function fetchPage() {
  const wanted = address();
  const headers = wanted === last.address && last.etag ? { "If-None-Match": last.etag } : {};
  const response = await fetch(wanted, { headers, cache: "no-store", redirect: "manual" });
  if (response.type === "opaqueredirect") location.reload(); // the session is over
  if (response.status === 304) return null;
  if (!response.ok) throw new Error(`The server answered ${response.status}.`);
  last = { address: wanted, etag: response.headers.get("ETag") };
  return new DOMParser().parseFromString(await response.text(), "text/html");
}

function update(page) {
  const fresh = page.getElementById("list");
  if (!rowsOf(list).length) {
    if (rowsOf(fresh).length) replaceList(fresh);
    return;
  }
  const rows = rowsOf(fresh);
  for (const row of rows) {
    const known = served.has(row.id) && document.getElementById(row.id);
    if (known && served.get(row.id) !== row.outerHTML) replaceRow(known, row);
  }
  if ("isFirst" in list.dataset) announce(rows);
}

function replaceList(fresh) {
  remember(rowsOf(fresh));
  list.replaceWith(document.adoptNode(fresh));
  list = fresh;
}

function replaceRow(known, row) {
  const hadFocus = known.contains(document.activeElement);
  served.set(row.id, row.outerHTML);
  known.replaceWith(document.adoptNode(row));
  if (hadFocus) row.querySelector("a").focus();
}

function announce(rows) {
  const first = rows.findIndex((row) => served.has(row.id));
  unseen = first === -1 ? rows : rows.slice(0, first);
  news.hidden = unseen.length === 0;
  button.textContent = unseen.length === 1 ? "1 new study" : `${count(unseen.length)}${first === -1 ? "+" : ""} new studies`;
}

function showNews() {
  // Where more have come than were asked for there is a gap below them, which the page itself fills.
  if (address() !== last.address || !rowsOf(list).length || unseen.length >= MOST_ROWS) return location.reload();
  remember(unseen);
  list.querySelector("tbody").prepend(...unseen.map((row) => document.adoptNode(row)));
  unseen[0].querySelector("a").focus();
  unseen = [];
  news.hidden = true;
  showAges();
  return undefined;
}

async function look() {
  clearTimeout(timer);
  if (document.hidden) return;
  try {
    const page = await fetchPage();
    if (page) update(page);
    pause_ms = PAUSE_MS;
  } catch {
    pause_ms = Math.min(2 * pause_ms, LONGEST_PAUSE_MS); // a server that is away or busy is left in peace
  }
  showAges();
  timer = setTimeout(look, pause_ms);
}

if (list) {
  remember(rowsOf(list));
  showAges();
  button.addEventListener("click", showNews);
  document.addEventListener("visibilitychange", look);
  document.addEventListener("studies-sent", look);
  timer = setTimeout(look, PAUSE_MS);
}
