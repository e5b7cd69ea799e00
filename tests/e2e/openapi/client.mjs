// Asks a server for everything its own description offers, through a client made from that, and holds each reply against it.
//     node client.mjs URL TOKEN
// Prints a line for each operation; exit status 1 when a reply was not as described, or an operation was never called.
import { createRequire } from "node:module";
import axios from "axios";
const require = createRequire(import.meta.url);
const { OpenAPIClientAxios } = require("openapi-client-axios");
const Ajv = require("ajv/dist/2020.js").default;
const formats = require("ajv-formats").default ?? require("ajv-formats");
const yaml = require("js-yaml");

const [, , url, token] = process.argv;
const document = yaml.load((await axios.get(url + "/v1/openapi.yaml", { responseType: "text" })).data);
const ajv = new Ajv({ strict: false, allErrors: true });
formats(ajv);
ajv.addSchema(document, "api");

const api = new OpenAPIClientAxios({ definition: document, axiosConfigDefaults: { baseURL: url, validateStatus: () => true, maxRedirects: 0, headers: { common: { Authorization: `Bearer ${token}` } } } });
const client = await api.init();
const called = new Set();
let failures = 0;

function fail(operation, text) {
  failures++;
  console.log(`FAILED ${operation}: ${text}`);
}

function pointer(path) {
  return "api#/" + path.map((part) => encodeURIComponent(part.replaceAll("~", "~0").replaceAll("/", "~1"))).join("/");
}

// The description of a reply, with the path of its schema in the document.
function described(operation, reply) {
  const { path, method, responses } = api.getOperation(operation);
  const status = String(reply.status);
  const key = status in responses ? status : status[0] + "XX" in responses ? status[0] + "XX" : null;
  if (!key) return null;
  const raw = document.paths[path][method].responses[key];
  const place = raw.$ref ? raw.$ref.slice(2).split("/") : ["paths", path, method, "responses", key];
  const type = String(reply.headers["content-type"] ?? "").split(";")[0];
  const content = place.reduce((at, part) => at[part], document).content;
  if (!content) return { type, none: true };
  const found = type in content ? type : "*/*" in content ? "*/*" : null;
  return found ? { type, schema: [...place, "content", found, "schema"] } : { type };
}

// Calls an operation and returns the reply; expected: statuses that are right here.
async function call(operation, expected, parameters, body, config = {}) {
  called.add(operation);
  const reply = await client[operation](parameters ?? null, body, { responseType: "text", transformResponse: (x) => x, ...config });
  const as = described(operation, reply);
  if (![].concat(expected).includes(reply.status)) fail(operation, `status ${reply.status}: ${reply.data}`);
  if (!as) fail(operation, `status ${reply.status} is not described`);
  else if (!as.none && !as.schema && reply.data) fail(operation, `${as.type} is not described`);
  else if (as.schema && /^application\/(json|problem\+json)$/.test(as.type)) {
    reply.json = JSON.parse(reply.data);
    const check = ajv.getSchema(pointer(as.schema)) ?? ajv.compile({ $ref: pointer(as.schema) });
    if (!check(reply.json)) fail(operation, `${reply.data} ${ajv.errorsText(check.errors)}`);
  }
  for (const name of ["x-request-id", "bts-txid", "bts-epoch", "bts-role"])
    if (!(name in reply.headers)) fail(operation, `no ${name}`);
  return reply;
}

