// The console: a bar with pages, and the page that the address names.
import { html, render, useEffect, useState } from "./lib.js";
import { storedKey, storeKey } from "./api.js";
import { Accounts } from "./accounts.js";
import { Audit } from "./audit.js";
import { Cache } from "./cache.js";
import { Chat } from "./chat.js";
import { Overview } from "./overview.js";

const PAGES = { chat: ["Chat", Chat], overview: ["Overview", Overview], cache: ["Cache", Cache], accounts: ["Accounts", Accounts], audit: ["Audit", Audit] };
const THEMES = ["light dark", "light", "dark"];
const NAMES = { "light dark": "System", light: "Light", dark: "Dark" };

const named = () => (location.hash.slice(2) in PAGES ? location.hash.slice(2) : "chat");

function App() {
  const [page, setPage] = useState(named());
  const [key, setKey] = useState(storedKey());
  const [asking, setAsking] = useState(false);
  useEffect(() => {
    const move = () => setPage(named());
    const want = () => setAsking(true);
    addEventListener("hashchange", move);
    addEventListener("key-wanted", want);
    return () => {
      removeEventListener("hashchange", move);
      removeEventListener("key-wanted", want);
    };
  }, []);
  const [title, Page] = PAGES[page];
  useEffect(() => { document.title = `${title} – NovaCron`; }, [title]);
  return html`
    <a class="skip" href="#main" onClick=${(e) => { e.preventDefault(); document.getElementById("main").focus(); }}>To the content</a>
    <header>
      <span class="name">NovaCron</span>
      <nav aria-label="Pages">
        ${Object.entries(PAGES).map(([name, [label]]) => html`
          <a href=${`#/${name}`} aria-current=${name === page ? "page" : undefined}>${label}</a>`)}
      </nav>
      <button class="plain" onClick=${() => setAsking(true)}>${key ? "Key set" : "Key"}</button>
      <${Theme} />
    </header>
    ${asking && html`<${KeyForm} initial=${key} onClose=${() => setAsking(false)}
      onKey=${(value) => { storeKey(value); setKey(value); setAsking(false); }} />`}
    <main id="main" tabindex="-1">
      <h1 class=${page === "chat" ? "hidden" : ""}>${title}</h1>
      <${Page} key=${key} />
    </main>`;
}

function KeyForm({ initial, onKey, onClose }) {
  const [value, setValue] = useState(initial);
  const submit = (event) => { event.preventDefault(); onKey(value.trim()); };
  return html`
    <form class="key" onSubmit=${submit} onKeyDown=${(e) => e.key === "Escape" && onClose()}>
      <label>API key or token
        <input id="key" type="password" autocomplete="off" ref=${(box) => box?.focus()} value=${value} onInput=${(e) => setValue(e.target.value)} />
      </label>
      <span class="quiet">It stays in this tab. A server on this machine needs none.</span>
      <div class="buttons"><button type="submit">Use</button><button type="button" class="plain" onClick=${onClose}>Cancel</button></div>
    </form>`;
}

function Theme() {
  const [theme, setTheme] = useState(localStorage.getItem("novacron-theme") ?? THEMES[0]);
  useEffect(() => {
    document.documentElement.style.colorScheme = theme;
    localStorage.setItem("novacron-theme", theme);
    dispatchEvent(new Event("theme"));
  }, [theme]);
  const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  return html`<button class="plain" aria-label=${`Colours: ${NAMES[theme]}. Change to ${NAMES[next]}`} onClick=${() => setTheme(next)}>${NAMES[theme]}</button>`;
}

document.getElementById("app").replaceChildren();
render(html`<${App} />`, document.getElementById("app"));
