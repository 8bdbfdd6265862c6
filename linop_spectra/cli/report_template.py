"""The fixed parts of the report page: its frame, its style, and the few lines that sort tables."""

from __future__ import annotations

from string import Template

# Okabe and Ito's colours, as in the figures; every verdict is also a word, and every colour differs in lightness.
STYLE = """
:root { --text: #222; --quiet: #555; --line: #d9d9d9; --shade: #f5f6f7; --blue: #0072b2; --orange: #a34700; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 0 1rem 3rem; color: var(--text); background: #fff;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 1.5rem 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; padding-top: .5rem; border-top: 2px solid var(--line); }
p { margin: .5rem 0; max-width: 48rem; overflow-wrap: anywhere; }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1rem; padding: 0; margin: .75rem 0; list-style: none; }
a { color: var(--blue); }
.subtitle, .cost, .caption, figcaption { color: var(--quiet); font-size: .875rem; }
.note { border-left: 4px solid #e69f00; background: #fdf7ea; padding: .35rem .75rem; }
.absent { border-left: 4px solid #8c8c8c; background: var(--shade); padding: .35rem .75rem; }
.alarm { border-left: 4px solid #d55e00; background: #fdefe6; padding: .5rem .75rem; font-weight: 600; }
.scroll { overflow-x: auto; max-width: 100%; margin: 0 0 .75rem; }
.tall { max-height: 32rem; overflow-y: auto; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
.caption { margin: 1rem 0 .25rem; break-after: avoid; }
th, td { padding: .25rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { background: var(--shade); font-weight: 600; white-space: nowrap; }
.tall th { position: sticky; top: 0; }
td.number { text-align: right; white-space: nowrap; }
td.text { overflow-wrap: break-word; max-width: 24rem; }
td.text:first-child { min-width: 6rem; }
td.long { min-width: 15rem; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid var(--blue); outline-offset: 2px; }
th button::after { content: " \\2195"; color: #8c8c8c; }
th[aria-sort="ascending"] button::after { content: " \\2191"; color: var(--text); }
th[aria-sort="descending"] button::after { content: " \\2193"; color: var(--text); }
.verdict-ok { color: #00664d; font-weight: 600; }
.verdict-biased { color: #7a5300; font-weight: 600; }
.verdict-meaningless { color: var(--orange); font-weight: 600; }
.verdict-unresolved { color: var(--quiet); font-style: italic; }
figure { margin: 1rem 0; break-inside: avoid; }
figure img { display: block; max-width: 100%; height: auto; }
figcaption { max-width: 48rem; margin-top: .25rem; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); gap: 0 1.5rem; align-items: start; }
pre { background: var(--shade); padding: .6rem .75rem; overflow-x: auto; font-size: .8125rem; white-space: pre-wrap;
  overflow-wrap: anywhere; }
@media print {
  body { max-width: none; font-size: 10pt; padding: 0; }
  nav, th button::after { display: none; }
  th button::after { content: ""; }
  .scroll, .tall { overflow: visible; max-height: none; }
  .tall th { position: static; }
  h2 { break-after: avoid; }
  tr { break-inside: avoid; }
  table { font-size: 8pt; }
  .pictures { grid-template-columns: 1fr 1fr; }
  figure img { max-height: 11cm; }
}
"""

# Headings become buttons, so that a keyboard can sort as well; without JavaScript they stay headings.
SCRIPT = """
"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const falling = head.getAttribute("aria-sort") === "ascending", sign = falling ? -1 : 1;
      const key = row => row.cells[column].dataset.value;
      const missing = value => value === undefined || value === "";
      const numeric = [...body.rows].every(row => missing(key(row)) || !Number.isNaN(Number(key(row))));
      const compare = (a, b) => numeric ? Number(a) - Number(b) : a.localeCompare(b);
      const rows = [...body.rows].sort((one, other) => {
        const a = key(one), b = key(other);
        if (missing(a) || missing(b)) return missing(a) - missing(b);
        return sign * compare(a, b);
      });
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      body.append(...rows);
    });
  });
}
"""

# The policy makes the browser itself refuse whatever is not inside the page.
PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$style</style>
</head>
<body>
<header>
<h1>$title</h1>
<p class="subtitle">$subtitle</p>
$alarms
<nav aria-label="Sections"><ul>
$links
</ul></nav>
</header>
<main>
$sections
</main>
<script>$script</script>
</body>
</html>
""")
