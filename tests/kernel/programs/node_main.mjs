// fs in all three styles, child processes, workers, an HTTP server and its client, streams, timers.
import assert from "node:assert";
import { exec, execFileSync, fork, spawn, spawnSync } from "node:child_process";
import crypto from "node:crypto";
import dns from "node:dns/promises";
import fs from "node:fs";
import http from "node:http";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { pipeline } from "node:stream/promises";
import { promisify } from "node:util";
import { Worker } from "node:worker_threads";
import zlib from "node:zlib";

fs.mkdirSync("made/a/b", { recursive: true });
fs.writeFileSync("made/a/one.txt", "one");
fs.appendFileSync("made/a/one.txt", " more");
console.log("sync", fs.readFileSync("made/a/one.txt", "utf8"), fs.statSync("made/a/one.txt").size, fs.existsSync("nothing"));
fs.symlinkSync("one.txt", "made/a/link");
fs.renameSync("made/a/one.txt", "made/a/two.txt");
console.log("dangling", fs.readlinkSync("made/a/link"), fs.lstatSync("made/a/link").isSymbolicLink());
fs.cpSync("made", "copied", { recursive: true });
console.log("copied", fs.readdirSync("copied", { recursive: true }).sort());
try {
  fs.readFileSync("nothing");
} catch (error) {
  console.log("missing", error.code);
}
const handle = await fs.promises.open("promised", "w+");
await handle.write("promised text");
await handle.sync();
await handle.close();
await fs.promises.chmod("promised", 0o600);
await fs.promises.utimes("promised", 1e9, 1e9);
console.log("promises", await fs.promises.readFile("promised", "utf8"), (await fs.promises.stat("promised")).mtime.toISOString());
console.log("many", (await Promise.all(Array.from({ length: 50 }, async (_, n) => {
  await fs.promises.writeFile(`many-${n}`, String(n));
  return Number(await fs.promises.readFile(`many-${n}`, "utf8"));
}))).reduce((a, b) => a + b));
await promisify(fs.access)("promised", fs.constants.R_OK | fs.constants.W_OK);
await pipeline(fs.createReadStream("promised"), zlib.createGzip(), fs.createWriteStream("promised.gz"));
console.log("gzip", zlib.gunzipSync(fs.readFileSync("promised.gz")).toString());
const temporary = fs.mkdtempSync(path.join(os.tmpdir(), "node-"));
fs.writeFileSync(path.join(temporary, "x"), "x");
fs.rmSync(temporary, { recursive: true });
fs.rmSync("copied", { recursive: true });
const watched = new Promise((resolve) => {
  const watcher = fs.watch(".", (_, name) => { if (name === "watched") { watcher.close(); resolve(name); } });
});
fs.writeFileSync("watched", "");
console.log("watch", await watched);

console.log("execFile", execFileSync("printf", ["%s", "from printf"]).toString());
console.log("exec", (await promisify(exec)("echo $((2 + 3)) | cat")).stdout.trim());
const failed = spawnSync("sh", ["-c", "echo out; echo err >&2; exit 3"]);
console.log("spawnSync", failed.status, failed.stdout.toString().trim(), failed.stderr.toString().trim());
const upper = spawn("tr", ["a-z", "A-Z"], { stdio: ["pipe", "pipe", "inherit"] });
upper.stdin.end("through a child");
console.log("spawn", (await upper.stdout.toArray()).join(""));
const sleeper = spawn("sleep", ["100"]);
sleeper.kill("SIGTERM");
console.log("killed", await new Promise((resolve) => sleeper.on("exit", (code, signal) => resolve(signal))));
console.log("no program", spawnSync("no-such-program").error.code);
const child = fork("node_child.mjs", ["argument"]);
child.send({ question: 20 });
console.log("fork", await new Promise((resolve) => child.on("message", resolve)));
await new Promise((resolve) => child.on("exit", resolve));

const worker = new Worker("import('node:worker_threads').then(({ parentPort, workerData }) => parentPort.postMessage(workerData * 2))", { eval: true, workerData: 21 });
console.log("worker", await new Promise((resolve) => worker.on("message", resolve)));
const shared = new Int32Array(new SharedArrayBuffer(4));
await Promise.all(Array.from({ length: 3 }, () => new Promise((resolve) => {
  new Worker("const { workerData } = require('worker_threads'); for (let i = 0; i < 1000; i++) Atomics.add(workerData, 0, 1)", { eval: true, workerData: shared }).on("exit", resolve);
})));
console.log("shared", shared[0]);

const server = http.createServer((request, response) => {
  let body = "";
  request.on("data", (part) => (body += part)).on("end", () => response.end(`${request.method} ${request.url} ${body}`));
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const base = `http://127.0.0.1:${server.address().port}`;
console.log("fetch", await (await fetch(`${base}/fetched`, { method: "POST", body: "payload" })).text());
console.log("get", await new Promise((resolve) => http.get(`${base}/got`, async (response) => resolve((await response.toArray()).join("")))));
server.closeAllConnections();
server.close();
const echo = net.createServer((socket) => socket.pipe(socket)).listen("echo.socket");
await new Promise((resolve) => echo.once("listening", resolve));
const client = net.connect("echo.socket");
client.write("through a unix socket");
console.log("net", (await new Promise((resolve) => client.once("data", resolve))).toString());
client.destroy();
echo.close();
console.log("lookup", (await dns.lookup("localhost", { family: 4 })).address);

console.log("hash", crypto.createHash("sha256").update("x").digest("hex").slice(0, 8), crypto.randomBytes(4).length);
console.log("os", os.platform(), os.cpus().length > 0, os.totalmem() > 0, os.hostname() === fs.readFileSync("/etc/hostname", "utf8").trim() || true);
console.log("process", process.argv.length, process.cwd() === import.meta.dirname || true, process.memoryUsage().rss > 0);
assert.deepStrictEqual(JSON.parse(JSON.stringify({ a: [1] })), { a: [1] });
process.on("SIGUSR2", () => {
  console.log("signal");
  process.exitCode = 4;
  clearInterval(alive);
});
const alive = setInterval(() => {}, 1000);
process.kill(process.pid, "SIGUSR2");
