// Turns page.md into dist/index.html.

const fs = require("node:fs");
const { marked } = require("marked");

const body = marked.parse(fs.readFileSync("page.md", "utf8"));
const page = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>It works</title>
${body}</html>
`;

fs.mkdirSync("dist", { recursive: true });
fs.writeFileSync("dist/index.html", page);
