// What the pages of the demo need, and no more: fetch JSON, show who made it, fill a table.
"use strict";

async function ask(url) {
  const started = performance.now();
  try {
    const response = await fetch(url, { cache: "no-store", signal: AbortSignal.timeout(15000) });
    return { status: response.status, reason: response.statusText, body: await json(response), ms: performance.now() - started };
  } catch (error) {
    // Offline, aborted, reset: there is no status to show, but there is a reason.
    return { status: 0, reason: error.name === "TimeoutError" ? "no answer within 15 s" : "no connection", body: null, ms: 0 };
  }
}

async function json(response) {
  try {
    return JSON.parse(await response.text());
  } catch {
    return null;
  }
}

function good(answer) {
  return answer.status >= 200 && answer.status < 300 && answer.body !== null;
}

function trouble(answer) {
  const parts = [answer.status || null, answer.reason].filter(Boolean);
  if (answer.status >= 200 && answer.status < 300) parts.push("but no JSON");
  // Problem details (RFC 9457): its title only repeats the status, the end of its type says what went wrong.
  const detail = answer.body && (answer.body.detail || String(answer.body.type || "").split(":").pop());
  return parts.join(" ") + (detail ? `: ${detail}` : "");
}

function element(name, text, className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = className;
  return made;
}

async function showService(section) {
  const stamp = section.querySelector(".stamp");
  const table = section.querySelector("table");
  stamp.className = "stamp";
  stamp.textContent = "Loading...";
  table.hidden = true;
  const answer = await ask(section.dataset.source);
  if (!good(answer)) {
    stamp.className = "stamp problem";
    stamp.textContent = `Could not be loaded: ${trouble(answer)}`;
    return;
  }
  stamp.replaceChildren(`Timestamp: ${answer.body.timeStamp} `, element("b", answer.body.server));
  fill(table, answer.body[section.dataset.rows] || []);
}

function fill(table, rows) {
  const keys = [...table.querySelectorAll("th")].map((th) => th.dataset.key);
  const lines = rows.map((row) => {
    const line = document.createElement("tr");
    line.append(...keys.map((key) => element("td", row[key] ?? "")));
    return line;
  });
  table.tBodies[0].replaceChildren(...lines);
  table.hidden = false;
}

async function showProbe(row) {
  const by = row.querySelector(".by");
  by.replaceChildren("Loading...");
  const answer = await ask(row.dataset.probe);
  by.replaceChildren(good(answer) ? element("b", answer.body.server) : element("span", "nobody", "problem"));
  row.querySelector(".status").textContent = good(answer) ? answer.status : trouble(answer);
  row.querySelector(".time").textContent = answer.ms ? `${answer.ms.toFixed(1)} ms` : "";
}

async function sendInline(event) {
  event.preventDefault();
  const output = event.target.querySelector("output");
  output.textContent = "Sending...";
  try {
    const response = await fetch(event.target.action, { method: "POST", body: new FormData(event.target) });
    const body = await json(response);
    output.textContent = response.ok && body ? `${body.size} bytes, sha256 ${body.sha256}` : `${response.status} ${response.statusText}`;
  } catch {
    output.textContent = "no connection";
  }
}

function load() {
  document.querySelectorAll("[data-source]").forEach(showService);
  document.querySelectorAll("[data-probe]").forEach(showProbe);
}

document.querySelectorAll("[data-again]").forEach((button) => button.addEventListener("click", load));
document.querySelectorAll("form[data-inline]").forEach((form) => form.addEventListener("submit", sendInline));
load();
