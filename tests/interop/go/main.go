// Interop client with go-nsq: a producer and a consumer that write down what they did and saw (../README.md).
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"
)

type options struct {
	nsqd, lookupd, topic, channel, name, out string
	transport, rootCA                        string
	first, count, seed                       uint32
	deferredPerMille, mpubPerMille           uint32
	requeuePerMille, holdPerMillion          uint32
	window, maxInFlight                      int
	msgTimeout, rest                         time.Duration
	restarts                                 bool
}

func main() {
	if len(os.Args) < 2 {
		fail(fmt.Errorf("want producer or consumer"))
	}
	var o options
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	number := func(into *uint32, name string) {
		flags.Func(name, "number", func(text string) error {
			_, err := fmt.Sscan(text, into)
			return err
		})
	}
	flags.StringVar(&o.nsqd, "nsqd-tcp-address", "", "host:port")
	flags.StringVar(&o.lookupd, "lookupd-http-address", "", "host:port,…; the consumer finds nsqd there")
	flags.StringVar(&o.transport, "transport", "plain", "plain, tls, snappy, deflate, tls-snappy, tls-deflate")
	flags.StringVar(&o.rootCA, "tls-root-ca-file", "", "")
	flags.StringVar(&o.topic, "topic", "", "")
	flags.StringVar(&o.channel, "channel", "", "")
	flags.StringVar(&o.name, "name", "", "of this connection, in the records")
	flags.StringVar(&o.out, "out", "", "file for the records")
	o.first = 1
	number(&o.first, "first")
	number(&o.count, "count")
	number(&o.seed, "seed")
	number(&o.deferredPerMille, "deferred-per-mille")
	number(&o.mpubPerMille, "mpub-per-mille")
	number(&o.requeuePerMille, "requeue-per-mille")
	number(&o.holdPerMillion, "hold-per-million")
	flags.IntVar(&o.window, "window", 64, "publishes under way at once")
	flags.IntVar(&o.maxInFlight, "max-in-flight", 200, "")
	timeoutMS := flags.Int("msg-timeout-ms", 5000, "")
	restMS := flags.Int("rest-ms", 0, "after each publish")
	flags.BoolVar(&o.restarts, "restarts", false, "nodes die and come back meanwhile")
	_ = flags.Parse(os.Args[2:])
	o.msgTimeout = time.Duration(*timeoutMS) * time.Millisecond
	o.rest = time.Duration(*restMS) * time.Millisecond

	file, err := os.Create(o.out)
	if err != nil {
		fail(err)
	}
	records := bufio.NewWriter(file)
	switch os.Args[1] {
	case "producer":
		err = produce(o, json.NewEncoder(records))
	case "consumer":
		err = consume(o, json.NewEncoder(records))
	default:
		err = fmt.Errorf("want producer or consumer, not %s", os.Args[1])
	}
	if err == nil {
		err = records.Flush()
	}
	if err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "error:", err)
	os.Exit(2)
}
