// How the server does, now and over the last minutes.
import { html, Problem, useData } from "./lib.js";
import { Bar, State, Table, Tile } from "./parts.js";
import { Chart } from "./chart.js";
import { bytes, duration, last, number, percent } from "./format.js";

const READ_S = 5;

export function Overview() {
  const metrics = useData("/api/v1/llm/metrics", READ_S);
  const cluster = useData("/api/v1/llm/cluster/status", READ_S);
  const health = useData("/api/v1/llm/health", READ_S);
  const models = useData("/api/v1/llm/models", READ_S * 4);
  const error = metrics.error ?? cluster.error ?? health.error;
  if (!metrics.data) return html`<${Problem} error=${error} />`;
  const { inference_metrics: inference, resource_metrics: resources } = metrics.data;
  const ms = (values) => (last(values) === null ? null : last(values) / 1000);
  return html`
    <${Problem} error=${error} />
    <dl class="tiles">
      <${Tile} name="Health" value=${health.data ? html`<${State} of=${health.data.overall_health} />` : "–"} />
      <${Tile} name="Running" value=${number(metrics.data.active_requests)} note="requests" />
      <${Tile} name="Waiting" value=${number(metrics.data.queued_requests)} note="requests" />
      <${Tile} name="Throughput" value=${number(last(inference.throughput.tokens_per_second), 1)} note="tokens/s" />
      <${Tile} name="First token" value=${duration(ms(inference.latency.avg_first_token_latency))} note="mean" />
      <${Tile} name="Cache hits" value=${percent(last(inference.cache_performance.overall_hit_rate))} note="of prompt tokens" />
    </dl>
    ${health.data && [...health.data.critical, ...health.data.warnings].map((text) => html`<p class="problem">${text}</p>`)}
    <div class="charts">
      <${Chart} title="Tokens" unit="per second" values=${inference.throughput.tokens_per_second} interval=${inference.sample_interval_s} />
      <${Chart} title="Requests" unit="per second" values=${inference.throughput.requests_per_second} interval=${inference.sample_interval_s} digits=${2} />
      <${Chart} title="First token" unit="ms" values=${inference.latency.avg_first_token_latency} interval=${inference.sample_interval_s} />
      <${Chart} title="Further tokens" unit="ms each" values=${inference.latency.avg_per_token_latency} interval=${inference.sample_interval_s} digits=${2} />
    </div>
    ${cluster.data && html`<${Replicas} replicas=${cluster.data.replicas} />`}
    ${models.data && html`<${Models} models=${models.data.models} />`}
    <${Processes} resources=${resources} />`;
}

const Replicas = ({ replicas }) => html`
  <${Table} caption="Replicas" rows=${replicas} columns=${[
    ["Replica", (one) => one.replica_id],
    ["State", (one) => html`<${State} of=${one.state} />`],
    ["Running", (one) => number(one.num_running), true],
    ["Waiting", (one) => number(one.num_waiting), true],
    ["KV cache in use", (one) => html`<${Bar} name=${`KV cache of ${one.replica_id}`} part=${one.kv_usage} whole=${1} />`],
    ["Hits", (one) => percent(one.hit_rate), true],
    ["Tokens in / out", (one) => `${number(one.prompt_tokens)} / ${number(one.generation_tokens)}`, true],
    ["Restarts", (one) => number(one.num_restarts), true],
  ]} />`;

const Models = ({ models }) => html`
  <${Table} caption="Models and precision" rows=${models} columns=${[
    ["Model", (one) => one.id],
    ["State", (one) => html`<${State} of=${one.status} />`],
    ["Weights", (one) => (one.info ? `${one.info.quantization === "none" ? one.info.dtype : one.info.quantization}` : "–")],
    ["Parameters", (one) => number(one.info?.num_parameters), true],
    ["Context", (one) => number(one.info?.max_model_len), true],
    ["Device", (one) => one.info?.device ?? "–"],
  ]} />`;

const Processes = ({ resources }) => html`
  <${Table} caption=${`Processes, on a machine of ${resources.machine.num_cpus} cores and ${bytes(resources.machine.memory_total_bytes)}`}
    rows=${resources.processes} columns=${[
      ["Role", (one) => one.role],
      ["Process", (one) => one.pid, true],
      ["Processor", (one) => percent(one.cpu_fraction), true],
      ["Memory", (one) => bytes(one.memory_bytes), true],
      ["Threads", (one) => number(one.num_threads), true],
    ]} />`;
