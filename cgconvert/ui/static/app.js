// The page. It has no framework and loads nothing from elsewhere. Text from files is only ever set as text.

const $ = (id) => document.getElementById(id);
const state = { media: null, path: "", folder: "", t: 0, looks: [], limit: 0, learn: false, jobs: "", ready: new Set() };
const learning = { paintings: "", source: "" };

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

const clock = (seconds) => {
  const all = Math.round(seconds), h = Math.floor(all / 3600), m = Math.floor(all / 60) % 60, s = all % 60;
  const two = (n) => String(n).padStart(2, "0");
  return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
};
const size = (bytes) => {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let n = bytes, unit = 0;
  while (n >= 1000 && unit < 4) { n /= 1024; unit += 1; }
  return `${n < 10 && unit ? n.toFixed(1) : Math.round(n)} ${units[unit]}`;
};
const say = (text) => { $("status").textContent = text; };

async function ask(address, body) {
  const options = body === undefined ? {} : {
    method: "POST", body: JSON.stringify(body),
    headers: { "content-type": "application/json", "x-cgconvert": "1" },
  };
  let answer;
  try { answer = await fetch(address, options); } catch { throw new Error("The server does not answer."); }
  if (!answer.ok) {
    const told = await answer.json().catch(() => ({}));
    throw new Error(told.error || `The server answers ${answer.status}.`);
  }
  return answer;
}
const askJson = async (address, body) => (await ask(address, body)).json();

function problem(error) {
  const text = error && error.message ? error.message : "";
  $("problem").hidden = !text;
  $("problem").textContent = text ? text[0].toUpperCase() + text.slice(1) : "";
}

// --- files ---------------------------------------------------------------------------------------------------

async function open(folder) {
  let listed;
  try { listed = await askJson(`/api/files?path=${encodeURIComponent(folder)}`); } catch (error) {
    $("files-note").textContent = error.message;
    return;
  }
  state.folder = listed.path;
  const crumbs = [];
  if (listed.parent !== null) {
    const up = make("button", { textContent: "↑ up", type: "button" });
    up.setAttribute("aria-label", "One folder up");
    up.onclick = () => open(listed.parent);
    crumbs.push(up, make("span", { className: "note", textContent: listed.path }));
  }
  $("crumbs").replaceChildren(...crumbs);
  $("files").replaceChildren(...listed.entries.map((entry) => {
    const sign = make("span", { className: `sign ${entry.kind}` });
    sign.setAttribute("aria-hidden", "true");
    const name = make("span", { className: "name", textContent: entry.name, title: entry.name });
    const detail = make("span", { className: "size", textContent: entry.bytes === undefined ? "" : size(entry.bytes) });
    const button = make("button", { type: "button" }, sign, name, detail);
    button.setAttribute("aria-label", `${entry.kind} ${entry.name} ${detail.textContent}`);
    button.dataset.path = entry.path;
    button.onclick = () => (entry.kind === "folder" ? open(entry.path) : choose(entry.path, entry.kind));
    return make("li", {}, button);
  }));
  $("use-folder").hidden = state.learn || !listed.entries.some((entry) => entry.kind === "picture");
  $("files").hidden = !listed.entries.length;
  $("files-note").textContent = !listed.entries.length ? "There is no video or picture in this folder."
    : listed.more ? `${listed.more} more are not listed.` : "";
}

async function choose(path, kind) {
  if (state.learn) {
    if (kind === "video") { learning.source = path; $("source").textContent = path; }
    return;
  }
  problem(null);
  try { state.media = await askJson(`/api/media?path=${encodeURIComponent(path)}`); } catch (error) {
    state.media = null;
    $("view").hidden = true;
    $("empty").hidden = false;
    problem(error);
    return;
  }
  const media = state.media;
  for (const button of $("files").querySelectorAll("button")) button.setAttribute("aria-current", String(button.dataset.path === path));
  $("empty").hidden = true;
  $("view").hidden = false;
  $("side").hidden = $("clip").hidden = true;
  $("clip").removeAttribute("src");
  $("work-title").textContent = media.name;
  $("time-row").hidden = $("play").hidden = media.kind !== "video";
  $("grid").hidden = media.kind !== "folder";
  state.t = 0;
  if (media.kind === "video") {
    const last = Math.max(0, (media.duration || 0) - 1 / media.rate);
    Object.assign($("time"), { max: last, step: 1 / media.rate, value: last / 3 });
    state.t = last / 3;
    $("facts").textContent = `${media.width}x${media.height}, ${media.rate.toFixed(2)} frames/s, ${clock(media.duration || 0)}, ${size(media.bytes)}`;
  } else if (media.kind === "picture") $("facts").textContent = size(media.bytes);
  else {
    $("facts").textContent = `${media.count} pictures${media.count > media.pictures.length ? `, of which ${media.pictures.length} are shown` : ""}`;
    state.path = media.pictures[0].path;
  }
  if (media.kind !== "folder") state.path = media.path;
  $("output").value = "";
  showClock();
  if (media.kind === "folder") showGrid();
  refresh(true);
}

