// Pieces that several pages are made of.
import { html } from "./lib.js";
import { percent } from "./format.js";

export const Tile = ({ name, value, note }) => html`
  <div class="tile">
    <dt>${name}</dt>
    <dd>${value}${note && html`<small>${note}</small>`}</dd>
  </div>`;

// `columns`: [heading, row => cell, is it a number].
export const Table = ({ caption, columns, rows, empty }) => html`
  <div class="table" role="region" aria-label=${caption} tabindex="0">
    <table>
      <caption>${caption}</caption>
      <thead>
        <tr>${columns.map(([heading, , right]) => html`<th scope="col" class=${right ? "right" : ""}>${heading}</th>`)}</tr>
      </thead>
      <tbody>
        ${rows.length === 0 && html`<tr><td colspan=${columns.length} class="quiet">${empty ?? "Nothing yet."}</td></tr>`}
        ${rows.map((row) => html`
          <tr>${columns.map(([, cell, right]) => html`<td class=${right ? "right" : ""}>${cell(row)}</td>`)}</tr>`)}
      </tbody>
    </table>
  </div>`;

export const Bar = ({ name, part, whole }) => {
  const share = whole ? part / whole : 0;
  return html`<span class="bar"><meter min="0" max="1" value=${share} aria-label=${name}></meter> ${percent(share)}</span>`;
};

const GOOD = new Set(["healthy", "ready", "active", "loaded", "closed", "low"]);
const BAD = new Set(["unhealthy", "dead", "critical", "lost"]);
export const State = ({ of }) => html`
  <span class=${`state ${GOOD.has(of) ? "good" : BAD.has(of) ? "bad" : "between"}`}>${of}</span>`;
