package main

import (
	"encoding/json"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nsqio/go-nsq"
)

type received struct {
	Order      int    `json:"order"`
	Connection string `json:"connection"`
	Node       string `json:"node"`
	ID         string `json:"id"`
	Timestamp  string `json:"timestamp"` // a string: more digits than a JSON number holds for some readers
	Attempts   uint16 `json:"attempts"`
	Body       uint32 `json:"body"`
	Sum        string `json:"sum"`
	At         int64  `json:"at"` // wall clock, ns
	Do         string `json:"do"` // fin, req, hold
	DelayMS    uint32 `json:"delay_ms"`
}

type trouble struct {
	Error string `json:"error"`
	At    int64  `json:"at"` // wall clock, ns
}

type consumer struct {
	options
	salt    uint32
	mutex   sync.Mutex // of what follows; the logger writes records too
	records *json.Encoder
	order   int
	before  map[uint32]uint32 // deliveries so far, of messages whose fate is not plain
}

// Output takes go-nsq's warnings and errors: none belongs into a run without kills.
func (c *consumer) Output(_ int, text string) error {
	log.Print(text)
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.records.Encode(trouble{text, time.Now().UnixNano()})
}

func (c *consumer) HandleMessage(message *nsq.Message) error {
	at := time.Now().UnixNano()
	number, err := numberOf(message.Body)
	if err != nil {
		_ = c.Output(0, fmt.Sprintf("message %s has no number: %q", message.ID, message.Body))
		return nil
	}
	fate := fateOf(c.options, c.salt, number)
	record := received{
		Connection: c.name, Node: message.NSQDAddress, ID: string(message.ID[:]), Timestamp: strconv.FormatInt(message.Timestamp, 10),
		Attempts: message.Attempts, Body: number, Sum: sumOf(message.Body), At: at, Do: "fin",
	}
	c.mutex.Lock()
	earlier := c.before[number]
	if fate.hold || fate.requeues > 0 {
		c.before[number]++
	}
	if earlier < fate.requeues {
		record.Do, record.DelayMS = "req", fate.delayMS
	} else if fate.hold && earlier == 0 {
		record.Do = "hold"
	}
	c.order++
	record.Order = c.order
	err = c.records.Encode(record)
	c.mutex.Unlock()
	if err != nil {
		fail(err)
	}
	message.DisableAutoResponse()
	switch record.Do {
	case "fin":
		message.Finish()
	case "req":
		message.RequeueWithoutBackoff(time.Duration(record.DelayMS) * time.Millisecond)
	}
	return nil
}

func consume(o options, records *json.Encoder) error {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)

	config, err := configOf(o)
	if err != nil {
		return err
	}
	config.MaxInFlight = o.maxInFlight
	config.MaxAttempts = 0 // otherwise the sixth delivery is finished unseen
	config.MsgTimeout = o.msgTimeout
	if o.restarts {
		config.LookupdPollInterval = time.Second
		config.LookupdPollJitter = 0
	}
	reader, err := nsq.NewConsumer(o.topic, o.channel, config)
	if err != nil {
		return err
	}
	c := &consumer{options: o, salt: saltOf(o.channel), records: records, before: map[uint32]uint32{}}
	reader.SetLogger(c, nsq.LogLevelWarning)
	// One handler: with more, messages would overtake each other inside this process.
	reader.AddHandler(c)
	if o.lookupd != "" {
		err = reader.ConnectToNSQLookupds(strings.Split(o.lookupd, ","))
	} else {
		err = reader.ConnectToNSQD(o.nsqd)
	}
	if err != nil {
		return err
	}
	// The driver ends consumers when the node has nothing left to deliver. A clean stop of go-nsq would wait for
	// the messages that were left to their timeout; closing the connection is all that is needed.
	<-stop
	c.mutex.Lock()
	return nil
}
