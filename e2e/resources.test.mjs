// Requests that name no model in a JSON body find their worker: resources, conversations, uploads.
import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';

import OpenAI, { toFile } from 'openai';

import { startEngine, startGateway, startUpstream } from './harness.mjs';

/// A worker that remembers the responses it made, as vLLM and others do.
async function startResponseStore(label) {
  const made = new Map();
  const upstream = await startUpstream((incoming, response, body) => {
    const answer = (status, value) =>
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value));
    const id = /^\/v1\/responses\/([^/?]+)/.exec(incoming.url)?.[1];
    if (incoming.method === 'POST' && !id) {
      const { previous_response_id: previous, stream } = JSON.parse(body);
      if (previous && !made.has(previous))
        return answer(404, { error: { message: `${label} has no ${previous}` } });
      const created = {
        id: `resp_${label}_${made.size}`,
        object: 'response',
        status: 'completed',
        output: [],
      };
      made.set(created.id, created);
      if (!stream) return answer(200, created);
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      const event = (type, fields) => `event: ${type}\ndata: ${JSON.stringify({ type, ...fields })}\n\n`;
      response.write(
        event('response.created', { sequence_number: 0, response: { ...created, status: 'in_progress' } }),
      );
      return response.end(event('response.completed', { sequence_number: 1, response: created }));
    }
    if (!made.has(id)) return answer(404, { error: { message: `${label} has no ${id}` } });
    if (incoming.method === 'DELETE') {
      made.delete(id);
      return answer(200, { id, object: 'response', deleted: true });
    }
    return answer(200, made.get(id));
  });
  return upstream;
}

describe('responses live where they were made', () => {
  let client, workers;

  before(async () => {
    workers = await Promise.all(['a', 'b', 'c'].map(startResponseStore));
    const gateway = await startGateway({
      pools: [{ model: 'm', policy: 'round_robin', workers: workers.map(worker => worker.url) }],
    });
    client = gateway.client();
  });

  it('retrieved, continued and deleted there', async () => {
    const ids = [];
    for (let i = 0; i < 6; ++i) ids.push((await client.responses.create({ model: 'm', input: 'x' })).id);
    assert.equal(new Set(ids.map(id => id.split('_')[1])).size, 3, `made on all workers: ${ids}`);
    for (const id of ids) {
      assert.equal((await client.responses.retrieve(id)).id, id);
      const next = await client.responses.create({ model: 'm', input: 'y', previous_response_id: id });
      assert.equal(next.id.split('_')[1], id.split('_')[1]);
      await client.responses.delete(id);
    }
  });

  it('also when they were streamed', async () => {
    for (let i = 0; i < 3; ++i) {
      let id;
      for await (const event of await client.responses.create({ model: 'm', input: 'x', stream: true }))
        id ??= event.response?.id;
      assert.equal((await client.responses.retrieve(id)).id, id);
    }
  });

  it('an unknown one is a 404', async () => {
    await assert.rejects(client.responses.retrieve('resp_unknown'), OpenAI.NotFoundError);
  });
});

describe('simulated engines', () => {
  it('keep their responses too', async () => {
    const engines = await Promise.all([startEngine(), startEngine()]);
    const gateway = await startGateway({
      pools: [{ model: 'sim', policy: 'round_robin', workers: engines.map(engine => engine.url) }],
    });
    const made = new Map();
    for (let i = 0; i < 4; ++i) {
      const { data, response } = await gateway
        .client()
        .responses.create({ model: 'sim', input: 'hello', max_output_tokens: 4 })
        .withResponse();
      made.set(data.id, response.headers.get('x-heng-worker'));
    }
    assert.deepEqual(new Set(made.values()), new Set(engines.map(engine => engine.name)));
    for (const [id, worker] of made) {
      const { data, response } = await gateway.client().responses.retrieve(id).withResponse();
      assert.equal(data.id, id);
      assert.equal(response.headers.get('x-heng-worker'), worker);
    }
  });
});

describe('multipart', () => {
  let speech, other, gateway;
  const wav = Buffer.from(Array.from({ length: 5000 }, (_, i) => (i * 7) % 256));

  before(async () => {
    const transcript = (incoming, response) =>
      response.setHeader('content-type', 'application/json').end('{"text":"heard"}');
    [speech, other] = [await startUpstream(transcript), await startUpstream(transcript)];
    gateway = await startGateway({
      default_model: 'other',
      pools: [
        { model: 'other', workers: [other.url] },
        { model: 'whisper', workers: [speech.url] },
      ],
    });
  });

  it('audio goes by its model field', async () => {
    const answer = await gateway.client().audio.transcriptions.create({
      file: await toFile(wav, 'speech.wav'),
      model: 'whisper',
      language: 'en',
    });
    assert.equal(answer.text, 'heard');
    assert.equal(speech.requests.length, 1);
    assert.ok(speech.requests[0].body.includes(wav), 'the file is untouched');
    assert.match(speech.requests[0].headers['content-type'], /^multipart\/form-data; boundary=/);
  });

  it('wherever the field stands, and whatever the file contains', async () => {
    // Not at the start of a line, so not a boundary.
    const trap = Buffer.from('--b\r\ncontent-disposition: form-data; name="model"\r\n\r\nother\r\n');
    const body = Buffer.concat([
      Buffer.from(
        '--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n' +
          'Content-Type: audio/wav\r\n\r\nx',
      ),
      trap,
      wav,
      Buffer.from('\r\n--b\r\ncontent-disposition: form-data; name="model"\r\n\r\nwhisper\r\n--b--\r\n'),
    ]);
    const before = speech.requests.length;
    const answer = await gateway.request('/v1/audio/transcriptions', {
      method: 'POST',
      body,
      headers: { 'content-type': 'multipart/form-data; boundary=b' },
    });
    assert.equal(answer.worker, speech.name);
    assert.deepEqual(speech.requests[before].body, body);
  });

  it('without one goes to the default model', async () => {
    const body = '--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--b--\r\n';
    const answer = await gateway.request('/v1/files', {
      method: 'POST',
      body,
      headers: { 'content-type': 'multipart/form-data; boundary="b"' },
    });
    assert.equal(answer.worker, other.name);
  });
});
