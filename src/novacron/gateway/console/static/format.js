// Numbers as people read them. A missing value is a dash.
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];
const DASH = "–";

const missing = (value) => value === null || value === undefined || Number.isNaN(value);

export function number(value, digits = 0) {
  if (missing(value)) return DASH;
  return value.toLocaleString(undefined, { maximumFractionDigits: digits });
}

export function bytes(value) {
  if (missing(value)) return DASH;
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${number(value, value < 10 && unit > 0 ? 1 : 0)} ${UNITS[unit]}`;
}

export const percent = (value) => (missing(value) ? DASH : `${number(value * 100, 1)} %`);

export function duration(seconds) {
  if (missing(seconds)) return DASH;
  if (seconds < 1) return `${number(seconds * 1000, seconds < 0.01 ? 1 : 0)} ms`;
  if (seconds < 120) return `${number(seconds, 1)} s`;
  return `${number(seconds / 60)} min`;
}

export const date = (seconds) => (missing(seconds) ? DASH : new Date(seconds * 1000).toLocaleString());
export const last = (values) => (values?.length ? values[values.length - 1] : null);
