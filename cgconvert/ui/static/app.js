// The page. It has no framework and loads nothing from elsewhere. Text from files is only ever set as text.

const $ = (id) => document.getElementById(id);
const state = { media: null, asked: null, path: "", folder: "", pictures: 0, t: 0, looks: [], limit: 0, learn: false, growing: null, ready: null };
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
const counted = (number, unit) => `${number} ${unit}${number === 1 ? "" : "s"}`;
const sentence = (text) => { const all = text ? text[0].toUpperCase() + text.slice(1) : ""; return /[\w)]$/.test(all) ? `${all}.` : all; };
const say = (text) => { $("status").textContent = text; };

async function ask(address, body) {
  const options = body === undefined ? {} : {
    method: "POST", body: JSON.stringify(body),
    headers: { "content-type": "application/json", "x-cgconvert": "1" },
  };
  let answer;
  try { answer = await fetch(address, options); } catch { throw new Error("The server does not answer. Start cgconvert ui again."); }
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
  $("problem").textContent = sentence(text);
}

// --- files ---------------------------------------------------------------------------------------------------

async function open(folder) {
  let listed;
  try { listed = await askJson(`/api/files?path=${encodeURIComponent(folder)}`); } catch (error) {
    $("files-note").textContent = sentence(error.message);
    return;
  }
  const moves = $("choose").contains(document.activeElement) && listed.path !== state.folder;
  state.folder = listed.path;
  state.pictures = listed.entries.filter((entry) => entry.kind === "picture").length;
  const crumbs = [make("span", { className: "note", textContent: listed.path })];
  if (listed.parent !== null) {
    const up = make("button", { textContent: "↑ up", type: "button" });
    up.setAttribute("aria-label", "One folder up");
    up.onclick = () => open(listed.parent);
    crumbs.unshift(up);
  }
  $("crumbs").replaceChildren(...crumbs);
  const rows = new Map([...$("files").querySelectorAll("button")].map((button) => [button.dataset.path, button]));
  $("files").replaceChildren(...listed.entries.map((entry) => make("li", {}, rows.get(entry.path) || row(entry))));
  markChosen();
  $("use-folder").hidden = state.learn || !state.pictures;
  $("use-folder").textContent = `Convert all ${counted(state.pictures, "picture")} here`;
  $("files").hidden = !listed.entries.length;
  $("files-note").textContent = !listed.entries.length ? "There is no video or picture in this folder."
    : listed.more ? `${listed.more} more are not listed.` : "";
  offerFolder();
  if (moves) {  // what had the focus is gone: a keyboard goes on where the folder begins
    ($("files").querySelector("button") || $("crumbs").querySelector("button"))?.focus();
    say(`Folder ${listed.path}: ${listed.entries.length} entries.`);
  }
}

function row(entry) {
  const sign = make("span", { className: `sign ${entry.kind}` });
  sign.setAttribute("aria-hidden", "true");
  const name = make("span", { className: "name", textContent: entry.name, title: entry.name });
  const detail = make("span", { className: "size", textContent: entry.bytes === undefined ? "" : size(entry.bytes) });
  const button = make("button", { type: "button" }, sign, name, detail);
  button.setAttribute("aria-label", `${entry.kind} ${entry.name} ${detail.textContent}`);
  button.dataset.path = entry.path;
  button.onclick = () => (entry.kind === "folder" ? open(entry.path) : choose(entry.path, entry.kind));
  return button;
}

function markChosen() {
  const chosen = state.learn ? learning.source : state.media?.path;
  for (const button of $("files").querySelectorAll("button")) button.setAttribute("aria-current", String(button.dataset.path === chosen));
}

