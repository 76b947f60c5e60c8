package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// The plan is a function of seed and message number alone, the same in all four languages (../README.md).

func mix(a, b, c uint32) uint32 {
	h := a ^ b*0x9E3779B1 ^ c*0x85EBCA77
	h ^= h >> 16
	h *= 0x85EBCA6B
	h ^= h >> 13
	h *= 0xC2B2AE35
	h ^= h >> 16
	return h
}

func saltOf(channel string) uint32 {
	h := uint32(0x811C9DC5)
	for _, b := range []byte(channel) {
		h = (h ^ uint32(b)) * 0x01000193
	}
	return h
}

func bodyOf(seed, number uint32) []byte {
	h := mix(seed, number, 3)
	length := 16 + int(h%400)
	word := fmt.Sprintf("%08x", h)
	return []byte(fmt.Sprintf("%d:%s", number, strings.Repeat(word, length/8+1)[:length]))
}

func numberOf(body []byte) (number uint32, err error) {
	_, err = fmt.Sscanf(string(body), "%d:", &number)
	return number, err
}

func sumOf(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:8])
}

type way struct {
	name    string
	size    uint32 // messages in the command
	delayMS uint32
}

func wayOf(o options, number uint32) way {
	h := mix(o.seed, number, 7)
	switch r := h % 1000; {
	case r < o.deferredPerMille:
		return way{"dpub", 1, 50 + (h>>10)%1500}
	case r < o.deferredPerMille+o.mpubPerMille:
		size := 2 + (h>>10)%49
		if left := o.first + o.count - number; size > left {
			size = left
		}
		return way{"mpub", size, 0}
	default:
		return way{"pub", 1, 0}
	}
}

type fate struct {
	requeues uint32 // so many deliveries are requeued
	delayMS  uint32
	hold     bool // the first delivery is left to its timeout
}

func fateOf(o options, salt, number uint32) fate {
	if h := mix(o.seed, number, salt); h%1000 < o.requeuePerMille {
		return fate{requeues: 1 + (h>>10)&1, delayMS: [4]uint32{0, 0, 100, 500}[(h>>12)&3]}
	}
	return fate{hold: mix(o.seed, number, salt+1)%1000000 < o.holdPerMillion}
}
