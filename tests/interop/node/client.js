// Interop client with nsqjs: a producer and a consumer that write down what they did and saw (../README.md).
'use strict'

const fs = require('fs')
const {performance} = require('perf_hooks')
const {parseArgs} = require('util')

const nsq = require('nsqjs')
const {NSQDConnection} = require('nsqjs/lib/nsqdconnection')

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
    first: text,
    count: text,
    seed: text,
    'deferred-per-mille': text,
    'mpub-per-mille': text,
    'requeue-per-mille': text,
    'hold-per-million': text,
    window: text,
    'max-in-flight': text,
    'msg-timeout-ms': text,
    'rest-ms': text, // after each publish
    restarts: {type: 'boolean'}, // nodes die and come back meanwhile
  },
})
const options = {
  ...values,
  first: Number(values.first || 1),
  count: Number(values.count),
  seed: Number(values.seed),
  deferredPerMille: Number(values['deferred-per-mille'] || 0),
  mpubPerMille: Number(values['mpub-per-mille'] || 0),
  requeuePerMille: Number(values['requeue-per-mille'] || 0),
  holdPerMillion: Number(values['hold-per-million'] || 0),
  window: Number(values.window || 64),
  maxInFlight: Number(values['max-in-flight'] || 200),
  msgTimeoutMs: Number(values['msg-timeout-ms'] || 5000),
  restMs: Number(values['rest-ms'] || 0),
}

const layerNames = (values.transport || 'plain').split('-')
const layers = {snappy: layerNames.includes('snappy'), deflate: layerNames.includes('deflate')}
// Without verification: nsqjs copies its options, and a copy of a buffer with a certificate is none any more.
if (layerNames.includes('tls')) Object.assign(layers, {tls: true, tlsVerification: false})

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

// Between two attempts to connect to a node that is down.
const RECONNECT_MS = 50

function produce() {
  const [host, port] = options['nsqd-tcp-address'].split(':')
  const end = options.first + options.count
  const records = []
  let writer
  let number = options.first
  let underWay = 0
  let resting = false

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
    while (writer.ready && !resting && number < end && underWay < options.window) {
      const way = plan.wayOf(options, number)
      const bodies = []
      for (let n = number; n < number + way.size; n++) bodies.push(plan.bodyOf(options.seed, n))
      const sent = wallNs()
      const sentMono = monoNs()
      const first = number
      const command = bodies.map((body, i) => ({
        body: first + i,
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
      if (options.restMs > 0) {
        resting = true
        setTimeout(() => {
          resting = false
          send()
        }, options.restMs)
      }
    }
    if (number >= end && underWay === 0) {
      records.forEach(write)
      flush()
      process.exit(0)
    }
  }

  // A writer of nsqjs does not connect again by itself.
  function connect() {
    const mine = new nsq.Writer(host, Number(port), layers)
    let isOver = false
    writer = mine
    function over() {
      if (isOver || !options.restarts) return
      isOver = true
      setTimeout(connect, RECONNECT_MS)
    }
    mine.on('ready', send)
    mine.on('error', (error) => {
      console.error(`error: ${error}`)
      over()
    })
    mine.on('closed', over)
    mine.connect()
  }

  connect()
}

// Tells each message which node it came from.
const createMessage = NSQDConnection.prototype.createMessage
NSQDConnection.prototype.createMessage = function (payload) {
  const message = createMessage.call(this, payload)
  message.node = this.id()
  return message
}

function consume() {
  const salt = plan.saltOf(options.channel)
  const before = new Map() // deliveries so far, of messages whose fate is not plain
  let order = 0
  const where = options['lookupd-http-address']
    ? {lookupdHTTPAddresses: options['lookupd-http-address'].split(',')}
    : {nsqdTCPAddresses: [options['nsqd-tcp-address']]}
  const reader = new nsq.Reader(options.topic, options.channel, {
    ...where,
    ...layers,
    maxInFlight: options.maxInFlight,
    messageTimeout: options.msgTimeoutMs,
    maxAttempts: 0,
    ...(options.restarts ? {lookupdPollInterval: 1} : {}),
  })
  // None belongs into a run without kills.
  reader.on('error', (error) => write({error: String(error), at: wallNs()}))
  reader.on('nsqd_closed', () => write({error: 'connection closed', at: wallNs()}))
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
      node: message.node,
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
