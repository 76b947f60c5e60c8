package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"strings"

	"github.com/nsqio/go-nsq"
)

// configOf is go-nsq's defaults with the layers of the transport.
func configOf(o options) (*nsq.Config, error) {
	config := nsq.NewConfig()
	for _, layer := range strings.Split(o.transport, "-") {
		switch layer {
		case "plain":
		case "snappy":
			config.Snappy = true
		case "deflate":
			config.Deflate = true
		case "tls":
			pem, err := os.ReadFile(o.rootCA)
			if err != nil {
				return nil, err
			}
			roots := x509.NewCertPool()
			if !roots.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("no certificate in %s", o.rootCA)
			}
			config.TlsV1 = true
			config.TlsConfig = &tls.Config{RootCAs: roots}
		default:
			return nil, fmt.Errorf("unknown transport %s", o.transport)
		}
	}
	return config, nil
}
