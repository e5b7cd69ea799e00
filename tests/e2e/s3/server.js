// A server of S3 for tests: s3rver, and before it, in the same process, what s3rver lacks.
//
//   - It believes every signature of version 4.  Here each is reckoned again by another implementation (aws4), as is the sum of the body.
//   - It ignores "If-None-Match: *" of a PUT.  Here the answer for an object that exists is 412, and 409 while such a PUT of the same
//     object is under way, as S3 has them; not with --overwrites.
//   - Its pages of a listing have 1000 objects.  Here they have 7.
//
// usage: node server.js DIRECTORY BUCKET REGION ACCESS SECRET [--overwrites]
// It prints "event=ready listen=127.0.0.1:PORT", then a line "METHOD TARGET STATUS" a request.
'use strict';

const aws4 = require('aws4');
const crypto = require('crypto');
const http = require('http');

// Continuation tokens of s3rver are enciphered with DES, which OpenSSL has no longer.
for (const name of ['createCipheriv', 'createDecipheriv']) {
  const real = crypto[name];
  crypto[name] = (algorithm, key, iv) =>
    algorithm === 'des' ? real('aes-128-cbc', Buffer.concat([key, key]), Buffer.concat([iv, iv])) : real(algorithm, key, iv);
}

const S3rver = require('s3rver');
const account = require('s3rver/lib/models/account');

const [directory, bucket, region, access, secret, mode] = process.argv.slice(2);

function refuse(response, status, code) {
  response.writeHead(status, { 'Content-Type': 'application/xml' });
  response.end(`<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>${code}</Code><Message>x</Message><Region>${region}</Region></Error>`);
}

// What is wrong with the signature: a code of S3's, or null.
function fault(request, body) {
  const given = /^AWS4-HMAC-SHA256 Credential=([^/]+)\/(\d{8})\/([^/]+)\/s3\/aws4_request, ?SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})$/
    .exec(request.headers.authorization || '');
  if (!given) return 'AccessDenied';
  const names = given[4].split(';');
  const must = Object.keys(request.headers).filter(name => name === 'host' || name === 'content-type' || name.startsWith('x-amz-'));
  if (given[1] !== access) return 'InvalidAccessKeyId';
  if (given[3] !== region) return 'AuthorizationHeaderMalformed';
  if (!must.every(name => names.includes(name)) || names.join() !== [...names].sort().join()) return 'AccessDenied';
  if (given[2] !== (request.headers['x-amz-date'] || '').slice(0, 8)) return 'AccessDenied';
  const sum = crypto.createHash('sha256').update(body).digest('hex');
  if (request.headers['x-amz-content-sha256'] !== sum) return 'XAmzContentSHA256Mismatch';
  if (!names.every(name => name in request.headers)) return 'SignatureDoesNotMatch';
  const signer = new aws4.RequestSigner(
    { service: 's3', region, method: request.method, path: request.url, doNotModifyHeaders: true, extraHeadersToInclude: { range: true },
      headers: Object.fromEntries(names.map(name => [name, request.headers[name]])) },
    { accessKeyId: access, secretAccessKey: secret });
  signer.datetime = request.headers['x-amz-date'];
  return signer.signature() === given[5] ? null : 'SignatureDoesNotMatch';
}

// The answer of s3rver to a request: its status.
function inner(port, method, target, headers, body, response) {
  return new Promise(resolve => {
    const request = http.request({ host: '127.0.0.1', port, method, path: target, headers }, answer => {
      if (response) {
        response.writeHead(answer.statusCode, answer.headers);
        answer.pipe(response);
      } else {
        answer.resume();
      }
      answer.on('end', () => resolve(answer.statusCode));
    });
    request.on('error', () => resolve(0));
    request.end(body);
  });
}

async function main() {
  account.DUMMY_ACCOUNT.createKeyPair(access, secret);
  const server = new S3rver({ address: '127.0.0.1', port: 0, silent: true, directory, configureBuckets: [{ name: bucket }] });
  const { port } = await server.run();
  const underWay = new Set();

  const front = http.createServer((request, response) => {
    const pieces = [];
    response.on('finish', () => console.log(`${request.method} ${request.url} ${response.statusCode}`));
    request.on('data', piece => pieces.push(piece));
    request.on('end', async () => {
      const body = Buffer.concat(pieces);
      const wrong = fault(request, body);
      if (wrong) return refuse(response, wrong.endsWith('Malformed') ? 400 : 403, wrong);
      const onlyNew = request.method === 'PUT' && request.headers['if-none-match'] === '*' && mode !== '--overwrites';
      if (onlyNew) {
        if (underWay.has(request.url)) return refuse(response, 409, 'ConditionalRequestConflict');
        underWay.add(request.url);
        if (await inner(port, 'HEAD', request.url, {}) === 200) {
          underWay.delete(request.url);
          return refuse(response, 412, 'PreconditionFailed');
        }
      }
      const target = request.url.includes('list-type=2') ? request.url + '&max-keys=7' : request.url;
      await inner(port, request.method, target, request.headers, body, response);
      if (onlyNew) underWay.delete(request.url);
    });
  });
  front.listen(0, '127.0.0.1', () => console.log(`event=ready listen=127.0.0.1:${front.address().port}`));
}

main();
