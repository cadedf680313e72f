// Serves dist/, and a health check.

const path = require("node:path");
const express = require("express");

const app = express();
const port = process.env.PORT || 8000;

app.use(express.static(path.join(__dirname, "dist")));

app.get("/health", (request, response) => {
  response.json({ status: "ok", node: process.version });
});

const server = app.listen(port, () => console.log(`listening on port ${port}`));

// As process 1 of a container, node would ignore this signal otherwise.
process.on("SIGTERM", () => server.close());