function showGrid() {
  $("grid").replaceChildren(...state.media.pictures.map((one) => {
    const image = make("img", { alt: "", loading: "lazy", src: frameAddress({ path: one.path, edge: 320, plain: true }) });
    const button = make("button", { type: "button" }, make("figure", {}, image, make("figcaption", { textContent: one.name })));
    button.onclick = () => { state.path = one.path; refresh(true); };
    return button;
  }));
}

// --- the frame -----------------------------------------------------------------------------------------------

const look = () => ({
  model: document.querySelector("#looks :checked")?.value || "",
  strength: $("strength").value, stroke: $("stroke").value, keep_colours: $("keep").checked,
});

function frameAddress({ path = state.path, model, edge = 960, plain = false }) {
  const query = new URLSearchParams({ path, t: state.t, edge });
  if (!plain) {
    const asked = look();
    for (const [name, value] of Object.entries({ ...asked, model: model || asked.model })) query.set(name, value);
  }
  return `/api/frame?${query}`;
}

async function put(image, address) {
  const url = URL.createObjectURL(await (await ask(address)).blob());
  const old = image.src;
  image.src = url;
  await image.decode().catch(() => {});
  if (old.startsWith("blob:")) URL.revokeObjectURL(old);
}

let painting = false, again = null;
async function refresh(isNew = false) {
  $("strength-value").textContent = `${Math.round($("strength").value * 100)}%`;
  if (!state.media) return;
  if (painting) { again = isNew || again === true; return; }  // the newest wish counts, older ones are skipped
  painting = true;
  const slow = setTimeout(() => { $("busy").hidden = false; }, 300);
  try {
    if (isNew) await put($("before"), frameAddress({ plain: true }));
    await put($("after"), frameAddress({}));
    problem(null);
    say("The frame is painted.");
  } catch (error) { problem(error); }
  clearTimeout(slow);
  $("busy").hidden = true;
  painting = false;
  if (again !== null) { const next = again; again = null; refresh(next); } else plan();
}

const showClock = () => {
  $("clock").textContent = clock(state.t);
  $("time").setAttribute("aria-valuetext", clock(state.t));
};

async function plan() {
  if (!state.media) return;
  $("estimate").textContent = "";
  try {
    const planned = await askJson("/api/plan", { ...look(), path: state.media.path, output: $("output").value });
    const name = planned.output.split(/[\\/]/).pop();
    $("output").placeholder = name;
    $("where").textContent = `Result: ${planned.output}`;
    $("where").classList.remove("problem");
    $("plan-notes").replaceChildren(...planned.notes.map((note) => make("li", { textContent: note })));
    $("start").disabled = false;
  } catch (error) {
    $("where").textContent = error.message;
    $("where").classList.add("problem");
    $("start").disabled = true;
  }
}

async function busily(button, word, work) {
  const text = button.textContent;
  button.disabled = true;
  button.textContent = word;
  try { await work(); problem(null); } catch (error) { problem(error); $("problem").scrollIntoView({ block: "nearest" }); }
  button.disabled = false;
  button.textContent = text;
}

async function showAll() {
  $("side").hidden = false;
  const cells = state.looks.map((one) => {
    const image = make("img", { alt: `The frame as ${one.title}` });
    const button = make("button", { type: "button" }, make("figure", {}, image, make("figcaption", { textContent: one.title })));
    button.onclick = () => {
      for (const input of $("looks").querySelectorAll("input")) input.checked = input.value === one.name;
      refresh();
    };
    return { one, image, button };
  });
  $("side").replaceChildren(...cells.map((cell) => cell.button));
  for (const { one, image } of cells) await put(image, frameAddress({ model: one.name, edge: 480 }));
}

async function playClip() {
  const query = new URLSearchParams({ path: state.path, t: state.t, ...look() });
  const blob = await (await ask(`/api/clip?${query}`)).blob();
  const old = $("clip").src;
  $("clip").src = `/api/clip?${query}`;
  if (old.startsWith("blob:")) URL.revokeObjectURL(old);
  $("clip").hidden = false;
  say(`Three seconds are ready, ${size(blob.size)}.`);
  await $("clip").play().catch(() => {});
}

// --- jobs ----------------------------------------------------------------------------------------------------

