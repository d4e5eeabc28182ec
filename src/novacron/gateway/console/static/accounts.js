// Tenants, keys, limits and what was used. Only on servers with accounts, for those who may see them.
import { html, Problem, useData, useState } from "./lib.js";
import { send, ApiError } from "./api.js";
import { Table } from "./parts.js";
import { Chart } from "./chart.js";
import { date, number } from "./format.js";

const ADMIN = "/api/v1/llm/admin";
const DAY_S = 86400;
const DAYS = 30;

const LIMITS = {
  tokens_per_day: "tokens/day", requests_per_hour: "requests/hour", tokens_per_minute: "tokens/min",
  requests_per_minute: "requests/min", concurrent_requests: "at once", context_tokens: "context",
  answer_tokens: "answer",
};

export function Accounts() {
  const since = Math.floor(Date.now() / 1000 / DAY_S - DAYS + 1) * DAY_S;
  const tenants = useData(`${ADMIN}/tenants`);
  if (tenants.error?.status === 404) {
    return html`<p class="quiet">This server has no accounts. <code>novacron admin tenant add NAME</code> begins with them.</p>`;
  }
  if (tenants.error?.status === 403) return html`<${Own} since=${since} />`;
  if (!tenants.data) return html`<${Problem} error=${tenants.error} />`;
  return html`
    <${Usage} since=${since} path=${`${ADMIN}/usage`} by="tenant,model" first=${[["Tenant", (row) => row.tenant]]} />
    <${Limited} tenants=${tenants.data.tenants} />
    <${Keys} />`;
}

// For those who may not see the accounts of others: what they have used, and may use.
function Own({ since }) {
  const path = "/api/v1/llm/usage";
  const { data } = useData(`${path}?by=model&since=${since}`);
  const limits = Object.entries(data?.quotas ?? {});
  return html`
    <${Usage} since=${since} path=${path} by="model" first=${[]} />
    <${Table} caption="Your limits" rows=${limits} columns=${[
      ["Of", ([subject]) => subject.replace(":", " ")],
      ["Limits", ([, quota]) => inWords(quota)],
    ]} />`;
}

const inWords = (quota = {}) => Object.entries(LIMITS)
  .filter(([name]) => quota[name] !== null && quota[name] !== undefined)
  .map(([name, words]) => `${number(quota[name])} ${words}`).join(", ") || "none";

function Usage({ since, path, by, first }) {
  const byDay = useData(`${path}?by=day&since=${since}`);
  const rows = useData(`${path}?by=${by}&since=${since}`);
  if (!byDay.data || !rows.data) return html`<${Problem} error=${byDay.error ?? rows.error} />`;
  const tokens = Array.from({ length: DAYS }, () => 0);
  for (const row of byDay.data.usage) {
    const day = Math.round((row.start - since) / DAY_S);
    if (day in tokens) tokens[day] += row.prompt_tokens + row.output_tokens;
  }
  return html`
    <${Chart} title="Tokens" unit=${`a day, last ${DAYS} days`} values=${tokens} interval=${DAY_S} digits=${0} />
    <${Table} caption=${`Used in the last ${DAYS} days`} rows=${rows.data.usage} columns=${[
      ...first,
      ["Model", (row) => row.model],
      ["Requests", (row) => number(row.requests), true],
      ["Tokens in", (row) => number(row.prompt_tokens), true],
      ["of them cached", (row) => number(row.cached_tokens), true],
      ["Tokens out", (row) => number(row.output_tokens), true],
      ["Cost", (row) => row.cost, true],
    ]} />`;
}

function Limited({ tenants }) {
  const { data, error } = useData(`${ADMIN}/quotas`);
  return html`
    <${Problem} error=${error} />
    <${Table} caption="Tenants" rows=${tenants} columns=${[
      ["Tenant", (one) => one.id],
      ["Name", (one) => one.name],
      ["Since", (one) => date(one.created_at)],
      ["Limits", (one) => inWords(data?.quotas[`tenant:${one.id}`])],
      ["", (one) => (one.disabled ? "disabled" : "")],
    ]} />`;
}

function Keys() {
  const { data, error, refresh } = useData(`${ADMIN}/keys`);
  const [problem, setProblem] = useState(null);
  const now = Date.now() / 1000;
  const isOver = (key) => [key.expires_at, key.revoked_at, key.overlap_until].some((end) => end && end <= now);
  async function revoke(key) {
    if (!confirm(`Revoke the key ${key.prefix} for good? Who uses it is refused from now on.`)) return;
    try {
      await send("DELETE", `${ADMIN}/keys/${encodeURIComponent(key.id)}`);
      setProblem(null);
    } catch (wrong) {
      if (!(wrong instanceof ApiError)) throw wrong;
      setProblem(wrong);
    }
    await refresh();
  }
  return html`
    <${Problem} error=${problem ?? error} />
    <${Table} caption="API keys" rows=${data?.keys ?? []} columns=${[
      ["Key", (key) => html`<code>${key.prefix}…</code>`],
      ["Name", (key) => key.name],
      ["Tenant", (key) => key.tenant_id],
      ["User", (key) => key.user_id ?? "–"],
      ["Roles", (key) => key.roles.join(", ") || "the user's"],
      ["Last used", (key) => date(key.last_used_at)],
      ["Ends", (key) => (isOver(key) ? "over" : date(key.expires_at))],
      ["", (key) => !isOver(key) && html`<button class="plain" onClick=${() => revoke(key)} aria-label=${`Revoke ${key.prefix}`}>Revoke</button>`],
    ]} />`;
}
