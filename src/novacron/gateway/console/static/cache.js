// The KV cache, tier by tier, and what could be better about it.
import { html, Problem, useData } from "./lib.js";
import { Bar, State, Table, Tile } from "./parts.js";
import { bytes, duration, number, percent } from "./format.js";

const READ_S = 5;

export function Cache() {
  const { data, error } = useData("/api/v1/llm/cache/status", READ_S);
  const report = useData("/api/v1/llm/cache/report", READ_S * 4);
  if (!data) return html`<${Problem} error=${error} />`;
  const { device } = data;
  return html`
    <${Problem} error=${error} />
    <dl class="tiles">
      <${Tile} name="Reused" value=${percent(data.overall_hit_rate)} note="of prompt tokens" />
      <${Tile} name="Held by requests" value=${number(device.used_blocks)} note="blocks" />
      <${Tile} name="Kept for reuse" value=${number(device.cached_blocks)} note="blocks" />
      <${Tile} name="Free" value=${number(device.free_blocks)} note="blocks" />
      <${Tile} name="Pinned" value=${number(data.pinned_blocks)} note="blocks" />
      <${Tile} name="Sessions" value=${number(data.sessions.known)} note=${`${number(data.sessions.returns)} returns`} />
    </dl>
    <${Table} caption="Tiers below the device" rows=${data.tiers} empty="There are none." columns=${[
      ["Tier", (one) => one.kind],
      ["In use", (one) => (one.capacity_bytes === null ? bytes(one.used_bytes) : html`<${Bar} name=${`${one.kind} in use`} part=${one.used_bytes} whole=${one.capacity_bytes} />`)],
      ["Size", (one) => bytes(one.capacity_bytes), true],
      ["Blocks", (one) => number(one.num_blocks), true],
      ["Hits", (one) => percent(one.hit_rate), true],
      ["Stored", (one) => number(one.stored), true],
      ["Loaded", (one) => number(one.loaded), true],
      ["Evicted", (one) => number(one.evicted), true],
      ["Regretted", (one) => number(one.regretted), true],
      ["Loading took", (one) => duration(one.load_seconds), true],
      ["Compressed", (one) => (one.codec ? `${one.codec.level}, ${number(one.codec.ratio, 2)} times` : "no")],
      ["Pressure", (one) => html`<${State} of=${one.pressure} />`],
    ]} />
    ${report.data && html`
      <${Table} caption="What could be better, in the last ten minutes" rows=${report.data.bottlenecks}
        empty="Nothing was found." columns=${[
          ["Finding", (one) => one.kind.replaceAll("_", " ")],
          ["Severity", (one) => percent(one.severity), true],
          ["What to do", (one) => one.advice],
        ]} />`}`;
}