const STATES = { waiting: "Waiting", running: "Running", paused: "Paused", done: "Done", failed: "Failed", cancelled: "Cancelled" };

function describe(job) {
  if (job.wish) return job.wish === "pause" ? "Pausing: finishing what cannot be interrupted" : "Cancelling";
  const parts = [STATES[job.state]];
  if (job.state === "running" && job.total && !job.text) {
    parts.push(`${job.done} of ${job.total} ${job.unit}s`);
    if (job.seconds_left !== null) parts.push(`${clock(job.seconds_left)} left`);
  }
  if (job.text && !["paused", "cancelled", "done"].includes(job.text)) parts.push(job.text);
  return parts.join(", ");
}

function jobActions(job) {
  const able = { waiting: ["pause", "cancel"], running: ["pause", "cancel"], paused: ["resume", "cancel"],
    failed: ["resume", "remove"], cancelled: ["resume", "remove"], done: ["remove"] }[job.state];
  const words = { pause: "Pause", resume: job.state === "paused" ? "Resume" : "Try again", cancel: "Cancel", remove: "Remove from list" };
  const buttons = job.wish ? [] : able.map((what) => {
    const button = make("button", { type: "button", textContent: words[what] });
    button.setAttribute("aria-label", `${words[what]}: ${job.title}`);
    button.dataset.key = `${job.id}-${what}`;
    button.onclick = () => {
      if (what === "cancel" && !confirm(`Cancel ${job.title}? What is finished of it is thrown away.`)) return;
      ask(`/api/jobs/${job.id}/${what}`, {}).catch(problem);
    };
    return button;
  });
  if (job.has_result) {
    buttons.unshift(make("a", { href: `/api/jobs/${job.id}/result?show`, target: "_blank", textContent: "Open result" }),
      make("a", { href: `/api/jobs/${job.id}/result`, textContent: "Save result" }));
  }
  if (job.has_report && job.state === "done") {
    const button = make("button", { type: "button", textContent: "Report" });
    button.dataset.key = `${job.id}-report`;
    button.onclick = () => showReport(job).catch(problem);
    buttons.push(button);
  }
  return buttons;
}

function showJobs(jobs) {
  const focused = document.activeElement?.dataset?.key;
  $("no-jobs").hidden = jobs.length > 0;
  $("jobs").replaceChildren(...jobs.slice().reverse().map((job) => {
    const words = make("p", { className: "note" }, make("span", { className: `state ${job.state}`, textContent: describe(job) }));
    const item = make("li", {}, make("h3", { textContent: job.kind === "learn" ? `Learning ${job.title}` : job.title }), words);
    if (job.state === "running") {
      const bar = make("progress", { max: job.total || 1 });
      if (job.total && !job.text) bar.value = job.done;
      bar.setAttribute("aria-label", `${job.title}: ${describe(job)}`);
      item.append(bar);
    }
    if (job.kind === "learn" && ["running", "done", "paused"].includes(job.state) && job.done) {
      const image = make("img", { alt: `What ${job.title} has learned so far`, src: `/api/jobs/${job.id}/preview?${Math.floor(Date.now() / 8000)}` });
      image.onerror = () => image.remove();
      item.append(image);
    }
    if (job.state === "done" && job.output) item.append(make("p", { className: "note", textContent: job.output }));
    item.append(make("div", { className: "actions" }, ...jobActions(job)));
    return item;
  }));
  if (focused) $("jobs").querySelector(`[data-key="${focused}"]`)?.focus();
  const ended = jobs.filter((job) => job.state === "done");
  for (const job of ended) {
    if (state.ready.has(job.id)) continue;
    state.ready.add(job.id);
    if (state.jobs) { say(`${job.title} is done.`); if (job.kind === "learn") loadLooks(); else open(state.folder); }
  }
  state.jobs = "known";
}

async function showReport(job) {
  const report = await askJson(`/api/jobs/${job.id}/report`);
  const facts = { Result: report.output, Model: report.model };
  if (report.frames_out !== undefined) {
    Object.assign(facts, { Frames: `${report.frames_out} of ${report.frames_in}`, Time: `${clock(report.seconds)}, ${report.frames_per_second.toFixed(1)} frames/s`,
      Engine: `${report.engine.engine || ""} ${report.engine.precision || ""}`.trim(),
      "Other streams": `${report.streams.filter((one) => one.action === "copied").length} kept, ${report.streams.filter((one) => one.action === "dropped").length} dropped` });
  } else Object.assign(facts, { Converted: report.converted, Failed: report.failed, Skipped: report.skipped });
  if (report.warnings?.length) facts.Notes = report.warnings.join("; ");
  $("report-facts").replaceChildren(...Object.entries(facts).filter(([, value]) => value !== undefined && value !== "")
    .flatMap(([name, value]) => [make("dt", { textContent: name }), make("dd", { textContent: String(value) })]));
  $("report-text").textContent = JSON.stringify(report, null, 1);
  $("report").showModal();
}