async function choose(path, kind) {
  if (state.learn) {
    if (kind === "video") learnFor(path);
    return;
  }
  problem(null);
  const asked = state.asked = {};
  let media;
  await looksLoaded;
  try { media = await askJson(`/api/media?path=${encodeURIComponent(path)}`); } catch (error) {
    if (asked !== state.asked) return;
    state.media = null;
    $("view").hidden = true;
    $("empty").hidden = false;
    $("work-title").textContent = "See it";
    markChosen();
    problem(error);
    return;
  }
  if (asked !== state.asked) return;  // something else was chosen meanwhile
  state.media = media;
  markChosen();
  $("empty").hidden = true;
  $("view").hidden = false;
  $("side").hidden = $("clip").hidden = true;
  $("clip").removeAttribute("src");
  for (const id of ["before", "after"]) $(id).removeAttribute("src");
  $("work-title").textContent = media.name;
  $("time-row").hidden = $("play").hidden = media.kind !== "video";
  $("grid").hidden = media.kind !== "folder";
  $("queued").hidden = true;
  state.t = 0;
  if (media.kind === "video") {
    const last = Math.max(0, (media.duration || 0) - 1 / media.rate);
    Object.assign($("time"), { max: last, step: 1 / media.rate, value: last / 3 });
    state.t = Number($("time").value);
    $("facts").textContent = `${media.width}x${media.height}, ${Number(media.rate.toFixed(2))} frames/s, ${clock(media.duration || 0)}, ${size(media.bytes)}`;
  } else if (media.kind === "picture") $("facts").textContent = size(media.bytes);
  else {
    $("facts").textContent = counted(media.count, "picture") + (media.count > media.pictures.length ? `, of which ${media.pictures.length} are shown` : "");
    state.path = media.pictures[0].path;
  }
  if (media.kind !== "folder") state.path = media.path;
  $("output").value = "";
  showClock();
  if (media.kind === "folder") showGrid();
  if (matchMedia("(max-width: 45rem)").matches) $("work").scrollIntoView({ block: "start" });
  refresh(true);
}

// --- pictures as a grid --------------------------------------------------------------------------------------

let inSight = null;
function showGrid() {
  inSight?.disconnect();
  inSight = new IntersectionObserver((seen) => {
    for (const one of seen) one.target.dataset.seen = one.isIntersecting ? "1" : "";
    paintGrid();
  });
  $("grid").replaceChildren(...state.media.pictures.map((one) => {
    const before = make("img", { alt: "", loading: "lazy", src: frameAddress({ path: one.path, edge: 320, plain: true }) });
    const after = make("img", { alt: "", className: "over", hidden: true });
    const layers = make("div", { className: "layers" }, before, after);
    const button = make("button", { type: "button" }, make("figure", {}, layers, make("figcaption", { textContent: one.name })));
    button.dataset.path = one.path;
    button.setAttribute("aria-label", `Show ${one.name} large`);
    button.onclick = () => { state.path = one.path; refresh(true); };
    inSight.observe(button);
    return button;
  }));
}

let paintingGrid = false;
async function paintGrid() {  // one after the other, and only what is in sight; a new look begins anew
  if (paintingGrid || painting || state.media?.kind !== "folder") return;
  paintingGrid = true;
  const media = state.media;
  for (;;) {
    const wanted = JSON.stringify(look());
    const cell = [...$("grid").children].find((one) => one.dataset.seen && one.dataset.look !== wanted);
    if (!cell || painting || state.media !== media) break;
    const image = cell.querySelector(".over");
    cell.dataset.look = wanted;
    await put(image, frameAddress({ path: cell.dataset.path, edge: 320 })).then(() => { image.hidden = false; }, () => {});
  }
  paintingGrid = false;
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
  hideOld();
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
  if (again !== null) { const next = again; again = null; refresh(next); return; }
  for (const cell of $("grid").children) cell.setAttribute("aria-current", String(cell.dataset.path === state.path));
  plan();
  paintGrid();
}

const showClock = () => {  // with tenths, so that neighbours of a frame can be told apart
  const tenths = Math.floor(state.t * 10);
  $("clock").textContent = `${clock(Math.floor(tenths / 10))}.${tenths % 10}`;
  $("time").setAttribute("aria-valuetext", $("clock").textContent);
};

function hideOld() {  // what was made of another frame or in another look
  const { model, ...others } = look();
  const frame = JSON.stringify([state.path, state.t, others]);
  if ($("side").dataset.frame !== frame) $("side").hidden = true;
  if ($("clip").dataset.frame !== frame + model) { $("clip").pause(); $("clip").hidden = true; }
  for (const cell of $("side").children) cell.setAttribute("aria-current", String(cell.dataset.model === model));
  return { side: frame, clip: frame + model };
}

