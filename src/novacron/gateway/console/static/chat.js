// A conversation with the model. It lives in this tab only.
import { html, Problem, useData, useEffect, useRef, useState } from "./lib.js";
import { ApiError, stream } from "./api.js";
import { duration, number } from "./format.js";

const DEFAULTS = { system: "", temperature: "0.7", top_p: "1", max_tokens: "512", seed: "" };

// What the server is asked; parameters that were left empty are the server's to choose.
function bodyOf(model, parameters, messages) {
  const numbers = ["temperature", "top_p", "max_tokens", "seed"]
    .filter((name) => parameters[name] !== "")
    .map((name) => [name, Number(parameters[name])]);
  const system = parameters.system.trim() ? [{ role: "system", content: parameters.system }] : [];
  const said = messages.map(({ role, content }) => ({ role, content }));
  return {
    ...Object.fromEntries(numbers),
    model,
    messages: [...system, ...said],
    stream: true,
    stream_options: { include_usage: true },
  };
}

export function Chat() {
  const models = useData("/v1/models");
  const [model, setModel] = useState("");
  const [parameters, setParameters] = useState(DEFAULTS);
  const [messages, setMessages] = useState([]);
  const [draft, setDraft] = useState("");
  const [error, setError] = useState(null);
  const [running, setRunning] = useState(null);
  const end = useRef(null);
  const box = useRef(null);
  const names = models.data?.data.map((one) => one.id) ?? [];

  useEffect(() => end.current?.scrollIntoView({ block: "nearest" }), [messages]);
  useEffect(() => () => running?.abort(), [running]);

  const growLast = (change) =>
    setMessages((all) => [...all.slice(0, -1), { ...all[all.length - 1], ...change(all[all.length - 1]) }]);

  async function ask(event) {
    event.preventDefault();
    const text = draft.trim();
    if (!text || running) return;
    const asked = [...messages.filter((one) => one.content), { role: "user", content: text }];
    setMessages([...asked, { role: "assistant", content: "" }]);
    setDraft("");
    setError(null);
    const stopper = new AbortController();
    setRunning(stopper);
    const began = performance.now();
    let first = null;
    try {
      const body = bodyOf(model || names[0], parameters, asked);
      await stream("/v1/chat/completions", body, (chunk) => {
        const piece = chunk.choices[0]?.delta.content ?? "";
        if (piece && first === null) first = performance.now();
        if (piece) growLast((one) => ({ content: one.content + piece }));
        if (chunk.choices[0]?.finish_reason) growLast(() => ({ reason: chunk.choices[0].finish_reason }));
        if (chunk.usage) growLast(() => ({ usage: chunk.usage }));
      }, stopper.signal);
    } catch (problem) {
      if (problem.name === "AbortError") growLast(() => ({ reason: "stopped" }));
      else if (problem instanceof ApiError) setError(problem);
      else throw problem;
    } finally {
      const ended = performance.now();
      if (first !== null) growLast(() => ({ firstS: (first - began) / 1000, allS: (ended - first) / 1000 }));
      setRunning(null);
      box.current?.focus();
    }
  }

  function onKey(event) {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) ask(event);
  }

  const field = (name, label, attributes) => html`
    <label>${label}
      <input id=${name} value=${parameters[name]} onInput=${(e) => setParameters({ ...parameters, [name]: e.target.value })} ...${attributes} />
    </label>`;

  return html`
    <div class="chat">
      <section class="talk" aria-label="Conversation">
        <ol class="messages" role="log" aria-live="polite" aria-busy=${running !== null}>
          ${messages.length === 0 && html`<li class="quiet">Ask something. Enter sends, Shift and Enter begin a new line.</li>`}
          ${messages.map((one) => html`<${Message} ...${one} />`)}
          <li ref=${end} class="end" aria-hidden="true"></li>
        </ol>
        <${Problem} error=${error ?? models.error} />
        <form onSubmit=${ask}>
          <label class="hidden" for="draft">Your message</label>
          <textarea id="draft" ref=${box} rows="3" placeholder="Your message" value=${draft}
            onInput=${(e) => setDraft(e.target.value)} onKeyDown=${onKey}></textarea>
          <div class="buttons">
            ${running
              ? html`<button type="button" class="stop" onClick=${() => running.abort()}>Stop</button>`
              : html`<button type="submit" disabled=${!draft.trim()}>Send</button>`}
            <button type="button" class="plain" disabled=${running || !messages.length}
              onClick=${() => { setMessages([]); setError(null); }}>New chat</button>
          </div>
        </form>
      </section>
      <details class="parameters" open=${innerWidth > 760}>
        <summary>Model and parameters</summary>
        <label>Model
          <select id="model" value=${model || names[0]} onChange=${(e) => setModel(e.target.value)}>
            ${names.map((name) => html`<option value=${name}>${name}</option>`)}
          </select>
        </label>
        <label>System prompt
          <textarea id="system" rows="3" value=${parameters.system}
            onInput=${(e) => setParameters({ ...parameters, system: e.target.value })}></textarea>
        </label>
        ${field("temperature", "Temperature", { type: "number", min: 0, max: 2, step: 0.1 })}
        ${field("top_p", "Top p", { type: "number", min: 0.05, max: 1, step: 0.05 })}
        ${field("max_tokens", "Most tokens", { type: "number", min: 1, step: 1 })}
        ${field("seed", "Seed (empty: by chance)", { type: "number", step: 1 })}
      </details>
    </div>`;
}

function Message({ role, content, usage, firstS, allS, reason }) {
  const notes = [];
  if (usage) {
    const cached = usage.prompt_tokens_details?.cached_tokens;
    notes.push(`${number(usage.prompt_tokens)} tokens in${cached ? ` (${number(cached)} cached)` : ""}, ${number(usage.completion_tokens)} out`);
    if (allS > 0 && usage.completion_tokens > 1) notes.push(`${number((usage.completion_tokens - 1) / allS, 1)} tokens/s`);
  }
  if (firstS !== undefined) notes.push(`first after ${duration(firstS)}`);
  if (reason && reason !== "stop") notes.push(reason);
  return html`
    <li class=${role}>
      <span class="who">${role === "user" ? "You" : "Model"}</span>
      <p>${content || (reason ? "" : "…")}</p>
      ${notes.length > 0 && html`<small class="quiet">${notes.join(" · ")}</small>`}
    </li>`;
}