function listen() {
  const events = new EventSource("/api/events");
  events.addEventListener("jobs", (event) => { $("offline").hidden = true; showJobs(JSON.parse(event.data)); });
  events.onopen = () => { $("offline").hidden = true; };
  events.onerror = () => { $("offline").hidden = false; };
}

// --- uploads -------------------------------------------------------------------------------------------------

function send(file) {
  if (!file) return;
  if (file.size > state.limit) {
    $("upload-note").textContent = `${file.name} is larger than ${size(state.limit)}. Choose it in the list, which needs no copy.`;
    return;
  }
  const request = new XMLHttpRequest();  // fetch does not tell how far an upload is
  request.open("POST", `/api/upload?name=${encodeURIComponent(file.name)}`);
  request.setRequestHeader("x-cgconvert", "1");
  request.responseType = "json";
  request.upload.onprogress = (event) => { $("upload-note").textContent = `${size(event.loaded)} of ${size(event.total)}`; };
  request.onload = () => {
    if (request.status === 201) { $("upload-note").textContent = `${request.response.name} is here.`; choose(request.response.path); }
    else $("upload-note").textContent = request.response?.error || `The server answers ${request.status}.`;
  };
  request.onerror = () => { $("upload-note").textContent = "The upload was broken off."; };
  request.send(file);
}

// --- set-up --------------------------------------------------------------------------------------------------

async function loadLooks() {
  const told = await askJson("/api/looks");
  state.looks = told.looks;
  state.limit = told.upload_limit;
  $("tab-learn").hidden = !told.learns;
  const chosen = look().model || (told.looks.some((one) => one.name === "photo2monet") ? "photo2monet" : told.looks[0]?.name);
  $("looks").replaceChildren(...told.looks.map((one) => {
    const input = make("input", { type: "radio", name: "look", value: one.name, checked: one.name === chosen, className: "visually-hidden" });
    return make("label", { title: one.title }, input, one.name);
  }));
}

function show(learns) {
  state.learn = learns;
  $("tab-learn").setAttribute("aria-pressed", String(learns));
  $("tab-convert").setAttribute("aria-pressed", String(!learns));
  $("learn").hidden = !learns;
  $("view").hidden = learns || !state.media;
  $("empty").hidden = learns || Boolean(state.media);
  $("work-title").textContent = learns ? "Learn a look" : state.media?.name || "See it";
  problem(null);
  open(state.folder);
}

$("tab-convert").onclick = () => show(false);
$("tab-learn").onclick = () => show(true);
$("use-folder").onclick = () => choose(state.folder, "folder");
$("take-paintings").onclick = () => { learning.paintings = state.folder; $("paintings").textContent = state.folder || "open a folder first"; };
$("take-source").onclick = () => { learning.source = state.folder; $("source").textContent = state.folder || "open a folder first"; };
$("learn").onsubmit = (event) => {
  event.preventDefault();
  ask("/api/jobs", { kind: "learn", ...learning, name: $("name").value, minutes: $("minutes").value }).then(() => problem(null), problem);
};
$("split").oninput = () => {
  $("compare").style.setProperty("--split", `${$("split").value}%`);
  $("split").setAttribute("aria-valuetext", `${$("split").value}% before, ${100 - $("split").value}% after`);
};
let settle;
$("time").oninput = () => {
  state.t = Number($("time").value);
  showClock();
  clearTimeout(settle);
  settle = setTimeout(() => refresh(true), 120);
};
for (const id of ["strength", "stroke", "keep"]) $(id).oninput = () => refresh();
$("looks").onchange = () => refresh();
$("output").onchange = plan;
$("all-looks").onclick = () => busily($("all-looks"), "Painting all looks…", showAll);
$("play").onclick = () => busily($("play"), "Making three seconds…", playClip);
$("measure").onclick = () => busily($("measure"), "Measuring on a few frames…", async () => {
  const found = await askJson("/api/estimate", { ...look(), path: state.media.path });
  $("estimate").textContent = found.text[0].toUpperCase() + found.text.slice(1);
  $("estimate").classList.toggle("problem", found.too_large);
});
$("start").onclick = () => busily($("start"), "Starting…", async () => {
  await ask("/api/jobs", { ...look(), path: state.media.path, output: $("output").value });
  say("The job is in the queue.");
});
$("upload").onchange = () => send($("upload").files[0]);
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") send(event.dataTransfer.files[0]);
  });
}

loadLooks().catch(problem);
open("");
listen();