let plans = 0;
async function plan() {
  if (!state.media) return;
  const number = ++plans;
  $("estimate").replaceChildren();
  $("estimate").classList.remove("problem");
  try {
    const planned = await askJson("/api/plan", { ...look(), path: state.media.path, output: $("output").value });
    if (number !== plans) return;
    const name = planned.output.split(/[\\/]/).pop();
    $("output").placeholder = name;
    $("where").textContent = `Result: ${planned.output}`;
    $("where").classList.remove("problem");
    $("plan-notes").replaceChildren(...planned.notes.map((note) => make("li", { textContent: note })));
    $("start").disabled = false;
  } catch (error) {
    if (number !== plans) return;
    $("plan-notes").replaceChildren();
    $("where").textContent = sentence(error.message);
    $("where").classList.add("problem");
    $("start").disabled = true;
  }
}

function showFacts(list, facts) {
  list.replaceChildren(...Object.entries(facts).filter(([, value]) => value !== undefined && value !== "")
    .flatMap(([name, value]) => [make("dt", { textContent: name }), make("dd", { textContent: String(value) })]));
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
  $("side").dataset.frame = hideOld().side;
  $("side").hidden = false;
  const cells = state.looks.map((one) => {
    const image = make("img", { alt: `The frame as ${one.title}` });
    const button = make("button", { type: "button" }, make("figure", {}, image, make("figcaption", { textContent: shortly(one.title) })));
    button.onclick = () => {
      for (const input of $("looks").querySelectorAll("input")) input.checked = input.value === one.name;
      refresh();
    };
    button.dataset.model = one.name;
    return { one, image, button };
  });
  $("side").replaceChildren(...cells.map((cell) => cell.button));
  hideOld();
  for (const { one, image } of cells) await put(image, frameAddress({ model: one.name, edge: 480 }));
}

async function playClip() {
  const query = new URLSearchParams({ path: state.path, t: state.t, ...look() });
  const address = `/api/clip?${query}`, made = hideOld().clip;
  await (await ask(address)).body.cancel();  // it is made now, or an error says why not; the player asks again
  if (hideOld().clip !== made) return;  // another frame or look is chosen by now
  $("clip").src = address;
  $("clip").dataset.frame = made;
  $("clip").hidden = false;
  say("Three seconds are ready.");
  await $("clip").play().catch(() => {});
}

// --- jobs ----------------------------------------------------------------------------------------------------

const STATES = { waiting: "Waiting", running: "Running", paused: "Paused", done: "Done", failed: "Failed", cancelled: "Cancelled" };

function describe(job) {  // its state in a word, and more
  if (job.wish) return job.wish === "pause" ? ["Pausing", "finishing what cannot be interrupted"] : ["Cancelling", ""];
  const parts = [];
  if (job.state === "running" && job.total && !job.text) {
    parts.push(`${job.done} of ${counted(job.total, job.unit)}`);
    if (job.seconds_left !== null) parts.push(`${clock(job.seconds_left)} left`);
  }
  if (["running", "failed"].includes(job.state) && job.text) parts.push(job.text);
  if (job.state === "paused" && job.total && job.done) parts.push(`${job.done} of ${counted(job.total, job.unit)}`);
  return [STATES[job.state], parts.join(", ")];
}

