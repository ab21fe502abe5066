package interop

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"zipline.internal/interop/knative/internal/fact"
	"zipline.internal/interop/knative/internal/netns"
	"zipline.internal/interop/knative/internal/proxy"
	"zipline.internal/interop/knative/internal/relay"
	"zipline.internal/interop/knative/internal/wire"
)

// Ports of the contract, and where the function listens.
const (
	mainPort    = 8012
	mainH2Port  = 8013
	tlsPort     = 8112
	adminPort   = 8022
	statsPort   = 9090
	metricsPort = 9091
	profilePort = 8008
	userPort    = 8080
	// A broken queue-proxy listens here plus the port it stands for, and the function is reached at behindPort.
	frontBase  = 20000
	behindPort = 18080
)

// How long a run waits for something that a right queue-proxy does at once. Only broken ones use it up.
const patience = 6 * time.Second

// scenario is one numbered comparison.
type scenario struct {
	id    string
	title string
	// run drives one queue-proxy and notes what it sees.
	run func(*run)
	// broken is a queue-proxy with just this behaviour wrong: the comparison must notice.
	broken fault
	// slow scenarios wait for Knative's long fixed times and are started first.
	slow bool
}

// fault makes a queue-proxy wrong. What is named is what makes it so.
type fault struct {
	// key is part of the name of a fact that must differ.
	key string
	// env replaces variables; the value "-" removes one.
	env map[string]string
	// front stands before ports of the queue-proxy.
	front map[int]relay.Hooks
	// behind stands between the queue-proxy and the function.
	behind *relay.Hooks
	// line changes what it writes.
	line func(string) string
	// dies lets it end at the first SIGTERM.
	dies bool
	// files changes what is mounted: "certificates" or "podinfo" withheld.
	withhold string
}

// run is one queue-proxy in one scenario.
type run struct {
	*fact.Observation
	*wire.Client
	binary    string
	namespace *netns.Namespace
	fault     *fault
	directory string
	process   *proxy.Process
	env       map[string]string
	certs     string
	podinfo   string
	// given is set once something was waited for in vain.
	given bool

	mu        sync.Mutex
	cleanups  []func()
	seen      []string
	connected int
}

// problem is how a run ends early; scenarios do not check errors of their own tools.
type problem struct{ error }

func (r *run) must(err error) {
	if err != nil {
		panic(problem{err})
	}
}

func (r *run) later(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cleanups = append(r.cleanups, f)
}

// perform runs a scenario against one queue-proxy. fault nil: as it is.
func perform(s *scenario, binary string, broken *fault) (facts []fact.Fact, log string, err error) {
	namespace, err := netns.New()
	if err != nil {
		return nil, "", err
	}
	directory, err := os.MkdirTemp("", "interop-")
	if err != nil {
		return nil, "", err
	}
	r := &run{
		Observation: &fact.Observation{}, binary: binary, namespace: namespace, fault: broken, directory: directory,
		env: defaultEnvironment(),
	}
	if r.fault == nil {
		r.fault = &fault{}
	}
	r.Client = wire.NewClient(r.dial)
	defer func() {
		if caught := recover(); caught != nil {
			p, ok := caught.(problem)
			if !ok {
				panic(caught)
			}
			err = p.error
		}
		facts = r.Facts()
		r.Client.Close()
		for i := len(r.cleanups) - 1; i >= 0; i-- {
			r.cleanups[i]()
		}
		if r.process != nil {
			log = r.process.Log()
		}
		namespace.Close()
		os.RemoveAll(directory)
	}()
	s.run(r)
	return
}

// dial connects to a port of the queue-proxy, or of what breaks it.
func (r *run) dial(port int) (net.Conn, error) {
	if _, broken := r.fault.front[port]; broken {
		port += frontBase
	}
	return r.namespace.Dial(port)
}

