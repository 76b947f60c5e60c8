package main

import (
	"encoding/json"
	"log"
	"os"
	"time"

	"github.com/nsqio/go-nsq"
)

type sent struct {
	Body       uint32 `json:"body"`
	Sum        string `json:"sum"`
	Bytes      int    `json:"bytes"`
	Way        string `json:"way"`
	DelayMS    uint32 `json:"delay_ms"`
	Sent       int64  `json:"sent"`        // wall clock, ns
	SentMono   int64  `json:"sent_mono"`   // ns since the start of the process
	AnswerMono int64  `json:"answer_mono"` // ns since the start of the process
	Outcome    string `json:"outcome"`
}

var begun = time.Now()

// Between two attempts to connect to a node that is down.
const reconnect = 50 * time.Millisecond

func produce(o options, records *json.Encoder) error {
	config, err := configOf(o)
	if err != nil {
		return err
	}
	producer, err := nsq.NewProducer(o.nsqd, config)
	if err != nil {
		return err
	}
	producer.SetLogger(log.New(os.Stderr, "", 0), nsq.LogLevelWarning)
	all := make([]sent, o.count)
	answers := make(chan *nsq.ProducerTransaction, o.window)
	room := make(chan struct{}, o.window)
	finished := make(chan struct{})
	go func() {
		for answered := uint32(0); answered < o.count; {
			answer := <-answers
			at := time.Since(begun).Nanoseconds()
			first, size := answer.Args[0].(uint32), answer.Args[1].(uint32)
			for n := first - o.first; n < first-o.first+size; n++ {
				all[n].AnswerMono = at
				all[n].Outcome = "OK"
				if answer.Error != nil {
					all[n].Outcome = answer.Error.Error()
				}
			}
			answered += size
			<-room
		}
		close(finished)
	}()
	for number := o.first; number < o.first+o.count; {
		w := wayOf(o, number)
		bodies := make([][]byte, 0, w.size)
		for n := number; n < number+w.size; n++ {
			bodies = append(bodies, bodyOf(o.seed, n))
		}
		room <- struct{}{}
		now := time.Now()
		for i, body := range bodies {
			all[number-o.first+uint32(i)] = sent{
				Body: number + uint32(i), Sum: sumOf(body), Bytes: len(body), Way: w.name, DelayMS: w.delayMS,
				Sent: now.UnixNano(), SentMono: now.Sub(begun).Nanoseconds(),
			}
		}
		for {
			switch w.name {
			case "pub":
				err = producer.PublishAsync(o.topic, bodies[0], answers, number, w.size)
			case "mpub":
				err = producer.MultiPublishAsync(o.topic, bodies, answers, number, w.size)
			case "dpub":
				delay := time.Duration(w.delayMS) * time.Millisecond
				err = producer.DeferredPublishAsync(o.topic, delay, bodies[0], answers, number, w.size)
			}
			if err == nil {
				break
			}
			if !o.restarts {
				return err
			}
			// There is no connection: nothing was sent.
			time.Sleep(reconnect)
		}
		number += w.size
		time.Sleep(o.rest)
	}
	<-finished
	producer.Stop()
	for _, record := range all {
		if err := records.Encode(record); err != nil {
			return err
		}
	}
	return nil
}
