// Keeps the worklist up to date: updates rows in place, and adds new studies on a click so that nothing moves.

import { request } from "./api.js";
import { age, attempt, count } from "./page.js";

const PAUSE_MS = 4000;
const MAX_PAUSE_MS = 60000;
const MAX_ROWS = 500; // the most that a page may ask for

const button = document.getElementById("show-news");
let list = document.getElementById("list");
let pause_ms = PAUSE_MS;
let timer = null;
let isLooking = false;
let last = { address: null, etag: null };
let unseen = 0; // the number of new studies that are not shown yet
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

// The page's address with a limit that covers all rows shown, so that the lower ones are updated too.
function address() {
  const asked = new URLSearchParams(location.search);
  const wanted = rowsOf(list).length + unseen;
  if (wanted > Number(asked.get("limit") ?? 50)) asked.set("limit", Math.min(MAX_ROWS, wanted));
  return `${location.pathname}?${asked}`.replace(/\?$/, "");
}

async function fetchPage(wanted) {
  const headers = wanted === last.address && last.etag ? { "If-None-Match": last.etag } : {};
  const response = await request(wanted, { headers, cache: "no-store" });
  if (response.status === 304) return null; // as it was
  last = { address: wanted, etag: response.headers.get("ETag") };
  return new DOMParser().parseFromString(await response.text(), "text/html");
}

function update(page) {
  const fresh = page.getElementById("list");
  updateWarnings(page);
  if (!rowsOf(list).length) {
    if (rowsOf(fresh).length) replaceList(fresh);
    return;
  }
  const rows = rowsOf(fresh);
  for (const row of rows) {
    const known = served.has(row.id) && document.getElementById(row.id);
    if (known && served.get(row.id) !== row.outerHTML) replaceRow(known, row);
  }
  if ("isFirst" in list.dataset) announce(rows, { isWhole: !fresh.querySelector("[rel=next]") });
}

// Of the models whose findings are on the page by now.
function updateWarnings(page) {
  const [known, fresh] = [document, page].map((place) => place.getElementById("model-warnings"));
  if (known.outerHTML !== fresh.outerHTML) known.replaceWith(document.adoptNode(fresh));
}

function replaceList(fresh) {
  served.clear();
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

// Sorted by probability, a new study may stand anywhere. Below the last known row of a page, rows are not new.
function announce(rows, { isWhole }) {
  const last = rows.findLastIndex((row) => served.has(row.id));
  const isGap = last === -1; // more new studies than were requested; their number is unknown
  const fresh = (isGap || isWhole ? rows : rows.slice(0, last)).filter((row) => !served.has(row.id)).length;
  unseen = isGap ? 0 : fresh;
  button.hidden = fresh === 0;
  button.textContent = fresh === 1 ? "1 new study" : `${count(fresh)}${isGap ? "+" : ""} new studies`;
}

async function showNews() {
  unseen = 0;
  last.etag = null; // to be answered, whether anything has changed or not
  const page = await fetchPage(location.pathname + location.search);
  replaceList(page.getElementById("list"));
  button.hidden = true;
  showAges();
  list.querySelector("tbody a").focus();
  scrollTo({ top: 0 });
}

// A row leads to its study, as its link does; a click that marks text or asks for another tab stays the browser's.
function openRow(event) {
  const link = event.target.closest("tbody tr")?.querySelector("a");
  if (!link || event.target.closest("a, button") || !getSelection().isCollapsed) return;
  if (event.ctrlKey || event.metaKey) window.open(link.href, "_blank", "noopener");
  else link.click();
}

async function look() {
  clearTimeout(timer);
  if (document.hidden || isLooking) return;
  isLooking = true;
  try {
    const page = await fetchPage(address());
    if (page) update(page);
    pause_ms = PAUSE_MS;
  } catch {
    pause_ms = Math.min(2 * pause_ms, MAX_PAUSE_MS); // polls less often while the server is unreachable or busy
  }
  isLooking = false;
  showAges();
  timer = setTimeout(look, pause_ms);
}

if (list) {
  remember(rowsOf(list));
  showAges();
  button.addEventListener("click", () => attempt(showNews));
  document.querySelector("main").addEventListener("click", openRow);
  document.addEventListener("visibilitychange", look);
  document.addEventListener("studies-sent", look);
  timer = setTimeout(look, PAUSE_MS);
}
