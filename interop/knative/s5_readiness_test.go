package interop

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"zipline.internal/interop/knative/internal/relay"
	"zipline.internal/interop/knative/internal/wire"
)

func probeJSON(probes ...*corev1.Probe) string {
	var value any = probes
	if len(probes) == 1 {
		value = probes[0]
	}
	text, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return "SERVING_READINESS_PROBE=" + string(text)
}

func httpProbe(path string, change ...func(*corev1.Probe)) *corev1.Probe {
	probe := &corev1.Probe{
		ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{
			Path: path, Port: intstr.FromInt32(userPort), Host: "127.0.0.1", Scheme: corev1.URISchemeHTTP,
		}},
		PeriodSeconds: 1, TimeoutSeconds: 1, FailureThreshold: 3, SuccessThreshold: 1,
	}
	for _, f := range change {
		f(probe)
	}
	return probe
}

func tcpProbe(port int32, period int32) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(port), Host: "127.0.0.1"}},
		PeriodSeconds: period, TimeoutSeconds: min(period, 1), SuccessThreshold: 1,
	}
}

// health asks once for health and notes the answer.
func (r *run) health(name string) *wire.Reply {
	return r.do(name, wire.Request{Header: []string{"User-Agent: kube-probe/1.34", "K-Network-Probe: queue"}, Patience: 15 * time.Second})
}

var notReady = status("health status", 418)

// checked is a function that says of each probe what it was and answers by its path.
func checked(r *run, w http.ResponseWriter, request *http.Request) {
	// These two are what Go's client adds of its own accord, not what a probe is.
	request.Header.Del("Accept-Encoding")
	request.Header.Del("Referer")
	r.saw(request)
	switch request.URL.Path {
	case "/moved":
		http.Redirect(w, request, "/there", http.StatusFound)
	case "/away":
		http.Redirect(w, request, "/missing", http.StatusFound)
	case "/there", "/ok":
		ok(w, request)
	default:
		w.WriteHeader(atoi(strings.TrimPrefix(request.URL.Path, "/")))
	}
}

// probed starts with a probe and asks for health once.
func probed(probe *corev1.Probe, variables ...string) func(*run) {
	return func(r *run) {
		r.function(func(w http.ResponseWriter, request *http.Request) { checked(r, w, request) })
		r.start(append([]string{probeJSON(probe)}, variables...)...)
		r.health("health")
	}
}

// grpcFunction serves gRPC's health service on a port of the namespace.
func (r *run) grpcFunction(port int, service string, status grpc_health_v1.HealthCheckResponse_ServingStatus) {
	listener, err := r.namespace.Listen(port)
	r.must(err)
	server, answers := grpc.NewServer(), health.NewServer()
	answers.SetServingStatus(service, status)
	grpc_health_v1.RegisterHealthServer(server, answers)
	go func() { _ = server.Serve(listener) }()
	r.later(server.Stop)
}

func grpcProbe(service *string) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: 9000, Service: service}},
		PeriodSeconds: 1, TimeoutSeconds: 1, SuccessThreshold: 1,
	}
}

func grpcProbed(service *string, status grpc_health_v1.HealthCheckResponse_ServingStatus) func(*run) {
	return func(r *run) {
		name := ""
		if service != nil {
			name = *service
		}
		r.grpcFunction(9000, name, status)
		r.start(probeJSON(grpcProbe(service)))
		r.health("health")
	}
}

