package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/url"
	"time"
)

// Stats is one sample of what a container uses.
type Stats struct {
	ID          string                  `json:"id"`
	Name        string                  `json:"name"`
	Read        time.Time               `json:"read"`
	CPU         CPUStats                `json:"cpu_stats"`
	PreviousCPU CPUStats                `json:"precpu_stats"`
	Memory      MemoryStats             `json:"memory_stats"`
	Networks    map[string]NetworkStats `json:"networks"`
	Pids        PidsStats               `json:"pids_stats"`
	Blkio       BlkioStats              `json:"blkio_stats"`
}

// CPUStats counts processor time, in nanoseconds.
type CPUStats struct {
	Usage struct {
		Total  uint64   `json:"total_usage"`
		PerCPU []uint64 `json:"percpu_usage"`
	} `json:"cpu_usage"`
	System uint64 `json:"system_cpu_usage"`
	Online uint32 `json:"online_cpus"`
}

// MemoryStats counts memory, in bytes.
type MemoryStats struct {
	Usage uint64            `json:"usage"`
	Limit uint64            `json:"limit"`
	Stats map[string]uint64 `json:"stats"`
}

// NetworkStats counts bytes of one interface.
type NetworkStats struct {
	Received    uint64 `json:"rx_bytes"`
	Transmitted uint64 `json:"tx_bytes"`
}

// PidsStats counts processes and threads.
type PidsStats struct {
	Current uint64 `json:"current"`
}

// BlkioStats counts bytes of block devices by operation.
type BlkioStats struct {
	Bytes []struct {
		Op    string `json:"op"`
		Value uint64 `json:"value"`
	} `json:"io_service_bytes_recursive"`
}

// ContainerStats gives sample every measurement of a container until sample
// returns false, the container ends or ctx does. With once the engine sends a
// single one, with the processor time before it.
func (c *Client) ContainerStats(ctx context.Context, ref string, once bool, sample func(Stats) bool) error {
	q := url.Values{"stream": {"1"}}
	if once {
		q.Set("stream", "0")
	}
	return stream(ctx, c, &request{method: "GET", path: "/containers/" + segment(ref) + "/stats", query: q.Encode()}, sample)
}

// stream decodes an answer of many JSON values until each returns false.
func stream[T any](ctx context.Context, c *Client, rq *request, each func(T) bool) error {
	a, err := c.do(ctx, rq)
	if err != nil {
		return err
	}
	in := json.NewDecoder(a)
	for {
		var v T
		err := in.Decode(&v)
		if errors.Is(err, io.EOF) {
			return a.Close()
		}
		if err == nil && each(v) {
			continue
		}
		a.exchange.abandon() // Close would wait for the next value
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		}
		return transferFailed(rq, err)
	}
}

// EventsOptions select events. Since and Until are "" or Unix times.
type EventsOptions struct {
	Since, Until string
	Filters      Filters
}

// Events gives each event of the engine as it was written, until each returns
// false or ctx ends.
func (c *Client) Events(ctx context.Context, o EventsOptions, each func(json.RawMessage) bool) error {
	q := url.Values{}
	setText(q, "since", o.Since)
	setText(q, "until", o.Until)
	o.Filters.query(q)
	return stream(ctx, c, &request{method: "GET", path: "/events", query: q.Encode()}, each)
}

// DiskUsage returns what takes how much of the disk, as the engine wrote it.
// verbose asks for every single thing.
func (c *Client) DiskUsage(ctx context.Context, verbose bool) (json.RawMessage, error) {
	q := url.Values{}
	setFlag(q, "verbose", verbose)
	setFlag(q, "owners", verbose) // other engines do not know it
	return fetch[json.RawMessage](ctx, c, "GET", "/system/df", q, nil)
}
