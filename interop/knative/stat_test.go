package interop

import (
	"fmt"
	"net/http"

	"knative.dev/serving/pkg/autoscaler/metrics"

	"zipline.internal/interop/knative/internal/wire"
)

// stat asks the queue-proxy for its report, as Knative's own message.
func (r *run) stat() (*metrics.Stat, error) {
	conn, err := r.dial(statsPort)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	client := wire.NewClient(r.dial)
	defer client.Close()
	reply := client.Do(wire.Request{Port: statsPort, Path: "/metrics", Patience: patience})
	if reply.Err != nil {
		return nil, reply.Err
	}
	if reply.Status() != http.StatusOK {
		return nil, fmt.Errorf("status %d", reply.Status())
	}
	var stat metrics.Stat
	if err := stat.Unmarshal(reply.Body); err != nil {
		return nil, err
	}
	return &stat, nil
}
