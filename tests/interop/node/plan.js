// The plan of a run: a function of seed and message number alone, the same in all four languages (../README.md).
'use strict'

const crypto = require('crypto')

function mix(a, b, c) {
  let h = a ^ Math.imul(b, 0x9e3779b1) ^ Math.imul(c, 0x85ebca77)
  h ^= h >>> 16
  h = Math.imul(h, 0x85ebca6b)
  h ^= h >>> 13
  h = Math.imul(h, 0xc2b2ae35)
  return (h ^ (h >>> 16)) >>> 0
}

function saltOf(channel) {
  let h = 0x811c9dc5
  for (const byte of Buffer.from(channel)) h = Math.imul(h ^ byte, 0x01000193)
  return h >>> 0
}

function bodyOf(seed, number) {
  const h = mix(seed, number, 3)
  const length = 16 + (h % 400)
  const word = h.toString(16).padStart(8, '0')
  return Buffer.from(`${number}:${word.repeat(Math.floor(length / 8) + 1).slice(0, length)}`)
}

function numberOf(body) {
  return Number(body.subarray(0, body.indexOf(':')).toString())
}

function sumOf(body) {
  return crypto.createHash('sha256').update(body).digest('hex').slice(0, 16)
}

// How the command that begins with this message is sent.
function wayOf(options, number) {
  const h = mix(options.seed, number, 7)
  const r = h % 1000
  if (r < options.deferredPerMille) return {name: 'dpub', size: 1, delayMs: 50 + ((h >>> 10) % 1500)}
  if (r < options.deferredPerMille + options.mpubPerMille) {
    return {name: 'mpub', size: Math.min(2 + ((h >>> 10) % 49), options.first + options.count - number), delayMs: 0}
  }
  return {name: 'pub', size: 1, delayMs: 0}
}

// How often it is requeued, with what delay, and whether its first delivery is left to its timeout.
function fateOf(options, salt, number) {
  const h = mix(options.seed, number, salt)
  if (h % 1000 < options.requeuePerMille) {
    return {requeues: 1 + ((h >>> 10) & 1), delayMs: [0, 0, 100, 500][(h >>> 12) & 3], hold: false}
  }
  return {requeues: 0, delayMs: 0, hold: mix(options.seed, number, salt + 1) % 1000000 < options.holdPerMillion}
}

module.exports = {bodyOf, fateOf, numberOf, saltOf, sumOf, wayOf}