var readiness = []*scenario{
	{
		id: "K5.1-01", title: "no probe at all is always ready",
		run:    func(r *run) { r.start("SERVING_READINESS_PROBE="); r.health("health") },
		broken: settings("health status", "SERVING_READINESS_PROBE", `{"tcpSocket":{"port":8080,"host":"127.0.0.1"},"periodSeconds":1}`),
	},
	{
		id: "K5.1-02", title: "a probe that is no JSON ends it",
		run: func(r *run) {
			r.launch("SERVING_READINESS_PROBE={")
			select {
			case <-r.process.Ended():
			case <-time.After(patience):
			}
			r.Note("ended", "%s", r.process.Exit())
		},
		broken: settings("ended", "SERVING_READINESS_PROBE", ""),
	},
	{id: "K5.2-01", title: "tcp: somebody listens", run: func(r *run) { r.function(ok); r.start(probeJSON(tcpProbe(userPort, 1))); r.health("health") },
		broken: settings("health status", "SERVING_READINESS_PROBE", `{"tcpSocket":{"port":8099,"host":"127.0.0.1"},"periodSeconds":1}`)},
	{id: "K5.2-02", title: "tcp: nobody listens", run: func(r *run) { r.start(probeJSON(tcpProbe(8099, 1))); r.health("health") }, broken: notReady},
	{id: "K5.2-03", title: "the port can be a number in a text",
		run: func(r *run) {
			r.function(ok)
			r.start(`SERVING_READINESS_PROBE={"tcpSocket":{"port":"8080","host":"127.0.0.1"},"periodSeconds":1,"timeoutSeconds":1}`)
			r.health("health")
		}, broken: notReady},
	{id: "K5.3-01", title: "http: what the function is asked, query and headers included",
		run: probed(httpProbe("/ok?a=b", func(p *corev1.Probe) {
			p.HTTPGet.HTTPHeaders = []corev1.HTTPHeader{{Name: "X-Probe", Value: "mine"}, {Name: "Host", Value: "other"}, {Name: "X-Probe", Value: "two"}}
		})),
		broken: settings("header X-Probe", "SERVING_READINESS_PROBE", plainProbe("/ok?a=b"))},
	{id: "K5.3-02", title: "http: 399 is ready", run: probed(httpProbe("/399")), broken: notReady},
	{id: "K5.3-03", title: "http: 400 is not", run: probed(httpProbe("/400")), broken: status("health status", 200)},
	{id: "K5.3-04", title: "http: a redirect is followed", run: probed(httpProbe("/moved")),
		broken: settings("function got #2", "SERVING_READINESS_PROBE", plainProbe("/ok"))},
	{id: "K5.3-05", title: "http: also to failure", run: probed(httpProbe("/away")), broken: status("health status", 200)},
	{id: "K5.3-06", title: "http: each probe has a connection of its own",
		run: func(r *run) {
			r.function(ok)
			r.start(probeJSON(httpProbe("/ok")))
			for range 3 {
				r.health("health")
			}
			r.Note("connections", "%d", r.connections())
		},
		broken: answers("connections", limited(1), 200, "queue"),
	},
	{id: "K5.3-07", title: "http: silence is not ready after its timeout",
		run: func(r *run) {
			r.function(func(_ http.ResponseWriter, request *http.Request) { <-request.Context().Done() })
			r.start(probeJSON(httpProbe("/slow")))
			r.health("health")
		}, broken: status("health status", 200)},
	{id: "K5.3-08", title: "http without a path asks for the root",
		run: probed(httpProbe("")), broken: settings("function got", "SERVING_READINESS_PROBE", plainProbe("/healthz"))},
	{id: "K5.4-01", title: "grpc: serving", run: grpcProbed(nil, grpc_health_v1.HealthCheckResponse_SERVING), broken: notReady},
	{id: "K5.4-02", title: "grpc: not serving", run: grpcProbed(nil, grpc_health_v1.HealthCheckResponse_NOT_SERVING), broken: notReady},
	{id: "K5.4-03", title: "grpc: a service by name", run: grpcProbed(ptr("video"), grpc_health_v1.HealthCheckResponse_SERVING), broken: notReady},
	{id: "K5.4-04", title: "grpc: a service that is not there",
		run: func(r *run) {
			r.grpcFunction(9000, "video", grpc_health_v1.HealthCheckResponse_SERVING)
			r.start(probeJSON(grpcProbe(ptr("audio"))))
			r.health("health")
		}, broken: notReady},
	{
		id: "K5.5-01", title: "several containers: all must be ready",
		run: func(r *run) {
			r.function(ok)
			r.start("ENABLE_MULTI_CONTAINER_PROBES=true", probeJSON(httpProbe("/ok"), tcpProbe(8090, 1)))
			r.health("one of two")
			r.functionOn(8090, ok)
			r.health("both")
		},
		broken: settings("one of two status", "SERVING_READINESS_PROBE",
			`[{"tcpSocket":{"port":8080,"host":"127.0.0.1"},"periodSeconds":1,"timeoutSeconds":1}]`),
	},
	{
		id: "K5.6-01", title: "a probe with a period is one attempt per question",
		run: func(r *run) {
			var calls atomic.Int32
			r.function(func(w http.ResponseWriter, _ *http.Request) {
				if calls.Add(1) < 3 {
					w.WriteHeader(503)
				}
			})
			r.start(probeJSON(httpProbe("/ok")))
			for range 3 {
				r.health("health")
				r.Note("attempts", "%d", calls.Load())
			}
		},
		broken: settings("attempts", "SERVING_READINESS_PROBE",
			`{"httpGet":{"path":"/ok","port":8080,"host":"127.0.0.1","scheme":"HTTP"},"successThreshold":1}`),
	},
	{
		id: "K5.7-01", title: "a probe without a period tries again until it succeeds so often in a row",
		run: func(r *run) {
			var calls atomic.Int32
			r.function(func(w http.ResponseWriter, _ *http.Request) {
				if n := calls.Add(1); n < 3 || n == 4 {
					w.WriteHeader(503)
				}
			})
			r.start(probeJSON(httpProbe("/ok", func(p *corev1.Probe) {
				p.PeriodSeconds, p.TimeoutSeconds, p.FailureThreshold, p.SuccessThreshold = 0, 0, 0, 2
			})))
			r.health("health")
			r.Note("attempts", "%d", calls.Load())
		},
		broken: settings("attempts", "SERVING_READINESS_PROBE",
			`{"httpGet":{"path":"/ok","port":8080,"host":"127.0.0.1","scheme":"HTTP"},"successThreshold":1}`),
	},
	{
		id: "K5.7-02", title: "and gives up after ten seconds", slow: true,
		run: func(r *run) {
			r.start(probeJSON(tcpProbe(8099, 0)))
			r.do("health", wire.Request{Header: []string{"User-Agent: kube-probe/1.34", "K-Network-Probe: queue"}, Patience: 25 * time.Second})
		},
		broken: status("health status", 200),
	},
	{
		id: "K5.7-03", title: "a caller that goes does not stop it, and the next one joins it",
		run: func(r *run) {
			var calls atomic.Int32
			var open atomic.Bool
			r.function(func(w http.ResponseWriter, _ *http.Request) {
				calls.Add(1)
				if !open.Load() {
					w.WriteHeader(503)
				}
			})
			r.start(probeJSON(httpProbe("/ok", func(p *corev1.Probe) { p.PeriodSeconds, p.TimeoutSeconds, p.FailureThreshold = 0, 0, 0 })))
			r.do("impatient", wire.Request{Header: []string{"User-Agent: kube-probe/1.34", "K-Network-Probe: queue"}, Patience: 500 * time.Millisecond})
			before := calls.Load()
			r.within("it goes on", func() bool { return calls.Load() > before+3 })
			open.Store(true)
			r.health("next")
		},
		broken: fault{key: "it goes on", front: map[int]relay.Hooks{mainPort: {Answer: func(http.ResponseWriter, *http.Request) bool {
			time.Sleep(time.Second)
			panic(http.ErrAbortHandler)
		}}}},
	},
	{
		id: "K5.8-01", title: "those who ask at once share one probe and its result",
		run: func(r *run) {
			var calls atomic.Int32
			release := make(chan struct{})
			entered := make(chan struct{}, 16)
			r.function(func(w http.ResponseWriter, request *http.Request) {
				calls.Add(1)
				entered <- struct{}{}
				<-release
				ok(w, request)
			})
			r.start(probeJSON(httpProbe("/ok", func(p *corev1.Probe) { p.TimeoutSeconds = 5 })))
			r.Transport(mainPort, false)
			var group sync.WaitGroup
			answers := make(chan int, 8)
			for range 8 {
				group.Go(func() {
					answers <- r.Do(wire.Request{Port: mainPort, Header: []string{"User-Agent: kube-probe/1", "K-Network-Probe: queue"}}).Status()
				})
			}
			happens(r, "probe runs", entered)
			// Long enough for the others to come; more attempts than one would show.
			time.Sleep(300 * time.Millisecond)
			r.Note("attempts", "%d", calls.Load())
			close(release)
			group.Wait()
			for range 8 {
				r.Note("answer", "%d", <-answers)
			}
		},
		broken: answers("answer", limited(5), 503, ""),
	},
	{
		id: "K5.9-01", title: "with detection of HTTP/2 the first question is h2c, and a function that knows only HTTP/1.1 is asked again",
		run: func(r *run) {
			r.function(func(w http.ResponseWriter, request *http.Request) {
				r.Note("asked", "%s %s %s X-Probe=%q", request.Method, request.RequestURI, request.Proto, request.Header.Get("X-Probe"))
				ok(w, request)
			})
			probe := httpProbe("/ok", func(p *corev1.Probe) { p.HTTPGet.HTTPHeaders = []corev1.HTTPHeader{{Name: "X-Probe", Value: "1"}} })
			r.start(probeJSON(probe), "ENABLE_HTTP2_AUTO_DETECTION=true")
			r.health("health")
			r.health("again")
		},
		broken: settings("asked", "ENABLE_HTTP2_AUTO_DETECTION", "false"),
	},
	{
		id: "K5.9-02", title: "detection of HTTP/2 with a function of HTTP/1.1 alone",
		run: func(r *run) {
			r.http1Function(func(w http.ResponseWriter, request *http.Request) {
				// How often it is greeted in a language it does not know is of no consequence.
				if request.Method != "PRI" {
					r.Note("asked", "%s %s %s", request.Method, request.RequestURI, request.Proto)
				}
				ok(w, request)
			})
			r.start(probeJSON(httpProbe("/ok")), "ENABLE_HTTP2_AUTO_DETECTION=true")
			r.health("health")
			r.do("request", wire.Request{Path: "/request"})
		},
		broken: status("health status", 503),
	},
}

func plainProbe(path string) string {
	return `{"httpGet":{"path":"` + path + `","port":8080,"host":"127.0.0.1","scheme":"HTTP"},"periodSeconds":1,"timeoutSeconds":1}`
}

func ptr[T any](value T) *T { return &value }

// http1Function is a function that does not know HTTP/2.
func (r *run) http1Function(handler http.HandlerFunc) {
	server := r.functionOn(userPort, handler)
	server.Protocols.SetUnencryptedHTTP2(false)
}
