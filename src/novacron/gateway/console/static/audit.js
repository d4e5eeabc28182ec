// The audit log, newest first. Only on servers that write one, for those who may read it.
import { html, Problem, useData, useState } from "./lib.js";
import { Table } from "./parts.js";
import { date, number } from "./format.js";

const KINDS = { "": "Everything", admin: "Administration", refused: "Refused", inference: "Inference", purge: "Purges", lost: "Lost records", start: "Starts" };
const LIMIT = 100;

export function Audit() {
  const [asked, setAsked] = useState({ kind: "", tenant: "" });
  const [tenant, setTenant] = useState("");
  const [cursors, setCursors] = useState([""]); // of the pages so far; the last is shown
  const ask = (more) => { setAsked({ ...asked, ...more }); setCursors([""]); };
  const query = new URLSearchParams({ ...asked, limit: LIMIT, cursor: cursors.at(-1) });
  const { data, error, refresh } = useData(`/api/v1/llm/admin/audit?${query}`);
  if (error?.status === 404) {
    return html`<p class="quiet">This server writes no audit log. <code>--audit-log DIR</code> makes it write one.</p>`;
  }
  return html`
    <form class="buttons" onSubmit=${(event) => { event.preventDefault(); ask({ tenant: tenant.trim() }); }}>
      <label>What
        <select value=${asked.kind} onChange=${(event) => ask({ kind: event.target.value })}>
          ${Object.entries(KINDS).map(([kind, words]) => html`<option value=${kind}>${words}</option>`)}
        </select>
      </label>
      <label>Tenant
        <input value=${tenant} onInput=${(event) => setTenant(event.target.value)} />
      </label>
      <button type="submit" class="plain">Show</button>
      <button type="button" class="plain" onClick=${refresh}>Read again</button>
    </form>
    <${Problem} error=${error} />
    <${Table} caption="Records" rows=${data?.entries ?? []} empty="No records." columns=${[
      ["Time", ({ record }) => date(record.time)],
      ["What", ({ record }) => KINDS[record.kind] ?? record.kind],
      ["Outcome", ({ record }) => [record.outcome, record.status, record.count].filter(Boolean).join(" ")],
      ["Tenant", ({ record }) => record.tenant ?? record.purged_tenant ?? ""],
      ["User or key", ({ record }) => record.user || record.key_id || ""],
      ["Access", ({ record }) => record.route && html`<code>${record.method} ${record.route}</code>`],
      ["Of", ({ record }) => record.target ?? record.model ?? ""],
      ["Tokens", ({ record }) => record.kind === "inference" && `${number(record.prompt_tokens ?? 0)} + ${number(record.output_tokens ?? 0)}`, true],
    ]} />
    <div class="buttons">
      ${cursors.length > 1 && html`<button class="plain" onClick=${() => setCursors(cursors.slice(0, -1))}>Newer</button>`}
      ${data?.next && html`<button class="plain" onClick=${() => setCursors([...cursors, data.next])}>Older</button>`}
    </div>`;
}
