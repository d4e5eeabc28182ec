// A line over time. Screen readers get the last value and the range in words.
import { html, useEffect, useRef, useState } from "./lib.js";
import { number } from "./format.js";

const HEIGHT = 170;
const DAY_S = 86400;

// What a colour of the style sheet is in the theme of now: the canvas does not know variables.
function color(name, element) {
  element.style.color = `var(${name})`;
  const found = getComputedStyle(element).color;
  element.style.color = "";
  return found;
}

function moment(seconds, interval) {
  const time = new Date(seconds * 1000);
  return interval < DAY_S ? time.toLocaleTimeString() : time.toLocaleDateString();
}

// `values`, oldest first, `interval` seconds apart; the last one is of now.
export function Chart({ title, unit, values, interval, digits = 1 }) {
  const place = useRef(null);
  const plot = useRef(null);
  const [theme, setTheme] = useState(0);

  useEffect(() => {
    const change = () => setTheme((number) => number + 1);
    const system = matchMedia("(prefers-color-scheme: dark)");
    addEventListener("theme", change);
    system.addEventListener("change", change);
    return () => {
      removeEventListener("theme", change);
      system.removeEventListener("change", change);
    };
  }, []);

  useEffect(() => {
    const box = place.current;
    const options = {
      width: box.clientWidth,
      height: HEIGHT,
      padding: [8, 8, 0, 0],
      legend: { show: false },
      cursor: { y: false },
      scales: { x: { time: true }, y: { range: (_, low, high) => [Math.min(0, low), high > 0 ? high * 1.1 : 1] } },
      axes: ["x", "y"].map((scale) => ({
        scale,
        stroke: color("--quiet", box),
        grid: { stroke: color("--line", box), width: 1 },
        ticks: { show: false },
        size: scale === "y" ? 46 : 28,
        space: scale === "y" ? 30 : 70,
        ...(scale === "x" ? { values: (_, places) => places.map((place) => moment(place, interval)) } : {}),
      })),
      series: [{}, { stroke: color("--accent", box), width: 2, fill: color("--accent-faint", box), points: { show: false } }],
    };
    plot.current = new window.uPlot(options, [[], []], box);
    const watcher = new ResizeObserver(() => plot.current.setSize({ width: box.clientWidth, height: HEIGHT }));
    watcher.observe(box);
    return () => {
      watcher.disconnect();
      plot.current.destroy();
    };
  }, [theme, interval]);

  useEffect(() => {
    const now = Date.now() / 1000;
    const times = values.map((_, place) => now - (values.length - 1 - place) * interval);
    plot.current.setData([times, values]);
  }, [values, interval, theme]);

  const now = values.length ? values[values.length - 1] : null;
  const range = values.length ? `from ${number(Math.min(...values), digits)} to ${number(Math.max(...values), digits)}` : "no values yet";
  return html`
    <figure class="chart">
      <figcaption>${title} <b>${number(now, digits)}</b> <span class="quiet">${unit}</span></figcaption>
      <div ref=${place} role="img" aria-label=${`${title}: ${number(now, digits)} ${unit} now, ${range}`}></div>
    </figure>`;
}
