package api

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
)

// metricsEngine writes what Prometheus collects.
type metricsEngine interface {
	Metrics(ctx context.Context, out io.Writer) error
}

// answers counts answers by the class of their status.
type answers struct{ classes [6]atomic.Int64 }

// count notes one answer.
func (a *answers) count(status int) {
	if class := status / 100; class > 0 && class < len(a.classes) {
		a.classes[class].Add(1)
	}
}

func getMetrics(x *exchange) error {
	var b bytes.Buffer
	if err := x.api.engine.Metrics(x.ctx(), &b); err != nil {
		return err
	}
	b.WriteString("# HELP berth_api_failures_total Requests to the API that were answered with an error, by class of status.\n# TYPE berth_api_failures_total counter\n")
	for class := 3; class < len(x.api.failures.classes); class++ {
		fmt.Fprintf(&b, "berth_api_failures_total{class=\"%dxx\"} %d\n", class, x.api.failures.classes[class].Load())
	}
	x.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	x.WriteHeader(http.StatusOK)
	_, _ = x.Write(b.Bytes())
	return nil
}