function jobActions(job) {
  const able = { waiting: ["pause", "cancel"], running: ["pause", "cancel"], paused: ["resume", "cancel"],
    failed: ["resume", "remove"], cancelled: ["resume", "remove"], done: ["remove"] }[job.state];
  const words = { pause: "Pause", resume: job.state === "paused" ? "Resume" : "Try again", cancel: "Cancel", remove: "Remove from list" };
  const buttons = job.wish ? [] : able.map((what) => {
    const button = make("button", { type: "button", textContent: words[what] });
    button.setAttribute("aria-label", `${words[what]}: ${job.title}`);
    button.onclick = () => {
      if (what === "cancel" && job.state !== "waiting" && !confirm(`Cancel ${job.title}? What is finished of it is thrown away.`)) return;
      ask(`/api/jobs/${job.id}/${what}`, {}).catch(problem);
    };
    return button;
  });
  if (job.has_result) {
    buttons.unshift(make("a", { href: `/api/jobs/${job.id}/result?show`, target: "_blank", textContent: "Open result" }),
      make("a", { href: `/api/jobs/${job.id}/result`, textContent: "Save result" }));
  }
  if (job.has_folder) {
    const button = make("button", { type: "button", textContent: "See results" });
    button.onclick = () => { show(false); open(job.output); choose(job.output, "folder"); };
    buttons.unshift(button);
  }
  if (job.kind === "learn" && job.state === "done") {
    const button = make("button", { type: "button", className: "primary", textContent: "Use this look" });
    button.onclick = () => useLook(job.title).catch(problem);
    buttons.unshift(button);
  }
  if (job.has_report && job.state === "done") {
    const button = make("button", { type: "button", textContent: "Report" });
    button.onclick = () => showReport(job).catch(problem);
    buttons.splice(buttons.length - 1, 0, button);  // before what removes the job from the list
  }
  return buttons;
}

const items = new Map();  // what the list shows, by job: it is changed in place, so that focus and clicks hold

function itemOf(job) {
  if (!items.has(job.id)) {
    const word = make("span"), more = make("span"), bar = make("progress"), image = make("img"), told = make("p", { className: "note told" });
    const notes = make("ul", { className: "notes" }), actions = make("div", { className: "actions" });
    const details = make("details", {}, make("summary"), notes);
    const title = make("h3", { textContent: job.kind === "learn" ? `Learning ${job.title}` : job.title });
    const large = make("button", { type: "button", className: "preview", hidden: true, title: "Show it large" }, image);
    large.onclick = () => { state.growing = job.id; show(true); showGrowing(); $("growing").scrollIntoView({ block: "nearest" }); };
    image.onload = () => { large.hidden = false; };
    image.onerror = () => { large.hidden = true; };
    items.set(job.id, { item: make("li", {}, title, make("p", { className: "note" }, word, more), bar, large, told, details, actions), word, more, bar, image, told, details, notes, actions });
  }
  return items.get(job.id);
}

function showJob(job) {
  const shown = itemOf(job), [word, more] = describe(job);
  Object.assign(shown.word, { className: `state ${job.state}`, textContent: word });
  shown.more.textContent = more ? `: ${more}` : "";
  shown.bar.hidden = job.state !== "running";
  if (job.total && !job.text) Object.assign(shown.bar, { max: job.total, value: job.done });
  else shown.bar.removeAttribute("value");
  shown.bar.setAttribute("aria-label", `${job.title}: ${word}, ${more}`);
  if (job.preview && shown.image.dataset.stamp !== String(job.preview)) {
    shown.image.dataset.stamp = job.preview;
    Object.assign(shown.image, { alt: `On the left pictures of the source, then what ${job.title} has made of them, the newest on the right`, src: `/api/jobs/${job.id}/preview?${job.preview}` });
    showGrowing();
  }
  const told = job.state === "done" ? job.text.replace(/, busiest: [^)]+/, "").replace(" -> ", " → ").split("\n") : [];
  shown.told.textContent = job.kind === "learn" ? "" : told.join("\n");
  const notes = (job.kind === "learn" ? [...job.notes, ...told] : job.notes)
    .filter((note) => !/: loading \S+$|^preview, which grows: /.test(note))  // the page shows both otherwise
    .map((note) => note.replace(/^Note: /, "").replace(/--(\w+)/g, "$1"));  // and has no options
  if (shown.details.dataset.notes !== notes.join("\n")) {
    shown.details.dataset.notes = notes.join("\n");
    shown.details.hidden = !notes.length;
    shown.details.firstChild.textContent = counted(notes.length, "note");
    shown.notes.replaceChildren(...notes.map((note) => make("li", { textContent: note })));
  }
  const able = [job.state, job.wish, job.has_result, job.has_folder, job.has_report].join();
  if (shown.actions.dataset.able !== able) {
    const focused = shown.actions.contains(document.activeElement);
    shown.actions.dataset.able = able;
    shown.actions.replaceChildren(...jobActions(job));
    if (focused) shown.actions.querySelector("button, a")?.focus();
  }
  return shown.item;
}

