/* Numbers, times and sizes, as the language of the page writes them. */

import { language } from "./words.js";

const locale = () => (language() === "zh" ? "zh-CN" : "en");

/** A share from 0 to 1 as a percentage; what is not nothing is not called nothing. */
export function percent(share) {
  if (share > 0 && share < 0.005) return "<1%";
  return new Intl.NumberFormat(locale(), { style: "percent", maximumFractionDigits: 0 }).format(share);
}

/** A share with one more digit, for where the exact figure is asked for. */
export function exactPercent(share) {
  return new Intl.NumberFormat(locale(), { style: "percent", maximumFractionDigits: 1 }).format(share);
}

/** A number to at most so many significant digits. */
export function number(value, digits = 4) {
  return new Intl.NumberFormat(locale(), { maximumSignificantDigits: digits }).format(value);
}

/** A whole number with its groups. */
export function count(value) {
  return new Intl.NumberFormat(locale()).format(value);
}

/** Seconds as people say them. */
export function duration(seconds) {
  const unit = seconds < 60 ? "second" : seconds < 3600 ? "minute" : "hour";
  const value = seconds / { second: 1, minute: 60, hour: 3600 }[unit];
  const maximumFractionDigits = value < 10 && unit !== "minute" ? 1 : 0;
  const options = { style: "unit", unit, unitDisplay: "short", maximumFractionDigits };
  return new Intl.NumberFormat(locale(), options).format(value);
}

/** A moment: seconds since 1970, or a text that dates are written in. */
export function moment(value) {
  const date = new Date(typeof value === "number" ? value * 1000 : value);
  if (Number.isNaN(date.getTime())) return "";
  return new Intl.DateTimeFormat(locale(), { dateStyle: "medium", timeStyle: "short" }).format(date);
}

/** The language of a text, as far as its letters tell. */
export const languageOf = (text) => (/\p{Script=Han}/u.test(text) ? "zh" : "en");