const b = { bucket: "things" };
await call("livez", 200);
await call("healthz", 200);
await call("readyz", 200, { role: "primary" });
await call("readyz", 503, { role: "follower" });
await call("openapi", 200);
await call("metrics", 200);
await call("dashboard", 200);
await call("putBucket", 201, b, { content_type: "text/plain" });
await call("putBucket", 200, b, {});
const octets = { headers: { "Content-Type": "application/octet-stream" } };
const first = await call("putValue", 201, { ...b, key: "a/1" }, "one", octets);
await call("putValue", 412, { ...b, key: "a/1", "If-None-Match": "*" }, "two", octets);
await call("putValue", 200, { ...b, key: "a/1", "If-Match": first.headers.etag }, "two", octets);
await call("putValue", 201, { ...b, key: "a/2", ttl: "1h" }, "three", octets);
await call("putValue", 202, { ...b, key: "b", durability: "replicated:1", timeout: "0s" }, "four", octets);
const got = await call("getValue", 200, { ...b, key: "a/1", "BTS-After": first.headers["bts-token"] });
if (got.data !== "two") fail("getValue", `got ${got.data}`);
await call("getValue", 304, { ...b, key: "a/1", "If-None-Match": got.headers.etag });
await call("getValue", 206, { ...b, key: "a/1", Range: "bytes=1-" });
await call("getValue", 416, { ...b, key: "a/1", Range: "bytes=9-" });
await call("getValue", 404, { ...b, key: "none" });
const page = await call("listKeys", 200, { ...b, limit: 1, values: "true" });
await call("listKeys", 200, { ...b, after: page.json.next });
const tree = await call("listKeys", 200, { ...b, delimiter: "/" });
if (tree.json.common_prefixes?.[0]?.prefix !== "a/") fail("listKeys", tree.data);
await call("listKeys", 200, b, undefined, { headers: { Accept: "application/x-ndjson" } });
await call("listBuckets", 200, { limit: 10 });
await call("getBucket", 200, b);
await call("loadKeys", 200, b, '{"key":"l1","value":"x"}\n{"key":"l2","value_base64":"/w=="}\n', { headers: { "Content-Type": "application/x-ndjson" } });
await call("loadKeys", 400, b, "nonsense\n", { headers: { "Content-Type": "application/x-ndjson" } });
await call("getMany", 200, null, { get: [{ ...b, key: "l1" }, { ...b, key: "l2" }, { ...b, key: "none" }, { bucket: "none", key: "x" }] });
const change = { if: [{ ...b, key: "n", exists: false }], then: [{ op: "incr", ...b, key: "n", by: 5 }, { op: "get", ...b, key: "n" }] };
const done = await call("transact", 200, { "Idempotency-Key": "k-1" }, change);
const again = await call("transact", 200, { "Idempotency-Key": "k-1" }, change);
if (again.data !== done.data) fail("transact", `${again.data} is not ${done.data}`);
await call("transact", 412, null, change);
const lease = await call("createSnapshot", 201, null, { ttl: "30s" });
await call("renewSnapshot", 200, { id: lease.json.id }, { ttl: "1m" });
await call("listSnapshots", 200);
await call("createNamedSnapshot", 201, { name: "before" });
await call("createNamedSnapshot", 409, { name: "before" });
await call("getNamedSnapshot", 200, { name: "before" });
await call("listNamedSnapshots", 200);
const start = await call("watchChanges", 200, null);
await call("deleteValue", 204, { ...b, key: "l1" });
await call("deleteValue", 404, { ...b, key: "l1" });
const changes = await call("watchChanges", 200, { since: start.json.bookmark, wait: "10s" });
if (changes.json.events[0]?.op !== "delete") fail("watchChanges", changes.data);
await call("deleteRange", 400, b);
await call("deleteRange", 200, { ...b, prefix: "l" });
const old = await call("getValue", 200, { ...b, key: "l1", snapshot: lease.json.id });
if (old.data !== "x") fail("getValue", `of the snapshot: ${old.data}`);
await call("getValue", 200, { ...b, key: "l1", snapshot: "name:before" });
await call("deleteSnapshot", 204, { id: lease.json.id });
await call("deleteSnapshot", 410, { id: lease.json.id });
await call("deleteNamedSnapshot", 204, { name: "before" });
const image = await call("backup", 200, null, undefined, { responseType: "arraybuffer" });
const id = new URL(image.headers["content-location"], url).searchParams.get("image");
await call("backup", 206, { image: id, Range: "bytes=0-99" }, undefined, { responseType: "arraybuffer" });
await call("dropBackup", 204, { image: id });
await call("status", 200);
await call("scrub", 202);
await call("scrubProgress", 200);
await call("compact", 202);
await call("compactProgress", 200);
await call("stopCompact", [200, 404]);
await call("listTokens", 200);
const made = await call("createToken", 201, { scope: "read", name: "reader", expires: "1h" });
await call("revokeToken", 204, { id: made.json.id });
await call("dropBucket", 204, b);
await call("promoteStatus", 200);
await call("demoteStatus", 200);
await call("followStatus", 200);
await call("follow", 409, { url });
await call("promote", 409, { force: "1" });
await call("promise", [200, 400, 409], { epoch: "9-1", database: "00" });
await call("demote", 200);
await call("putValue", 503, { ...b, key: "x" }, "x", octets);

for (const { operationId } of api.getOperations()) if (!called.has(operationId)) fail(operationId, "never called");
console.log(`${called.size} operations called, ${failures} failures`);
process.exit(failures ? 1 : 0);
