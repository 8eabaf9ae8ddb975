// Package syslog is the log driver that sends lines to a syslog server. It exists
// beside the others, not instead of one: the monitor keeps the lines in files of
// the driver local, exactly as it does without a server, and a Forwarder in the
// engine reads them there and sends them. So a container never waits for a
// server; an outage of the server, the engine or the network lasts as long as the
// files reach; and what was sent can still be read.
package syslog

import (
	"net"
	"net/url"
	"strconv"
	"strings"

	"berth/internal/fault"
	"berth/internal/logs"
	"berth/internal/logs/local"
)

// Name is what users call the driver.
const Name = "syslog"

// DefaultTag is the template of the tag when none is given.
const DefaultTag = "{{.ID}}"

// The formats of messages; "" is docker's own.
const (
	RFC3164      = "rfc3164"
	RFC5424      = "rfc5424"
	RFC5424Micro = "rfc5424micro" // with microseconds
)

// Options are the settings of the driver.
type Options struct {
	// Options have as their files what users call the cache: how much is kept while
	// the server is away, and afterwards for reading.
	logs.Options

	Network  string // tcp, tcp+tls, udp, unix, unixgram; "" is the machine's own syslog
	Address  string // host:port, or a path
	Facility int
	Format   string

	CA, Cert, Key string // paths of PEM files
	SkipVerify    bool
}

var facilities = map[string]int{
	"kern": 0, "user": 1, "mail": 2, "daemon": 3, "auth": 4, "syslog": 5, "lpr": 6, "news": 7, "uucp": 8, "cron": 9, "authpriv": 10, "ftp": 11,
	"local0": 16, "local1": 17, "local2": 18, "local3": 19, "local4": 20, "local5": 21, "local6": 22, "local7": 23,
}

// Parse reads the options of the driver as users write them. The error names the
// option.
func Parse(options map[string]string) (Options, error) {
	o := Options{Facility: facilities["daemon"]}
	o.Cache.Compress = true
	for name, value := range options {
		if err := o.set(name, value); err != nil {
			return Options{}, err
		}
	}
	if (o.Cert == "") != (o.Key == "") {
		return Options{}, fault.New(fault.Invalid, "use log option", "syslog-tls-cert", "syslog-tls-cert and syslog-tls-key belong together")
	}
	o.Files = o.Cache
	o.Default(local.DefaultMaxSize, local.DefaultMaxFiles)
	return o, o.Check()
}

func (o *Options) set(name, value string) (err error) {
	switch name {
	case "syslog-address":
		o.Network, o.Address, err = parseAddress(value)
	case "syslog-facility":
		o.Facility, err = parseFacility(value)
	case "syslog-format":
		switch value {
		case "", RFC3164, RFC5424, RFC5424Micro:
			o.Format = value
		default:
			err = fault.New(fault.Invalid, "use log option", name, "invalid syslog format %q", value).WithHint("write %s, %s or %s", RFC3164, RFC5424, RFC5424Micro)
		}
	case "syslog-tls-ca-cert":
		o.CA = value
	case "syslog-tls-cert":
		o.Cert = value
	case "syslog-tls-key":
		o.Key = value
	case "syslog-tls-skip-verify":
		o.SkipVerify, err = logs.Bool(name, value)
	case "max-size", "max-file", "compress":
		err = logs.Unknown(Name, name) // its files are a cache, and have that in their names
	default:
		err = o.Set(Name, name, value)
	}
	return err
}

func parseAddress(text string) (network, address string, err error) {
	bad := func(format string, args ...any) (string, string, error) {
		return "", "", fault.New(fault.Invalid, "use log option", "syslog-address", format, args...).
			WithHint("write tcp://host:port, tcp+tls://host:port, udp://host:port, unix:///path or unixgram:///path")
	}
	if text == "" {
		return "", "", nil
	}
	if !strings.Contains(text, "://") {
		return bad("%q is not an address", text)
	}
	u, err := url.Parse(text)
	if err != nil {
		return bad("%q is not an address", text)
	}
	switch u.Scheme {
	case "unix", "unixgram":
		if u.Path == "" || u.Host != "" {
			return bad("%q has no absolute path", text)
		}
		return u.Scheme, u.Path, nil
	case "tcp", "udp", "tcp+tls":
		if u.Hostname() == "" || u.Path != "" && u.Path != "/" {
			return bad("%q is not a host and a port", text)
		}
		port := u.Port()
		if port == "" {
			port = "514"
		}
		return u.Scheme, net.JoinHostPort(u.Hostname(), port), nil
	}
	return bad("there is no way of transport called %q", u.Scheme)
}

func parseFacility(text string) (int, error) {
	if text == "" {
		return facilities["daemon"], nil
	}
	if n, known := facilities[text]; known {
		return n, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > 23 {
		return 0, fault.New(fault.Invalid, "use log option", "syslog-facility", "invalid syslog facility %q", text).
			WithHint("write a name as in daemon or local0, or a number from 0 to 23")
	}
	return n, nil
}
