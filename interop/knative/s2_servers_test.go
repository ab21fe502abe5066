package interop

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"sort"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	netv1alpha1 "knative.dev/networking/pkg/apis/networking/v1alpha1"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	sksresources "knative.dev/serving/pkg/reconciler/serverlessservice/resources"

	"zipline.internal/interop/knative/internal/wire"
)

var servers = []*scenario{
	{
		id: "K2.1-01", title: "HTTP/1.1 and h2c by prior knowledge on the port of HTTP/1",
		run: func(r *run) {
			r.function(r.echo)
			r.start()
			r.do("http1", wire.Request{Path: "/a"})
			r.do("h2c", wire.Request{Path: "/a", H2: true})
		},
		broken: passes("function got", func(r *http.Request) { r.URL.Path += "b" }),
	},
	{
		id: "K2.1-02", title: "the same on 8013, and on that port alone",
		run: func(r *run) {
			r.function(r.echo)
			r.start("QUEUE_SERVING_PORT=8013")
			r.do("http1", wire.Request{Path: "/a"})
			r.do("h2c", wire.Request{Path: "/a", H2: true})
			r.do("the other port", wire.Request{Path: "/a", Port: mainPort})
		},
		broken: settings("other port", "QUEUE_SERVING_PORT", "8012"),
	},
	{
		id: "K2.1-03", title: "HTTP/1.0, closed after the answer or kept on request",
		run: func(r *run) {
			r.function(r.echo)
			r.start()
			c := r.connect(mainPort)
			c.say("GET /old HTTP/1.0\nHost: echo\n\n")
			c.answer("reply", "GET")
			c.stays("connection")
			c = r.connect(mainPort)
			c.say("GET /kept HTTP/1.0\nConnection: keep-alive\n\n")
			c.answer("kept", "GET")
			c.stays("kept connection")
		},
		broken: wireDown("reply status", mainPort, swap("HTTP/1.0 200 OK", "HTTP/1.0 201 OK")),
	},
	{
		id: "K2.1-04", title: "h2c by upgrade from HTTP/1.1, the first body included",
		run: func(r *run) {
			r.function(r.echo)
			r.start()
			upgradeToH2(r, "POST", "a body of the first request")
		},
		broken: passes("function got body", func(r *http.Request) { r.Body, r.ContentLength = http.NoBody, 0 }),
	},
	{
		id: "K2.1-05", title: "a connection that never ends its head is closed after a minute", slow: true,
		run: func(r *run) {
			r.function(r.echo)
			r.start()
			c := r.connect(mainPort)
			c.say("GET / HTTP/1.1\nHost: echo\nX-Slow")
			// With a last word or without one.
			state, _, _ := strings.Cut(c.state(64*time.Second), " ")
			r.Note("main", "%s", state)
		},
		broken: deaf("main", mainPort),
	},
	{
		id: "K2.1-06", title: "heads longer than a megabyte are 431",
		run: func(r *run) {
			r.function(ok)
			r.start()
			r.Note("long", "%d", r.Do(wire.Request{Port: mainPort, Header: []string{"X-Long: " + strings.Repeat("x", 1<<20+8192)}}).Status())
			r.do("below", wire.Request{Header: []string{"X-Long: " + strings.Repeat("x", 1<<20-8192)}})
		},
		broken: status("below status", 431),
	},
	{
		id: "K2.3-01", title: "admin answers one path, any method, and 404 elsewhere",
		run: func(r *run) {
			r.start()
			r.do("other", wire.Request{Port: adminPort, Path: "/"})
			r.do("longer", wire.Request{Port: adminPort, Path: "/wait-for-drain/"})
			r.do("drain", wire.Request{Port: adminPort, Path: "/wait-for-drain", Method: "POST"})
		},
		broken: repliesOf(adminPort, "other body", func(r *http.Response) { setBody(r, "not found") }),
	},
	{
		id: "K2.4-01", title: "the autoscaler's port answers /metrics alone",
		run: func(r *run) {
			r.start()
			r.do("other", wire.Request{Port: statsPort, Path: "/"})
			r.Note("stats", "%d", r.Do(wire.Request{Port: statsPort, Path: "/metrics"}).Status())
			r.Note("stats by post", "%d", r.Do(wire.Request{Port: statsPort, Path: "/metrics", Method: "POST"}).Status())
		},
		broken: repliesOf(statsPort, "other status", func(r *http.Response) { r.StatusCode = 200 }),
	},
	{
		id: "K2.5-01", title: "without observability only the four ports are open, to all addresses",
		run: func(r *run) {
			r.start()
			r.listening()
		},
		broken: settings("listens", "OBSERVABILITY_CONFIG", `{"requestMetrics":{"protocol":"prometheus"}}`),
	},
	{
		id: "K2.5-02", title: "user metrics are there if the protocol is prometheus, where the endpoint says",
		run: func(r *run) {
			r.start(`OBSERVABILITY_CONFIG={"requestMetrics":{"protocol":"prometheus"}}`)
			r.must(r.open(metricsPort))
			r.listening()
			r.Note("metrics", "%d", r.Do(wire.Request{Port: metricsPort, Path: "/metrics"}).Status())
			r.do("other", wire.Request{Port: metricsPort, Path: "/"})
		},
		broken: settings("listens", "OBSERVABILITY_CONFIG", `{"requestMetrics":{"protocol":"prometheus","endpoint":":9099"}}`),
	},
	{
		id: "K2.5-03", title: "the endpoint of user metrics can be another",
		run: func(r *run) {
			r.start(`OBSERVABILITY_CONFIG={"requestMetrics":{"protocol":"prometheus","endpoint":":9099"}}`)
			_ = r.open(9099)
			r.listening()
		},
		broken: settings("listens", "OBSERVABILITY_CONFIG", `{"requestMetrics":{"protocol":"prometheus"}}`),
	},
	{
		id: "K2.6-01", title: "profiling listens only where it is enabled",
		run: func(r *run) {
			r.start(`OBSERVABILITY_CONFIG={"runtime":{"profiling":"enabled"}}`)
			r.must(r.open(profilePort))
			r.listening()
			r.Note("profiles", "%d", r.Do(wire.Request{Port: profilePort, Path: "/debug/pprof/"}).Status())
			r.Note("elsewhere", "%d", r.Do(wire.Request{Port: profilePort, Path: "/"}).Status())
		},
		broken: settings("listens", "OBSERVABILITY_CONFIG", `{"runtime":{"profiling":"disabled"}}`),
	},
	taken("K2.7-01", "requests", mainPort),
	taken("K2.7-02", "admin", adminPort),
	taken("K2.7-03", "the autoscaler's metrics", statsPort),
	{
		id: "K2.14-01", title: "every port of the private Kubernetes Service that Knative builds is served",
		run: func(r *run) {
			r.function(ok)
			r.certificates("data-plane.knative.dev")
			r.start(`OBSERVABILITY_CONFIG={"requestMetrics":{"protocol":"prometheus"}}`)
			r.must(r.open(metricsPort))
			if r.fault.withhold == "" {
				r.must(r.open(tlsPort))
			}
			sks := &netv1alpha1.ServerlessService{ObjectMeta: metav1.ObjectMeta{Name: "echo-00001", Namespace: "default"}}
			sks.Spec.ProtocolType = "http1"
			service := sksresources.MakePrivateService(sks, map[string]string{"app": "echo"})
			for _, port := range service.Spec.Ports {
				r.Note("port "+port.Name, "%s", servedBy(r, port))
			}
		},
		broken: fault{key: "port https", withhold: "certificates"},
	},
}

