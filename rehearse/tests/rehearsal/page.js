// What is wrong with the page that is shown, as a list: in a <pre> at the end of the page around it, for --dump-dom.
const found = [];
const overlap = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3;
const inside = (a, b) => a.left >= b.left - 1 && a.right <= b.right + 1 && a.top >= b.top - 1 && a.bottom <= b.bottom + 1;

for (const hidden of document.querySelectorAll("details")) hidden.open = true;
const plots = [...document.querySelectorAll("svg")];
for (const plot of plots) {
  const box = plot.getBoundingClientRect();
  const texts = [...plot.querySelectorAll("text")].map(text => [text.textContent, text.getBoundingClientRect()]);
  for (const [name, place] of texts) if (!inside(place, box)) found.push(`outside of its plot: ${name}`);
  texts.forEach(([name, place], at) => texts.slice(at + 1).forEach(([other, its]) => {
    if (overlap(place, its)) found.push(`one on the other: ${name} and ${other}`);
  }));
}
if (document.documentElement.scrollWidth > innerWidth) found.push(`wider than the window: ${document.documentElement.scrollWidth}`);
for (const table of document.querySelectorAll("table")) {
  const shown = table.parentElement.getBoundingClientRect();
  for (const cell of table.querySelectorAll("th, td")) {
    if (!inside(cell.getBoundingClientRect(), shown)) found.push(`cut off: ${cell.textContent}`);
  }
}
for (const element of document.querySelectorAll("[src], [href], [srcset], [data]")) {
  const from = element.getAttribute("src") ?? element.getAttribute("href") ?? "";
  if (!from.startsWith("data:")) found.push(`asks for ${from}`);
}
if (document.querySelector("script:not([data-check])")) found.push("has a script");

const colour = text => text.match(/[\d.]+/g).map(Number);
const light = text => {
  const [r, g, b] = colour(text).slice(0, 3).map(part => part / 255).map(part => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const contrast = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
// The last box that was painted below the middle of a text, or the paper.
const below = element => {
  if (element instanceof SVGElement) {
    const place = element.getBoundingClientRect(), x = (place.left + place.right) / 2, y = (place.top + place.bottom) / 2;
    const boxes = [...element.closest("svg").querySelectorAll("rect")].filter(box => {
      const its = box.getBoundingClientRect();
      return its.left <= x && x <= its.right && its.top <= y && y <= its.bottom && element.compareDocumentPosition(box) & Node.DOCUMENT_POSITION_PRECEDING;
    });
    if (boxes.length) return getComputedStyle(boxes.pop()).fill;
    element = element.closest("svg").parentElement;
  }
  for (; element; element = element.parentElement) {
    const background = getComputedStyle(element).backgroundColor;
    if (colour(background)[3] !== 0) return background;
  }
  return "rgb(255, 255, 255)";
};
const spoken = [...document.querySelectorAll("body *")].filter(element =>
  !["SCRIPT", "STYLE", "title"].includes(element.tagName) && [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim()));
for (const element of spoken) {
  const ratio = contrast(getComputedStyle(element)[element instanceof SVGElement ? "fill" : "color"], below(element));
  if (!(ratio >= 4.5)) found.push(`contrast ${ratio.toFixed(2)}: ${element.textContent.trim()}`);
}

const pre = document.createElement("pre");
pre.id = "found";
pre.textContent = JSON.stringify({ found, plots: plots.length, texts: spoken.length, dark: matchMedia("(prefers-color-scheme: dark)").matches, width: innerWidth });
parent.document.body.append(pre);
