package interop

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"

	"knative.dev/serving/pkg/autoscaler/metrics"

	"zipline.internal/interop/knative/internal/role"
	"zipline.internal/interop/knative/internal/wire"
)

// play starts the suite again, inside the namespace, in a role.
func (r *run) play(name string, variables ...string) *exec.Cmd {
	self, err := os.Executable()
	r.must(err)
	command := exec.Command(self)
	command.Env = append([]string{"INTEROP_ROLE=" + name, "SYSTEM_NAMESPACE=knative-serving"}, variables...)
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	command.Stderr = os.Stderr
	return command
}

// said plays a role to its end and returns what it said.
func (r *run) said(name string) string {
	command := r.play(name)
	var out strings.Builder
	command.Stdout, command.Stderr = &out, &out
	r.must(r.namespace.Do(command.Start))
	if err := command.Wait(); err != nil {
		fmt.Fprintf(&out, "%v", err)
	}
	return out.String()
}

// activator starts Knative's activator before the queue-proxy.
func (r *run) activator(variables ...string) {
	command := r.play("activator", variables...)
	r.must(r.namespace.Do(command.Start))
	r.later(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	r.must(r.open(role.ActivatorPort))
}

// activated is a request by way of the activator.
func activated(request wire.Request) wire.Request {
	request.Port = role.ActivatorPort
	request.Header = append([]string{"Knative-Serving-Revision: echo-00001", "Knative-Serving-Namespace: default"}, request.Header...)
	return request
}

// viaActivator sends requests through Knative's activator, which has to find the pod by its own probes first.
func viaActivator(h2 bool) func(*run) {
	return func(r *run) {
		r.function(r.echo)
		if h2 {
			r.start("QUEUE_SERVING_PORT=8013")
			r.activator("INTEROP_H2C=1")
		} else {
			r.start()
			r.activator()
		}
		r.do("through the activator", activated(wire.Request{H2: h2, Method: "POST", Path: "/a?b=c", Host: "echo.default.example.com",
			Body: strings.NewReader("hello"), Length: 5, Header: []string{"X-Forwarded-For: 10.9.9.9", "X-Forwarded-Proto: http"}}))
		_, proxied := r.requestsCounted(func() {
			for range 5 {
				r.Do(activated(wire.Request{H2: h2}))
			}
		})
		r.Note("proxied requests", "%d", proxied)
	}
}

var packages = []*scenario{
	{
		id: "P1-01", title: "Knative's stat scraper reads our report", slow: true,
		run: func(r *run) {
			h := r.held()
			r.start()
			var group sync.WaitGroup
			r.Transport(mainPort, false)
			for range 2 {
				group.Go(func() { r.Do(wire.Request{Port: mainPort, Header: []string{"K-Proxy-Request: activator"}}) })
			}
			happens(r, "runs", h.entered)
			happens(r, "runs", h.entered)
			r.reported(func(s *metrics.Stat) bool { return s.AverageConcurrentRequests > 1.99 && s.RequestCount == 0 })
			// The scraper goes to the port itself, so what breaks it lies behind: another name.
			said := r.said("scrape")
			close(h.release)
			group.Wait()
			var stat metrics.Stat
			if err := json.Unmarshal([]byte(said), &stat); err != nil {
				r.Note("scraped", "%s", said)
				return
			}
			r.Note("scraped pod", "%s", stat.PodName)
			r.Note("scraped concurrency", "%.1f, proxied %.1f", stat.AverageConcurrentRequests, stat.AverageProxiedConcurrentRequests)
		},
		broken: settings("runs", "CONTAINER_CONCURRENCY", "1"),
	},
	{
		id: "P2-01", title: "Knative's prober, as activator, autoscaler and ingress",
		run: func(r *run) {
			r.function(ok)
			r.start()
			lines := strings.Split(strings.TrimSpace(r.said("probe")), "\n")
			sort.Strings(lines)
			for _, line := range lines {
				name, said, _ := strings.Cut(line, ": ")
				r.Note("prober as "+name, "%s", said)
			}
		},
		broken: settings("prober as activator", "SERVING_READINESS_PROBE", `{"tcpSocket":{"port":8099,"host":"127.0.0.1"},"periodSeconds":1}`),
	},
	{
		id: "P3-01", title: "Knative's activator and throttler over HTTP/1.1", slow: true, run: viaActivator(false),
		broken: passes("function got host", func(r *http.Request) { r.Host = "127.0.0.1:8012" }),
	},
	{
		id: "P3-02", title: "Knative's activator and throttler over h2c", slow: true, run: viaActivator(true),
		broken: passes("function got host", func(r *http.Request) { r.Host = "127.0.0.1:8013" }),
	},
	{
		id: "P3-03", title: "the activator waits for a pod that is not ready, and sends once it is", slow: true,
		run: func(r *run) {
			r.start(`SERVING_READINESS_PROBE={"tcpSocket":{"port":8080,"host":"127.0.0.1"},"periodSeconds":1,"timeoutSeconds":1}`)
			r.activator()
			r.Transport(role.ActivatorPort, false)
			answer := make(chan *wire.Reply, 1)
			go func() { answer <- r.Do(activated(wire.Request{})) }()
			select {
			case <-answer:
				r.Note("answered", "before the function was there")
				return
			case <-time.After(2 * time.Second):
				r.Note("waits", "yes")
			}
			r.function(r.echo)
			(<-answer).Note(r.Observation, "answer")
		},
		broken: settings("waits", "SERVING_READINESS_PROBE", ""),
	},
}