func servedBy(r *run, port corev1.ServicePort) string {
	number := port.TargetPort.IntValue()
	// Named ones are ports of the container, as Knative names them there.
	switch port.TargetPort.StrVal {
	case servingv1.AutoscalingQueueMetricsPortName:
		number = statsPort
	case servingv1.UserQueueMetricsPortName:
		number = metricsPort
	}
	conn, err := r.namespace.Dial(number)
	if err == nil {
		err = conn.Close()
	}
	if err != nil {
		return "closed"
	}
	return "open"
}

// taken is a port that something else has.
func taken(id, what string, port int) *scenario {
	return &scenario{
		id: id, title: "it ends with 1 if the port of " + what + " is taken",
		run: func(r *run) {
			// A broken one does not mind: its port is another.
			if r.fault.env == nil {
				var listener net.Listener
				r.must(r.namespace.Do(func() (err error) {
					listener, err = net.Listen("tcp", ":"+strconv.Itoa(port))
					return err
				}))
				r.later(func() { listener.Close() })
			}
			r.launch()
			select {
			case <-r.process.Ended():
			case <-time.After(patience):
			}
			r.Note("ended", "%s", r.process.Exit())
		},
		broken: settings("ended", "SERVING_LOGGING_LEVEL", "error"),
	}
}

// ours are the ports that Zipline has beside Knative's.
var ours = map[string]bool{"8030": true, "8031": true, "8032": true}

// listening notes the ports that are open, and to whom.
func (r *run) listening() {
	found := map[string]bool{}
	for _, name := range []string{"tcp", "tcp6"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", r.process.PID(), name))
		r.must(err)
		for _, line := range bytes.Split(text, []byte("\n")) {
			fields := strings.Fields(string(line))
			if len(fields) < 4 || fields[3] != "0A" {
				continue
			}
			address, port, _ := strings.Cut(fields[1], ":")
			number, err := strconv.ParseInt(port, 16, 32)
			r.must(err)
			to := "some"
			if strings.Trim(address, "0") == "" {
				to = "all"
			}
			decimal := strconv.FormatInt(number, 10)
			if !ours[decimal] && number < frontBase && number != userPort && number != behindPort {
				found[decimal+" to "+to] = true
			}
		}
	}
	var list []string
	for port := range found {
		list = append(list, port)
	}
	sort.Strings(list)
	r.Note("listens", "%s", strings.Join(list, ", "))
}
