package interop

import (
	"context"
	"io"
	"net/http"
	"strings"
	"syscall"
	"time"

	"zipline.internal/interop/knative/internal/relay"
	"zipline.internal/interop/knative/internal/wire"
)

// Knative's own times: a quiet period of 30 s, polls of a second, at most 60 s for hijacked connections.
const drainPatience = 40 * time.Second

// term tells it to end, as the kubelet does.
func (r *run) term() {
	if r.fault.dies {
		r.process.Signal(syscall.SIGKILL)
		<-r.process.Ended()
		return
	}
	r.process.Signal(syscall.SIGTERM)
	// The signal is taken in its own time; the scenario is about what comes after it.
	r.within("draining", func() bool {
		return r.Do(wire.Request{Port: atoi(r.env["QUEUE_SERVING_PORT"]), Header: []string{"User-Agent: kube-probe/1", "K-Network-Probe: queue"}}).Status() == 503
	})
}

// event notes things in the order in which they come.
func (r *run) event(what string, args ...any) { r.Note("event", what, args...) }

// exits waits for its end and notes it as an event.
func (r *run) exits(patience time.Duration) {
	select {
	case <-r.process.Ended():
	case <-time.After(patience):
	}
	r.event("process: %s", r.process.Exit())
}

var shutdown = []*scenario{
	{
		id: "K6.1-01", title: "after SIGTERM probes are 503 and requests are served, connections kept", slow: true,
		run: func(r *run) {
			r.function(ok)
			r.start()
			before := r.connect(mainPort)
			r.term()
			for _, agent := range []string{"kube-probe/1", "Knative-Activator-Probe", "Knative-Autoscaling-Probe"} {
				r.do("probe", probing(agent, "queue"))
			}
			r.do("network probe", wire.Request{Header: []string{"K-Network-Probe: probe", "K-Network-Hash: 1"}})
			r.do("network probe without hash", wire.Request{Header: []string{"K-Network-Probe: probe"}})
			r.do("deferred", wire.Request{Method: "POST", Body: strings.NewReader("zl1.x"), Length: 5,
				Header: []string{"User-Agent: Knative-Activator-Probe zipline/1", "Content-Type: application/octet-stream"}})
			before.say("GET / HTTP/1.1\nHost: echo\n\n")
			before.answer("request on an old connection", "GET")
			before.stays("old connection")
			r.do("request", wire.Request{})
			r.do("h2c request", wire.Request{H2: true})
			r.Note("then", "%s", r.process.Exit())
		},
		broken: text("probe body", "draining\n"),
	},
	{
		id: "K6.2-01", title: "idle, it ends with 0 after the quiet period; the function's preStop returns when it does", slow: true,
		run: func(r *run) {
			r.function(ok)
			r.start()
			pre := make(chan *wire.Reply, 1)
			r.Transport(adminPort, false)
			go func() { pre <- r.Do(wire.Request{Port: adminPort, Path: "/wait-for-drain", Patience: drainPatience}) }()
			r.term()
			var reply *wire.Reply
			select {
			case reply = <-pre:
				r.event("preStop at once")
			case <-time.After(3 * time.Second):
				r.event("preStop waits")
				reply = <-pre
			}
			r.event("preStop: %d %q", reply.Status(), reply.Body)
			r.exits(drainPatience)
			r.event("port: %s", wire.Class(r.Do(wire.Request{Port: mainPort}).Err))
		},
		broken: fault{key: "event", dies: true},
	},
	{
		id: "K6.2-02", title: "requests that arrive restart the quiet period, probes do not", slow: true,
		run: func(r *run) {
			r.function(ok)
			r.start()
			r.term()
			begin := time.Now()
			probe := func() {
				r.Do(wire.Request{Port: mainPort, Header: []string{"User-Agent: kube-probe/1", "K-Network-Probe: queue"}, Patience: time.Second})
			}
			for time.Since(begin) < 15*time.Second {
				time.Sleep(time.Second)
				probe()
			}
			r.Note("request in the middle", "%d", r.Do(wire.Request{Port: mainPort}).Status())
			for time.Since(begin) < 34*time.Second {
				time.Sleep(time.Second)
				probe()
			}
			r.event("after the first quiet period: %s", r.process.Exit())
			r.exits(20 * time.Second)
		},
		broken: fault{key: "event", dies: true},
	},
	{
		id: "K6.2-03", title: "a second signal ends it with 1", slow: true,
		run: func(r *run) {
			r.function(ok)
			r.start()
			r.term()
			r.process.Signal(syscall.SIGTERM)
			r.exits(patience)
		},
		broken: fault{key: "event", dies: true},
	},
	{
		id: "K6.2-04", title: "SIGINT is as good as SIGTERM", slow: true,
		run: func(r *run) {
			r.function(ok)
			r.start()
			if !r.fault.dies {
				r.process.Signal(syscall.SIGINT)
			} else {
				r.process.Kill()
			}
			r.within("draining", func() bool {
				return r.Do(wire.Request{Port: mainPort, Header: []string{"User-Agent: kube-probe/1", "K-Network-Probe: queue"}}).Status() == 503
			})
			r.do("request", wire.Request{})
		},
		broken: fault{key: "draining", dies: true},
	},
	{
		id: "K6.3-01", title: "preStop without a signal: it returns within a second and probes recover", slow: true,
		run: func(r *run) {
			r.function(ok)
			r.start()
			pre := make(chan *wire.Reply, 1)
			r.Transport(adminPort, false)
			go func() { pre <- r.Do(wire.Request{Port: adminPort, Path: "/wait-for-drain"}) }()
			r.within("probes are 503", func() bool { return r.Do(probeOf(mainPort)).Status() == 503 })
			r.do("request meanwhile", wire.Request{})
			(<-pre).Note(r.Observation, "preStop")
			r.within("probes recover", func() bool { return r.Do(probeOf(mainPort)).Status() == 200 })
			// And again: a container may restart more than once.
			again := r.Do(wire.Request{Port: adminPort, Path: "/wait-for-drain"})
			again.Note(r.Observation, "second preStop")
			r.health("health")
		},
		broken: fault{key: "probes are 503", front: map[int]relay.Hooks{mainPort: {Response: func(response *http.Response) error {
			if response.StatusCode == 503 {
				response.StatusCode = 200
			}
			return nil
		}}}},
	},
	{
		id: "K6.3-02", title: "two preStops join one drain", slow: true,
		run: func(r *run) {
			r.function(ok)
			r.start()
			done := make(chan int, 2)
			r.Transport(adminPort, false)
			r.term()
			for range 2 {
				go func() {
					done <- r.Do(wire.Request{Port: adminPort, Path: "/wait-for-drain", Patience: drainPatience}).Status()
				}()
			}
			r.event("first: %d", <-done)
			r.event("second: %d", <-done)
			r.exits(drainPatience)
		},
		broken: fault{key: "event", dies: true},
	},
	{
		id: "K6.4-01", title: "preStop does not wait for requests; the last one ends before the process does", slow: true,
		run: func(r *run) {
			h := r.held()
			r.start()
			r.Transport(mainPort, false)
			r.Transport(adminPort, false)
			long, pre := make(chan *wire.Reply, 1), make(chan int, 1)
			go func() { long <- r.Do(wire.Request{Port: mainPort, Path: "/long", Patience: 60 * time.Second}) }()
			happens(r, "function runs", h.entered)
			go func() {
				pre <- r.Do(wire.Request{Port: adminPort, Path: "/wait-for-drain", Patience: drainPatience}).Status()
			}()
			r.term()
			r.event("preStop: %d", <-pre)
			time.Sleep(2 * time.Second)
			r.event("with a request in flight: %s", r.process.Exit())
			r.event("new connections: %s", wire.Class(r.Do(wire.Request{Port: mainPort, Patience: patience}).Err))
			close(h.release)
			reply := <-long
			r.event("request: %d", reply.Status())
			reply.Note(r.Observation, "long")
			r.exits(patience)
		},
		broken: fault{key: "event", dies: true},
	},
	{
		id: "K6.5-01", title: "an answer after the listeners closed says Connection: close", slow: true,
		run: func(r *run) {
			h := r.held()
			r.start()
			c := r.connect(mainPort)
			c.say("GET /long HTTP/1.1\nHost: echo\n\n")
			happens(r, "function runs", h.entered)
			r.term()
			deadline := time.Now().Add(drainPatience)
			for time.Now().Before(deadline) {
				conn, err := r.namespace.Dial(mainPort)
				if err != nil {
					break
				}
				conn.Close()
				time.Sleep(50 * time.Millisecond)
			}
			close(h.release)
			c.answer("long", "GET")
			c.ends("connection", patience)
			r.exits(patience)
		},
		broken: wireDown("long closes", mainPort, swap("Connection: close", "Connection: stays")),
	},
	{
		id: "K6.6-01", title: "an open h2c stream is finished before the process ends", slow: true,
		run: func(r *run) {
			h := r.held()
			r.start()
			r.Transport(mainPort, true)
			long := make(chan *wire.Reply, 1)
			go func() {
				long <- r.Do(wire.Request{Port: mainPort, H2: true, Path: "/long", Patience: 60 * time.Second})
			}()
			happens(r, "function runs", h.entered)
			r.term()
			r.untilClosed()
			r.event("with a stream in flight: %s", r.process.Exit())
			more := make(chan int, 1)
			go func() {
				more <- r.Do(wire.Request{Port: mainPort, H2: true, Path: "/more", Patience: patience}).Status()
			}()
			happens(r, "a new stream on the old connection runs", h.entered)
			close(h.release)
			r.event("new stream: %d", <-more)
			r.event("stream: %d", (<-long).Status())
			r.exits(2 * patience)
		},
		broken: fault{key: "event", dies: true},
	},
	{
		id: "K6.7-01", title: "an open WebSocket is waited for after everything else, and goes on meanwhile", slow: true,
		run: func(r *run) {
			r.function(socket(r, "echo"))
			r.start()
			c := r.connect(mainPort)
			c.say("GET /ws HTTP/1.1\nHost: echo\nConnection: Upgrade\nUpgrade: echo\n\n")
			c.answer("upgrade", "GET")
			r.term()
			r.untilClosed()
			time.Sleep(2 * time.Second)
			r.event("with a WebSocket: %s", r.process.Exit())
			_, _ = io.WriteString(c.Conn, "still here")
			word := make([]byte, 10)
			_ = c.SetReadDeadline(time.Now().Add(patience))
			_, err := io.ReadFull(c.Reader, word)
			r.event("WebSocket: %q %s", word, wire.Class(err))
			c.Conn.Close()
			r.exits(patience)
		},
		broken: fault{key: "event", dies: true},
	},
	{
		id: "K6.7-02", title: "a WebSocket that never ends is given up after a minute, without a word", slow: true,
		run: func(r *run) {
			r.function(socket(r, "echo"))
			r.start()
			c := r.connect(mainPort)
			c.say("GET /ws HTTP/1.1\nHost: echo\nConnection: Upgrade\nUpgrade: echo\n\n")
			c.answer("upgrade", "GET")
			r.term()
			r.untilClosed()
			_ = c.SetReadDeadline(time.Now().Add(70 * time.Second))
			said, err := io.ReadAll(c.Reader)
			r.event("WebSocket: %q %s", said, wire.Class(err))
			r.exits(patience)
		},
		broken: fault{key: "event", dies: true},
	},
	{
		id: "K6.8-01", title: "nothing limits the quiet period to a short timeout", slow: true,
		run: func(r *run) {
			r.function(ok)
			r.start("REVISION_TIMEOUT_SECONDS=1")
			r.term()
			time.Sleep(5 * time.Second)
			r.event("five seconds on: %s", r.process.Exit())
			r.do("request", wire.Request{})
		},
		broken: fault{key: "event", dies: true},
	},
}

func probeOf(port int) wire.Request {
	return wire.Request{Port: port, Header: []string{"User-Agent: kube-probe/1", "K-Network-Probe: queue"}, Patience: time.Second}
}

// untilClosed waits until the queue-proxy takes no more connections.
func (r *run) untilClosed() {
	ctx, cancel := context.WithTimeout(context.Background(), drainPatience)
	defer cancel()
	for ctx.Err() == nil {
		conn, err := r.namespace.Dial(mainPort)
		if err != nil {
			r.event("listener closed")
			return
		}
		conn.Close()
		time.Sleep(50 * time.Millisecond)
	}
	r.event("listener never closed")
}
