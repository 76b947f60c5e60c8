// Files invoices unchanged, one file each, with nsqjs.
//
// A file gets its name only when all its bytes are on disk, and the message is finished after that: there is never
// half an invoice under a number, and none that the queue no longer has is missing. A redelivery must bring the same
// bytes; anything else is recorded as a conflict and the filed document stays.
'use strict'

const crypto = require('crypto')
const fs = require('fs')
const path = require('path')
const {parseArgs} = require('util')

const nsq = require('nsqjs')

const CHANNEL = 'archive'
const NUMBER = /<rsm:ExchangedDocument>\s*<ram:ID>([A-Z0-9-]{1,40})<\/ram:ID>/

const {values: options} = parseArgs({
  options: {
    'nsqd-tcp-address': {type: 'string'},
    topic: {type: 'string'},
    archive: {type: 'string'}, // folder
    index: {type: 'string'}, // file: what was filed, one JSON object a line
    ready: {type: 'string'}, // file to make when the subscription stands
  },
})

const index = fs.openSync(options.index, 'a')

function record(entry) {
  fs.writeSync(index, JSON.stringify(entry) + '\n')
  fs.fsyncSync(index)
}

function sync(folder) {
  const handle = fs.openSync(folder, 'r')
  fs.fsyncSync(handle)
  fs.closeSync(handle)
}

function file(message) {
  const xml = message.body
  const found = NUMBER.exec(xml.toString('utf8'))
  const delivery = {id: message.id, attempts: message.attempts}
  if (!found) {
    record({refused: 'no invoice number', ...delivery})
    return
  }
  const number = found[1]
  const sha256 = crypto.createHash('sha256').update(xml).digest('hex')
  const name = path.join(options.archive, `${number}.xml`)
  if (fs.existsSync(name)) {
    const same = fs.readFileSync(name).equals(xml)
    record(same ? {again: number, ...delivery} : {conflict: number, sha256, ...delivery})
    return
  }
  const unfinished = `${name}.part`
  const handle = fs.openSync(unfinished, 'w')
  fs.writeSync(handle, xml)
  fs.fsyncSync(handle)
  fs.closeSync(handle)
  fs.renameSync(unfinished, name)
  sync(options.archive)
  record({number, sha256, ...delivery})
}

fs.mkdirSync(options.archive, {recursive: true})
const reader = new nsq.Reader(options.topic, CHANNEL, {
  nsqdTCPAddresses: [options['nsqd-tcp-address']],
  maxInFlight: 20,
})
reader.on('ready', () => fs.writeFileSync(options.ready, ''))
reader.on('error', (error) => console.error(`archive: ${error}`))
reader.on('message', (message) => {
  file(message)
  message.finish()
})
reader.connect()

for (const name of ['SIGTERM', 'SIGINT']) {
  process.on(name, () => {
    // What was finished is written before the socket ends; unfinished messages go to the next consumer.
    reader.on('nsqd_closed', () => process.exit(0))
    reader.close()
  })
}
