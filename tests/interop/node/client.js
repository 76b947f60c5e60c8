// Interop client with nsqjs: a producer and a consumer that write down what they did and saw (../README.md).
'use strict'

const fs = require('fs')
const {performance} = require('perf_hooks')
const {parseArgs} = require('util')

const nsq = require('nsqjs')

const plan = require('./plan')

const text = {type: 'string'}
const {values, positionals} = parseArgs({
  allowPositionals: true,
  options: {
    'nsqd-tcp-address': text,
    'lookupd-http-address': text, // the consumer finds nsqd there
    transport: text, // plain, tls, snappy, deflate, tls-snappy, tls-deflate
    'tls-root-ca-file': text,
    topic: text,
    channel: text,
    name: text, // of this connection, in the records
    out: text, // file for the records
    count: text,
    seed: text,
    'deferred-per-mille': text,
    'mpub-per-mille': text,
    'requeue-per-mille': text,
    'hold-per-million': text,
    window: text,
    'max-in-flight': text,
    'msg-timeout-ms': text,
  },
})
const options = {
  ...values,
  count: Number(values.count),
  seed: Number(values.seed),
  deferredPerMille: Number(values['deferred-per-mille'] || 0),
  mpubPerMille: Number(values['mpub-per-mille'] || 0),
  requeuePerMille: Number(values['requeue-per-mille'] || 0),
  holdPerMillion: Number(values['hold-per-million'] || 0),
  window: Number(values.window || 64),
  maxInFlight: Number(values['max-in-flight'] || 200),
  msgTimeoutMs: Number(values['msg-timeout-ms'] || 5000),
}

const layerNames = (values.transport || 'plain').split('-')
const layers = {snappy: layerNames.includes('snappy'), deflate: layerNames.includes('deflate')}
if (layerNames.includes('tls')) Object.assign(layers, {tls: true, ca: [fs.readFileSync(values['tls-root-ca-file'])]})

const out = fs.openSync(options.out, 'w')
let pending = []

function write(record) {
  pending.push(JSON.stringify(record))
  if (pending.length >= 1000) flush()
}

function flush() {
  if (pending.length > 0) fs.writeSync(out, pending.join('\n') + '\n')
  pending = []
}

// Integers, though above 2^53 only to a quarter of a microsecond.
function wallNs() {
  return Math.floor((performance.timeOrigin + performance.now()) * 1e6)
}

function monoNs() {
  return Math.floor(performance.now() * 1e6)
}

function produce() {
  const [host, port] = options['nsqd-tcp-address'].split(':')
  const writer = new nsq.Writer(host, Number(port), layers)
  const records = []
  let number = 1
  let underWay = 0

  function answered(command, error) {
    const at = monoNs()
    for (const record of command) {
      record.answer_mono = at
      record.outcome = error ? String(error) : 'OK'
    }
    underWay -= 1
    // Not from inside the callback: nsqjs is still at work on the answer.
    setImmediate(send)
  }

  function send() {
    while (number <= options.count && underWay < options.window) {
      const way = plan.wayOf(options, number)
      const bodies = []
      for (let n = number; n < number + way.size; n++) bodies.push(plan.bodyOf(options.seed, n))
      const sent = wallNs()
      const sentMono = monoNs()
      const command = bodies.map((body, i) => ({
        body: number + i,
        sum: plan.sumOf(body),
        bytes: body.length,
        way: way.name,
        delay_ms: way.delayMs,
        sent,
        sent_mono: sentMono,
      }))
      records.push(...command)
      underWay += 1
      number += way.size
      const callback = (error) => answered(command, error)
      // deferPublish takes one message, and wants it in an array all the same.
      if (way.name === 'dpub') writer.deferPublish(options.topic, bodies, way.delayMs, callback)
      else writer.publish(options.topic, bodies, callback)
    }
    if (number > options.count && underWay === 0) {
      records.forEach(write)
      flush()
      process.exit(0)
    }
  }

  writer.on('ready', send)
  writer.on('error', (error) => console.error(`error: ${error}`))
  writer.connect()
}

function consume() {
  const salt = plan.saltOf(options.channel)
  const before = new Map() // deliveries so far, of messages whose fate is not plain
  let order = 0
  const where = options['lookupd-http-address']
    ? {lookupdHTTPAddresses: [options['lookupd-http-address']]}
    : {nsqdTCPAddresses: [options['nsqd-tcp-address']]}
  const reader = new nsq.Reader(options.topic, options.channel, {
    ...where,
    ...layers,
    maxInFlight: options.maxInFlight,
    messageTimeout: options.msgTimeoutMs,
    maxAttempts: 0,
  })
  // None belongs into a run without kills.
  reader.on('error', (error) => write({error: String(error)}))
  reader.on('nsqd_closed', () => write({error: 'connection closed'}))
  reader.on('message', (message) => {
    const at = wallNs()
    const body = message.body
    const number = plan.numberOf(body)
    const fate = plan.fateOf(options, salt, number)
    let action = 'fin'
    if (fate.requeues > 0 || fate.hold) {
      const earlier = before.get(number) || 0
      before.set(number, earlier + 1)
      if (earlier < fate.requeues) action = 'req'
      else if (fate.hold && earlier === 0) action = 'hold'
    }
    order += 1
    write({
      order,
      connection: options.name,
      id: message.id,
      timestamp: String(message.timestamp),
      attempts: message.attempts,
      body: number,
      sum: plan.sumOf(body),
      at,
      do: action,
      delay_ms: action === 'req' ? fate.delayMs : 0,
    })
    if (action === 'fin') message.finish()
    else if (action === 'req') message.requeue(fate.delayMs, false)
  })
  reader.connect()
  // The driver ends consumers when the node has nothing left to deliver.
  for (const name of ['SIGTERM', 'SIGINT']) {
    process.on(name, () => {
      flush()
      process.exit(0)
    })
  }
}

if (positionals[0] === 'producer') produce()
else if (positionals[0] === 'consumer') consume()
else {
  console.error('error: want producer or consumer')
  process.exit(2)
}
