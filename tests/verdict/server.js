// /fast, /think?ms=, /stream?gap=&pieces= and /large by HTTP/1, each noted in a log when begun and when answered; an upgrade to a
// WebSocket that echoes. The same by TLS and the same by HTTP/2, if their ports are given: server.js LOG PORT [KEY CERT TLS H2].
const fs = require("node:fs");
const [log, port, key, certificate, tlsPort, h2Port] = process.argv.slice(2);
const LARGE = Buffer.alloc(4 << 20, ".");
const descriptor = fs.openSync(log, "a");

const note = (what, id) => fs.writeSync(descriptor, `${what} ${id} ${Number(process.hrtime.bigint()) / 1e9}\n`);

function answer(request, response) {
  const url = new URL(request.url, "http://localhost");
  const [id, ms, gap] = ["id", "ms", "gap"].map((name) => Number(url.searchParams.get(name)));
  note("begin", id);
  response.on("finish", () => note("end", id));
  request.resume().on("end", () => {
    if (url.pathname === "/stream") {
      const left = [...Array(Number(url.searchParams.get("pieces"))).keys()];
      response.writeHead(200, { "Content-Type": "text/plain" });
      const piece = () => {
        response.write("piece\n");
        left.pop();
        if (left.length > 0) setTimeout(piece, gap);
        else response.end();
      };
      return piece();
    }
    setTimeout(() => {
      const body = url.pathname === "/large" ? LARGE : Buffer.from("whole\n");
      response.writeHead(200, { "Content-Type": "text/plain", "Content-Length": body.length });
      response.end(body);
    }, ms);
  });
}

// Frames shorter than 126 bytes, in one segment each, of a client that masks with zeros. A text is the number of the message.
function chat(request, socket) {
  const id = new URL(request.url, "http://localhost").searchParams.get("id");
  note("begin", id);
  const accept = require("node:crypto")
    .createHash("sha1")
    .update(request.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")
    .digest("base64");
  socket.write(
    `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`,
  );
  note("end", id);
  socket.on("data", (frame) => {
    const text = frame.subarray(6, 6 + (frame[1] & 0x7f));
    note("begin", text);
    socket.write(Buffer.concat([Buffer.from([0x81, text.length]), text]));
    note("end", text);
  });
  socket.on("error", () => socket.destroy());
  socket.on("end", () => socket.end());
}

function serve(server, port) {
  server.keepAliveTimeout = 30_000;
  // As it comes, node takes a half-closed connection for an aborted one.
  server.httpAllowHalfOpen = true;
  server.on("upgrade", chat);
  server.listen(Number(port));
}

serve(require("node:http").createServer(answer), port);
if (key) {
  const secret = { key: fs.readFileSync(key), cert: fs.readFileSync(certificate) };
  serve(require("node:https").createServer(secret, answer), tlsPort);
  require("node:http2").createServer(answer).listen(Number(h2Port));
}