function showGrowing() {  // the preview of the look that is learned, large
  const shown = items.get(state.growing)?.image;
  $("growing").hidden = !shown?.src;
  if (shown?.src && $("growing-image").src !== shown.src) Object.assign($("growing-image"), { src: shown.src, alt: shown.alt });
}

function showJobs(jobs) {
  $("no-jobs").hidden = jobs.length > 0;
  const wanted = jobs.slice().reverse().map(showJob);
  for (const id of items.keys()) if (!jobs.some((job) => job.id === id)) items.delete(id);
  for (const old of [...$("jobs").children]) if (!wanted.includes(old)) old.remove();
  wanted.forEach((item, place) => { if ($("jobs").children[place] !== item) $("jobs").insertBefore(item, $("jobs").children[place] || null); });
  const over = jobs.filter((job) => ["done", "failed"].includes(job.state)), first = state.ready === null;
  const known = state.ready || new Set();
  state.ready = new Set(over.map((job) => job.id));
  for (const job of over) {
    if (first || known.has(job.id)) continue;
    say(job.state === "done" ? `${job.title} is done.` : `${job.title} has failed.`);
    if (job.kind === "learn") loadLooks().catch(problem); else open(state.folder);
  }
}

async function showReport(job) {
  const report = await askJson(`/api/jobs/${job.id}/report`);
  const facts = { Result: report.output, Look: report.model };
  if (report.frames_out !== undefined) {
    Object.assign(facts, { Frames: `${report.frames_out} of ${report.frames_in}`, Time: `${clock(report.seconds)}, ${report.frames_per_second.toFixed(1)} frames/s`,
      Engine: `${report.engine.engine || ""} ${report.engine.precision || ""}`.trim(),
      "Other streams": `${report.streams.filter((one) => one.action === "copied").length} kept, ${report.streams.filter((one) => one.action === "dropped").length} dropped` });
  } else Object.assign(facts, { Converted: report.converted, Failed: report.failed, Skipped: report.skipped });
  if (report.warnings?.length) facts.Notes = report.warnings.join("; ");
  showFacts($("report-facts"), facts);
  $("report-text").textContent = JSON.stringify(report, null, 1);
  $("report").showModal();
}

let events = null;
function listen() {
  events?.close();
  events = null;
  if (document.hidden) return;  // a browser has six connections to a server for all of its tabs
  events = new EventSource("/api/events");
  events.addEventListener("jobs", (event) => showJobs(JSON.parse(event.data)));
  events.onopen = () => { $("offline").hidden = true; };
  events.onerror = async () => {
    $("offline").hidden = false;
    if (events?.readyState !== EventSource.CLOSED) return;  // the browser tries again by itself
    const code = await fetch("/api/jobs").then((answer) => answer.status, () => 0);
    if (code === 401) $("offline").textContent = "cgconvert ui was started anew. Open the address that it has printed.";
    else setTimeout(listen, 3000);
  };
}
document.addEventListener("visibilitychange", listen);

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

const shortly = (title) => title.replace(/^Photo to /, "");  // each look is made of photographs

async function loadLooks() {
  const told = await askJson("/api/looks");
  state.looks = told.looks;
  state.limit = told.upload_limit;
  $("tab-learn").hidden = !told.learns;
  const chosen = look().model || (told.looks.some((one) => one.name === "photo2monet") ? "photo2monet" : told.looks[0]?.name);
  $("looks").replaceChildren(...told.looks.map((one) => {
    const input = make("input", { type: "radio", name: "look", value: one.name, checked: one.name === chosen, className: "visually-hidden" });
    return make("label", { title: one.name }, input, shortly(one.title));
  }));
}

async function useLook(name) {
  await loadLooks();
  show(false);
  const input = [...$("looks").querySelectorAll("input")].find((one) => one.value === name);
  if (!input) throw new Error(`there is no look ${name} any more`);
  input.checked = true;
  if (state.media) refresh();
  $("work").focus();
  say(`${name} is chosen.`);
}

// --- learning a look -----------------------------------------------------------------------------------------

const lastPart = (path) => path.split(/[\\/]/).filter(Boolean).pop() || path;

