// Thinks for ?ms= milliseconds, then answers. At SIGTERM it stops as node's documentation says.
const server = require("node:http").createServer((request, response) => {
  const ms = Number(new URL(request.url, "http://localhost").searchParams.get("ms"));
  setTimeout(() => {
    response.writeHead(200, { "Content-Type": "text/plain", "Content-Length": 6 });
    response.end("whole\n");
  }, ms);
});
server.keepAliveTimeout = 30_000;
server.listen(8080);
process.on("SIGTERM", () => server.close());
