package interop

// What the suite uses of Knative beside the queue-proxy itself; go.mod names the release.
import (
	_ "github.com/gorilla/websocket"
	_ "golang.org/x/net/http2"
	_ "knative.dev/networking/pkg/prober"
	_ "knative.dev/serving/pkg/activator/handler"
	_ "knative.dev/serving/pkg/activator/net"
	_ "knative.dev/serving/pkg/autoscaler/metrics"
	_ "knative.dev/serving/pkg/reconciler/revision/resources"
)
