package subject

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"time"
)

// servingPort is where a queue-proxy in a pod takes requests.
const servingPort = 8012

// Knative starts a queue-proxy as Knative does: with the environment of a revision's pod, in a network of its own.
type Knative struct {
	// Name stands in reports.
	Name string
	// Binary is the program: Knative's own queue-proxy, or Zipline's.
	Binary string
}

// Start starts it in a place of its own and waits until it takes requests.
func (k Knative) Start(place *Place, userPort int) (*Subject, error) {
	command := exec.Command(k.Binary)
	command.Env = []string{
		"CONTAINER_CONCURRENCY=0",
		"QUEUE_SERVING_PORT=" + strconv.Itoa(servingPort), "QUEUE_SERVING_TLS_PORT=8112",
		fmt.Sprintf("USER_PORT=%d", userPort),
		"REVISION_TIMEOUT_SECONDS=300",
		"SERVING_LOGGING_CONFIG=", "SERVING_LOGGING_LEVEL=",
		"SERVING_NAMESPACE=default", "SERVING_SERVICE=f", "SERVING_CONFIGURATION=f", "SERVING_REVISION=f-00001",
		"SERVING_POD=f-00001-deployment-1", "SERVING_POD_IP=127.0.0.1",
		fmt.Sprintf(`SERVING_READINESS_PROBE={"tcpSocket":{"host":"127.0.0.1","port":%d},"successThreshold":1}`, userPort),
	}
	process, err := launch(command, place, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", k.Binary, err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", servingPort)
	listens := Eventually(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		conn, err := place.Dial(ctx, addr)
		if err == nil {
			conn.Close()
		}
		return err
	})
	if listens != nil {
		process.stop()
		return nil, fmt.Errorf("%s never listened: %w\n%s", k.Binary, listens, process.log.text())
	}
	return &Subject{Name: k.Name, Addr: addr, place: place, stop: process.stop}, nil
}