func defaultEnvironment() map[string]string {
	return map[string]string{
		"CONTAINER_CONCURRENCY":       "0",
		"QUEUE_SERVING_PORT":          "8012",
		"QUEUE_SERVING_TLS_PORT":      "8112",
		"USER_PORT":                   "8080",
		"REVISION_TIMEOUT_SECONDS":    "300",
		"SERVING_READINESS_PROBE":     `{"tcpSocket":{"port":8080,"host":"127.0.0.1"},"successThreshold":1}`,
		"SERVING_LOGGING_CONFIG":      "",
		"SERVING_LOGGING_LEVEL":       "info",
		"SERVING_NAMESPACE":           "default",
		"SERVING_SERVICE":             "echo",
		"SERVING_CONFIGURATION":       "echo",
		"SERVING_REVISION":            "echo-00001",
		"SERVING_POD":                 "echo-00001-deployment-7d4b9-x2x",
		"SERVING_POD_IP":              "10.3.2.1",
		"SYSTEM_NAMESPACE":            "knative-serving",
		"HOST_IP":                     "10.3.0.1",
		"ROOT_CA":                     "",
		"HOSTNAME":                    "echo-00001-deployment-7d4b9-x2x",
		"OBSERVABILITY_CONFIG":        `{"tracing":{},"metrics":{},"runtime":{},"requestMetrics":{}}`,
		"ENABLE_HTTP_FULL_DUPLEX":     "false",
		"ENABLE_HTTP2_AUTO_DETECTION": "false",
	}
}

// set changes variables of the queue-proxy: "NAME=value"; "NAME=-" removes one.
func (r *run) set(variables ...string) {
	for _, variable := range variables {
		name, value, _ := strings.Cut(variable, "=")
		setVariable(r.env, name, value)
	}
}

func setVariable(env map[string]string, name, value string) {
	if value == "-" {
		delete(env, name)
		return
	}
	env[name] = value
}

// launch starts the queue-proxy without waiting for it.
func (r *run) launch(variables ...string) {
	r.set(variables...)
	if r.fault.behind != nil {
		listener, err := r.namespace.Listen(behindPort)
		r.must(err)
		r.later(func() { listener.Close() })
		go relay.Serve(listener, func() (net.Conn, error) { return r.namespace.Dial(userPort) }, *r.fault.behind)
		r.env["USER_PORT"] = fmt.Sprint(behindPort)
	}
	for name, value := range r.fault.env {
		setVariable(r.env, name, value)
	}
	options := proxy.Options{Binary: r.binary, Environment: r.env, Line: r.fault.line}
	if r.fault.withhold != "certificates" {
		options.Certificates = r.certs
	}
	if r.fault.withhold != "podinfo" {
		options.PodInfo = r.podinfo
	}
	process, err := proxy.Start(r.namespace, options)
	r.must(err)
	r.process = process
	r.later(process.Kill)
	for port, hooks := range r.fault.front {
		listener, err := r.namespace.Listen(port + frontBase)
		r.must(err)
		r.later(func() { listener.Close() })
		go relay.Serve(listener, func() (net.Conn, error) { return r.namespace.Dial(port) }, hooks)
	}
}

// start starts the queue-proxy and waits until its port for requests is open.
func (r *run) start(variables ...string) {
	r.launch(variables...)
	r.must(r.open(atoi(r.env["QUEUE_SERVING_PORT"])))
	r.must(r.open(adminPort))
	r.must(r.open(statsPort))
}

// open waits until a port of the queue-proxy itself takes connections.
func (r *run) open(port int) error {
	deadline := time.Now().Add(20 * time.Second)
	for {
		conn, err := r.namespace.Dial(port)
		if err == nil {
			return conn.Close()
		}
		if r.process.Exit() != "still running" || time.Now().After(deadline) {
			return fmt.Errorf("port %d never opened (%s): %w", port, r.process.Exit(), err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// do sends a request and notes the whole answer.
func (r *run) do(name string, request wire.Request) *wire.Reply {
	if request.Port == 0 {
		request.Port = atoi(r.env["QUEUE_SERVING_PORT"])
	}
	reply := r.Do(request)
	reply.Note(r.Observation, name)
	return reply
}

// file writes a file of the run's own folder and returns its path.
func (r *run) file(name, text string) string {
	path := filepath.Join(r.directory, name)
	r.must(os.MkdirAll(filepath.Dir(path), 0o755))
	r.must(os.WriteFile(path, []byte(text), 0o644))
	return path
}

func atoi(text string) int {
	var n int
	_, _ = fmt.Sscan(text, &n)
	return n
}

// ok is a function that answers everything with a short text.
func ok(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain")
	fmt.Fprint(w, "hello")
}
