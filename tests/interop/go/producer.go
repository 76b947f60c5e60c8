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
	all := make([]sent, o.count+1)
	answers := make(chan *nsq.ProducerTransaction, o.window)
	room := make(chan struct{}, o.window)
	finished := make(chan struct{})
	go func() {
		for answered := uint32(0); answered < o.count; {
			answer := <-answers
			at := time.Since(begun).Nanoseconds()
			first, size := answer.Args[0].(uint32), answer.Args[1].(uint32)
			for n := first; n < first+size; n++ {
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
	for number := uint32(1); number <= o.count; {
		w := wayOf(o, number)
		bodies := make([][]byte, 0, w.size)
		for n := number; n < number+w.size; n++ {
			bodies = append(bodies, bodyOf(o.seed, n))
		}
		room <- struct{}{}
		now := time.Now()
		for i, body := range bodies {
			all[number+uint32(i)] = sent{
				Body: number + uint32(i), Sum: sumOf(body), Bytes: len(body), Way: w.name, DelayMS: w.delayMS,
				Sent: now.UnixNano(), SentMono: now.Sub(begun).Nanoseconds(),
			}
		}
		switch w.name {
		case "pub":
			err = producer.PublishAsync(o.topic, bodies[0], answers, number, w.size)
		case "mpub":
			err = producer.MultiPublishAsync(o.topic, bodies, answers, number, w.size)
		case "dpub":
			delay := time.Duration(w.delayMS) * time.Millisecond
			err = producer.DeferredPublishAsync(o.topic, delay, bodies[0], answers, number, w.size)
		}
		if err != nil {
			return err
		}
		number += w.size
	}
	<-finished
	producer.Stop()
	for _, record := range all[1:] {
		if err := records.Encode(record); err != nil {
			return err
		}
	}
	return nil
}
