// The frame of every page: connection errors, unsaved verdicts, the loading sign.

import { at, connection, request } from "./api.js";
import { ask } from "./dialog.js";
import { busy, element } from "./page.js";
import { showStanding } from "./unsaved/standing.js";
import { clear, entries } from "./unsaved/store.js";

const QUIET_S = 10; // after this silence the frame checks whether the server answers
const AWAY_S = 3;
const trouble = document.getElementById("trouble");
const standing = document.getElementById("unsaved");

async function isThere() {
  return request(at("/healthz"), { cache: "no-store", signal: AbortSignal.timeout(1000 * QUIET_S) }).then(() => true, () => false);
}

let since = null; // when the trouble began

function showTrouble() {
  const { problem } = connection;
  since = problem ? since ?? new Date() : null;
  if (trouble.dataset.code === (problem?.code ?? "")) return;
  trouble.dataset.code = problem?.code ?? "";
  trouble.hidden = !problem;
  if (!problem) return trouble.replaceChildren();
  const time = since.toLocaleTimeString("en-GB", { timeStyle: "short" });
  const again = element("button", { type: "button", onclick: () => busy(retry(again)) }, "Try again");
  return trouble.replaceChildren(element("p", {}, `${problem.message} `, element("code", {}, problem.code),
    ` This page shows data from ${time} or earlier.`), again);
}

async function retry(button) {
  button.disabled = true;
  if (await isThere()) location.reload();
  button.disabled = false;
}

async function watch() {
  const silence_s = (Date.now() - connection.answeredAt) / 1000;
  if (!document.hidden && (connection.isAway || silence_s >= QUIET_S)) await isThere();
  setTimeout(watch, 1000 * (connection.isAway ? AWAY_S : QUIET_S));
}

// While the server is unreachable, a link would lead to the browser's own error page. An answer that was on
// its way when the network went down does not mean that the server is reachable.
function guard(event, go) {
  const mayGo = navigator.onLine && !connection.isAway;
  if (mayGo || event.defaultPrevented) return;
  event.preventDefault();
  busy(isThere()).then((is) => is && go());
}

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href]");
  const isPlain = link && !link.target && !link.download && !event.ctrlKey && !event.metaKey && !event.shiftKey;
  if (isPlain && !link.getAttribute("href").startsWith("#")) guard(event, () => location.assign(link.href));
});
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method !== "dialog") guard(event, () => form.requestSubmit());
});

// Signing out discards verdicts that are not saved.
document.querySelector("form.who")?.addEventListener("submit", async (event) => {
  const count = entries().length;
  if (!count || connection.isAway) return;
  event.preventDefault();
  const agreed = await ask({
    title: count === 1 ? "Sign out and lose 1 unsaved verdict?" : `Sign out and lose ${count} unsaved verdicts?`,
    text: "The server does not have them yet. Signing out removes them from this browser.",
    agree: "Sign out and lose them",
  });
  if (!agreed) return;
  clear();
  event.target.submit();
});

connection.addEventListener("change", showTrouble);
addEventListener("offline", isThere);
addEventListener("online", isThere);
addEventListener("beforeunload", (event) => {
  if (!event.defaultPrevented) document.body.toggleAttribute("data-loading", true);
});
if (standing) showStanding(standing);
setTimeout(watch, 1000 * QUIET_S);