function offerFolder() {  // which folder the two buttons of the form would take
  for (const id of ["take-paintings", "take-source"]) {
    $(id).hidden = !state.pictures;
    $(id).textContent = `Take ${lastPart(state.folder)} (${counted(state.pictures, "picture")})`;
  }
}

function learnFrom(folder) {
  learning.paintings = folder;
  $("paintings").textContent = `✓ ${folder}`;
  if (!$("name").value) $("name").value = lastPart(folder).replace(/[^A-Za-z0-9._-]+/g, "-").replace(/^[^A-Za-z0-9]+/, "").slice(0, 64);
}

function learnFor(path) {
  learning.source = path;
  $("source").textContent = `✓ ${path}`;
  markChosen();
}

async function learn() {
  if (!learning.paintings) throw new Error("choose the paintings first: open their folder in the list");
  if (!learning.source) throw new Error("choose what the look is for: click a video in the list, or take a folder of photographs");
  const job = await askJson("/api/jobs", { kind: "learn", ...learning, name: $("name").value, minutes: $("minutes").value });
  state.growing = job.id;
  showGrowing();
  $("learning").hidden = false;
  say(`${$("name").value} is in the queue.`);
}

function show(learns) {
  state.learn = learns;
  $("tab-learn").setAttribute("aria-pressed", String(learns));
  $("tab-convert").setAttribute("aria-pressed", String(!learns));
  $("learn").hidden = !learns;
  $("view").hidden = learns || !state.media;
  $("empty").hidden = learns || Boolean(state.media);
  $("choose-title").textContent = learns ? "Choose paintings and a video" : "Choose a video or pictures";
  $("work-title").textContent = learns ? "Learn a look" : state.media?.name || "See it";
  $("learning").hidden = true;
  problem(null);
  open(state.folder);
}

$("tab-convert").onclick = () => show(false);
$("tab-learn").onclick = () => show(true);
$("use-folder").onclick = () => choose(state.folder, "folder");
$("take-paintings").onclick = () => learnFrom(state.folder);
$("take-source").onclick = () => learnFor(state.folder);
$("learn").onsubmit = (event) => {
  event.preventDefault();
  busily($("learn-start"), "Starting…", learn);
};
$("split").oninput = () => {
  $("view").style.setProperty("--split", `${$("split").value}%`);
  $("split").setAttribute("aria-valuetext", `${$("split").value}% before, ${100 - $("split").value}% after`);
};
let settle;
$("time").oninput = () => {
  state.t = Number($("time").value);
  showClock();
  clearTimeout(settle);
  settle = setTimeout(() => refresh(true), 120);
};
for (const id of ["strength", "stroke", "keep", "looks"]) $(id).addEventListener("input", () => { $("queued").hidden = true; refresh(); });
$("output").onchange = plan;
$("all-looks").onclick = () => busily($("all-looks"), "Painting all looks…", showAll);
$("play").onclick = () => busily($("play"), "Making three seconds…", playClip);
$("measure").onclick = () => busily($("measure"), "Measuring on a few frames…", async () => {
  const found = await askJson("/api/estimate", { ...look(), path: state.media.path });
  const took = found.rate ? ` for ${counted(found.frames, "frame")}, ${found.rate.toFixed(1)} a second` : "";
  showFacts($("estimate"), {
    Time: `about ${clock(found.seconds)}${took}`,
    Result: found.result_bytes == null ? "" : `about ${size(found.result_bytes)}`,
    Disk: found.disk_bytes == null ? "" : `${size(found.disk_bytes)} needed, ${size(found.free)} free${found.too_large ? ": too few" : ""}`,
    Memory: found.memory ? `about ${size(found.memory)}` : "",
  });
  $("estimate").classList.toggle("problem", found.too_large);
});
$("start").onclick = () => busily($("start"), "Starting…", async () => {
  await ask("/api/jobs", { ...look(), path: state.media.path, output: $("output").value });
  $("queued").hidden = false;
  say("The job is in the queue.");
  $("output").value = "";
  plan();
});
$("upload").onchange = () => send($("upload").files[0]);
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") send(event.dataTransfer.files[0]);
  });
}

const looksLoaded = loadLooks().catch(problem);
open("");
listen();
