package interop

import (
	"net/http"
	"strings"
	"time"

	"zipline.internal/interop/knative/internal/wire"
)

// probing asks with a User-Agent and a network probe header; an empty one is left out.
func probing(agent, probe string) wire.Request {
	request := wire.Request{Path: "/"}
	if agent != "" {
		request.Header = append(request.Header, "User-Agent: "+agent)
	}
	if probe != "" {
		request.Header = append(request.Header, "K-Network-Probe: "+probe)
	}
	return request
}

// ready is a probe by each of those who ask for health.
func ready(agent string) *scenario {
	return &scenario{
		run: func(r *run) {
			r.function(r.echo)
			r.start()
			r.do("probe", probing(agent, "queue"))
			r.do("probe over h2c", wire.Request{H2: true, Method: "POST", Path: "/deep?er=1", Body: strings.NewReader("x"),
				Header: []string{"User-Agent: " + agent, "K-Network-Probe: queue"}})
		},
		broken: text("probe body", "ready"),
	}
}

func named(id, title string, s *scenario) *scenario {
	s.id, s.title = id, title
	return s
}

var probes = []*scenario{
	named("K3.1.1-01", "kube-probe is answered by health", ready("kube-probe/1.34")),
	named("K3.1.1-02", "the activator's probe is answered by health", ready("Knative-Activator-Probe")),
	named("K3.1.1-03", "the autoscaler's probe is answered by health", ready("Knative-Autoscaling-Probe")),
	named("K3.1.1-04", "a User-Agent that begins like a probe is one, on any path and method", ready("Knative-Activator-Probe zipline/1 camera/2")),
	{
		id: "K3.1.1-05", title: "a User-Agent that has a probe's name later, or in other case, is no probe",
		run: func(r *run) {
			r.function(r.echo)
			r.start()
			r.do("later", probing("curl kube-probe/1", "queue"))
			r.do("case", probing("Kube-Probe/1", "queue"))
			r.do("no slash", probing("kube-probe", "queue"))
		},
		broken: answers("later body", func(r *http.Request) bool { return strings.Contains(r.UserAgent(), "kube-probe") }, 200, "queue"),
	},
	{
		id: "K3.1.2-01", title: "a network probe with a hash is answered with it, without the function",
		run: func(r *run) {
			r.function(r.echo)
			r.start()
			r.do("probe", wire.Request{Header: []string{"K-Network-Probe: probe", "K-Network-Hash: 1f2e"}})
			r.do("probe by post", wire.Request{Method: "POST", Path: "/a/b?c", Body: strings.NewReader("some"), Length: 4,
				Header: []string{"K-Network-Probe: probe", "K-Network-Hash: 1f2e", "User-Agent: x"}})
		},
		broken: header("header K-Network-Hash", "K-Network-Hash", ""),
	},
	{
		id: "K3.1.2-02", title: "a network probe without a hash is refused",
		run: func(r *run) {
			r.function(r.echo)
			r.start()
			r.do("none", wire.Request{Header: []string{"K-Network-Probe: probe"}})
			r.do("empty", wire.Request{Header: []string{"K-Network-Probe: probe", "K-Network-Hash:"}})
		},
		broken: text("none body", "a hash is needed\n"),
	},
	{
		id: "K3.1.3-01", title: "whatever is no probe goes to the function, hash header and all",
		run: func(r *run) {
			r.function(r.echo)
			r.start()
			r.do("reply", wire.Request{Path: "/x", Header: []string{"K-Network-Hash: 77", "K-Passthrough-Lb: true"}})
			r.do("other probe value", probing("curl/8", "activator"))
		},
		broken: passes("header K-Network-Hash", func(r *http.Request) { r.Header.Del("K-Network-Hash") }),
	},
	{
		id: "K3.1.4-01", title: "a kubelet's plain probe gets 400, not the function's answer",
		run: func(r *run) {
			r.function(r.echo)
			r.start()
			r.do("reply", probing("kube-probe/1.34", ""))
			r.do("head", wire.Request{Method: "HEAD", Header: []string{"User-Agent: kube-probe/1"}})
		},
		broken: status("reply status", 200),
	},
	{
		id: "K3.1.4-02", title: "a probe meant for the activator gets 400 and says its value",
		run: func(r *run) {
			r.function(r.echo)
			r.start()
			r.do("autoscaler", probing("Knative-Autoscaling-Probe", "activator"))
			r.do("hash", wire.Request{Header: []string{"User-Agent: Knative-Activator-Probe", "K-Network-Probe: probe", "K-Network-Hash: 1"}})
		},
		broken: text("autoscaler body", "unexpected probe header value: \n"),
	},
	{
		id: "K3.1.4-03", title: "not ready is 503 without a body",
		run: func(r *run) {
			r.start(`SERVING_READINESS_PROBE={"tcpSocket":{"port":8080,"host":"127.0.0.1"},"periodSeconds":1,"timeoutSeconds":1}`)
			r.do("reply", probing("kube-probe/1.34", "queue"))
		},
		broken: text("reply body", "not ready\n"),
	},
	{
		id: "K3.1.5-01", title: "K-Network-Probe: queue from an ordinary caller goes to the function",
		run: func(r *run) {
			r.function(r.echo)
			r.start()
			r.do("reply", probing("curl/8", "queue"))
			r.do("no agent", probing("", "queue"))
		},
		broken: answers("reply body", func(r *http.Request) bool { return r.Header.Get("K-Network-Probe") == "queue" }, 200, "queue"),
	},
	{
		id: "K3.1.5-02", title: "probes are answered while the breaker is full, and take no place in it",
		run: func(r *run) {
			entered, release := make(chan struct{}, 16), make(chan struct{})
			r.function(func(w http.ResponseWriter, request *http.Request) {
				entered <- struct{}{}
				<-release
				ok(w, request)
			})
			r.start("CONTAINER_CONCURRENCY=1")
			done := make(chan *wire.Reply, 1)
			go func() { done <- r.Do(wire.Request{Port: mainPort, Path: "/long"}) }()
			happens(r, "function runs", entered)
			for range 12 {
				r.do("probe", probing("kube-probe/1", "queue"))
			}
			r.do("network probe", wire.Request{Header: []string{"K-Network-Probe: probe", "K-Network-Hash: 1"}})
			close(release)
			(<-done).Note(r.Observation, "long")
		},
		broken: answers("probe status #12", limited(11), 503, "pending request queue full\n"),
	},
	{
		id: "K3.1.6-01", title: "K-Kubelet-Probe reaches the function past stats, breaker and Host restore",
		run: func(r *run) {
			entered, release := make(chan struct{}, 16), make(chan struct{})
			r.function(func(w http.ResponseWriter, request *http.Request) {
				if request.URL.Path == "/long" {
					entered <- struct{}{}
					<-release
				} else {
					r.saw(request)
				}
				ok(w, request)
			})
			r.start("CONTAINER_CONCURRENCY=1")
			done := make(chan *wire.Reply, 1)
			go func() { done <- r.Do(wire.Request{Port: mainPort, Path: "/long"}) }()
			happens(r, "function runs", entered)
			r.do("reply", wire.Request{Path: "/k", Patience: 3 * time.Second,
				Header: []string{"K-Kubelet-Probe: 1", "K-Original-Host: other.example"}})
			close(release)
			(<-done).Note(r.Observation, "long")
		},
		broken: incoming("got host", func(r *http.Request) { r.Header.Del("K-Kubelet-Probe") }),
	},
}

// limited is true from the n-th call on.
func limited(n int) func(*http.Request) bool {
	calls := make(chan int, 1)
	calls <- 0
	return func(*http.Request) bool {
		c := <-calls + 1
		calls <- c
		return c >= n
	}
}
