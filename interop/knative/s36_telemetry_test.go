package interop

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"sort"
	"strings"
	"time"

	"zipline.internal/interop/knative/internal/wire"
)

func observed(config map[string]any) string {
	text, err := json.Marshal(config)
	if err != nil {
		panic(err)
	}
	return "OBSERVABILITY_CONFIG=" + string(text)
}

// logged notes the request log's lines, without what differs from run to run.
func (r *run) logged(n int, marker string) {
	lines := r.process.WaitLines(n, patience, func(line string) bool { return strings.Contains(line, marker) })
	for _, line := range lines {
		r.Note("log", "%s", varying.ReplaceAllString(line, "$1…"))
	}
	r.Note("lines", "%d", len(lines))
}

var varying = regexp.MustCompile(`("latency": ?"|"remoteIp": ?"127\.0\.0\.1:)[0-9.]+`)

const ownTemplate = "LINE {{.Request.Method}} {{.Request.URL.Path}} {{.Request.Host}} {{.Request.Proto}} {{.Response.Code}} {{.Response.Size}} " +
	"{{.Revision.Namespace}}/{{.Revision.Name}} {{.Revision.Service}} {{.Revision.Configuration}} {{.Revision.PodName}} {{.Revision.PodIP}} {{.TraceID}} " +
	`{{.Request.Header.Get "X-A"}}`

// names are the metric names and label names of a text exposition, without runtime and client libraries' own.
func names(text string, prefixes ...string) []string {
	found := map[string]bool{}
	for _, line := range strings.Split(text, "\n") {
		name := strings.FieldsFunc(line, func(c rune) bool { return c == '{' || c == ' ' })
		if len(name) == 0 || strings.HasPrefix(line, "#") {
			continue
		}
		for _, prefix := range prefixes {
			if strings.HasPrefix(name[0], prefix) {
				found[name[0]] = true
			}
		}
	}
	var list []string
	for name := range found {
		list = append(list, name)
	}
	sort.Strings(list)
	return list
}

var telemetry = []*scenario{
	{
		id: "K3.6.1-01", title: "the request log as it comes",
		run: func(r *run) {
			r.function(ok)
			r.start(observed(map[string]any{"enableRequestLog": true}))
			r.Do(wire.Request{Port: mainPort, Path: "/a?b=c", Header: []string{"User-Agent: camera/2", "Referer: http://r/",
				"Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}})
			r.Do(wire.Request{Port: mainPort, H2: true, Method: "POST", Path: "/b", Body: strings.NewReader("12345"), Length: 5})
			r.logged(2, "httpRequest")
		},
		broken: settings("lines", "OBSERVABILITY_CONFIG", "{}"),
	},
	{
		id: "K3.6.1-02", title: "the request log by a template of one's own",
		run: func(r *run) {
			r.function(ok)
			r.start(observed(map[string]any{"enableRequestLog": true, "requestLogTemplate": ownTemplate}))
			r.Do(wire.Request{Port: mainPort, Path: "/a", Header: []string{"X-A: value", "X-B3-TraceId: b3"}})
			r.logged(1, "LINE")
		},
		broken: settings("log", "SERVING_SERVICE", "other"),
	},
	{
		id: "K3.6.1-03", title: "probes are logged only where that is enabled",
		run: func(r *run) {
			r.function(ok)
			r.start(observed(map[string]any{"enableRequestLog": true, "requestLogTemplate": ownTemplate}))
			r.Do(wire.Request{Port: mainPort, Path: "/p1", Header: []string{"User-Agent: kube-probe/1", "K-Network-Probe: queue"}})
			r.Do(wire.Request{Port: mainPort, Path: "/p2", Header: []string{"K-Network-Probe: probe", "K-Network-Hash: 1"}})
			r.Do(wire.Request{Port: mainPort, Path: "/last"})
			r.logged(1, "LINE")
		},
		broken: settings("lines", "OBSERVABILITY_CONFIG", strings.TrimPrefix(observed(map[string]any{
			"enableRequestLog": true, "enableProbeRequestLog": true, "requestLogTemplate": ownTemplate}), "OBSERVABILITY_CONFIG=")),
	},
	{
		id: "K3.6.1-04", title: "probes in the log",
		run: func(r *run) {
			r.function(ok)
			r.start(observed(map[string]any{"enableRequestLog": true, "enableProbeRequestLog": true, "requestLogTemplate": ownTemplate}))
			r.Do(wire.Request{Port: mainPort, Path: "/p1", Header: []string{"User-Agent: kube-probe/1", "K-Network-Probe: queue"}})
			r.Do(wire.Request{Port: mainPort, Path: "/p2", Header: []string{"User-Agent: kube-probe/1"}})
			r.Do(wire.Request{Port: mainPort, Path: "/last"})
			r.logged(3, "LINE")
		},
		broken: fault{key: "log", line: func(line string) string { return strings.ReplaceAll(line, " 400 ", " 200 ") }},
	},
	{
		id: "K3.6.1-05", title: "the log says whether a request came by TLS",
		run: func(r *run) {
			r.function(ok)
			r.secure(observed(map[string]any{"enableRequestLog": true, "requestLogTemplate": "TLS: {{.Request.TLS}}"}))
			r.Do(wire.Request{Port: mainPort})
			r.overTLS("by TLS", false)
			for _, line := range r.process.WaitLines(2, patience, func(line string) bool { return strings.Contains(line, "TLS: ") }) {
				r.Note("log", "%.6s", line)
			}
		},
		broken: fault{key: "log", line: func(line string) string { return strings.ReplaceAll(line, "TLS: {", "TLS: <") }},
	},
	{
		id: "K3.6.2-01", title: "metrics of invocations, by their Prometheus names", slow: true,
		run: func(r *run) {
			r.function(ok)
			r.start(observed(map[string]any{"requestMetrics": map[string]any{"protocol": "prometheus"}}), "CONTAINER_CONCURRENCY=5")
			r.must(r.open(metricsPort))
			r.Do(wire.Request{Port: mainPort, Header: []string{"Knative-Serving-Tag: blue"}})
			r.Do(wire.Request{Port: mainPort, H2: true})
			var text string
			r.within("counted", func() bool {
				text = string(r.Do(wire.Request{Port: metricsPort, Path: "/metrics"}).Body)
				return strings.Contains(text, "kn_serving_invocation_duration_seconds_count")
			})
			r.Note("names", "%v", names(text, "kn_serving_", "http_server_request_duration", "http_client_request_duration"))
			count := regexp.MustCompile(`(?m)^kn_serving_invocation_duration_seconds_count\{([^}]*)\} (\d+)`).FindStringSubmatch(text)
			if len(count) == 3 {
				r.Note("invocations", "%s", count[2])
				r.Note("has status", "%v", strings.Contains(count[1], `http_response_status_code="200"`))
			}
		},
		broken: settings("names", "CONTAINER_CONCURRENCY", "0"),
	},
	{
		id: "K3.6.3-01", title: "the route's tag is an attribute of server metrics",
		run: func(r *run) {
			r.function(ok)
			r.start(observed(map[string]any{"requestMetrics": map[string]any{"protocol": "prometheus"}}))
			r.must(r.open(metricsPort))
			for _, headers := range [][]string{nil, {"Knative-Serving-Default-Route: true"},
				{"Knative-Serving-Tag: blue", "Knative-Serving-Default-Route: true"}, {"Knative-Serving-Tag: blue"}} {
				r.Do(wire.Request{Port: mainPort, Header: headers})
			}
			text := string(r.Do(wire.Request{Port: metricsPort, Path: "/metrics"}).Body)
			for _, tag := range []string{"kn:disabled", "kn:default", "kn:undefined", "blue"} {
				r.Note("tag "+tag, "%v", strings.Contains(text, `kn_route_tag="`+tag+`"`))
			}
		},
		broken: repliesOf(metricsPort, "tag blue", dropBlue),
	},
	{
		id: "K3.6.4-01", title: "trace context and baggage pass, and none is made up",
		run: func(r *run) {
			r.function(r.echo)
			r.start()
			r.do("with", wire.Request{Header: []string{"Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "Tracestate: a=b", "Baggage: c=d"}})
			r.do("without", wire.Request{})
		},
		broken: wireBehind("header Traceparent", swap("Traceparent", "Traceparenx"), nil),
	},
	{
		id: "K3.6.4-02", title: "spans by their names, to standard output", slow: true,
		run: func(r *run) {
			r.function(ok)
			r.start(observed(map[string]any{"tracing": map[string]any{"protocol": "stdout", "samplingRate": 1}}), "CONTAINER_CONCURRENCY=1")
			r.Do(wire.Request{Port: mainPort})
			found := map[string]bool{}
			r.process.WaitLines(4, 12*time.Second, func(line string) bool {
				var span struct{ Name, SpanContext any }
				if json.Unmarshal([]byte(line), &span) != nil || span.SpanContext == nil {
					return false
				}
				found[fmt.Sprint(span.Name)] = true
				return true
			})
			for _, name := range []string{"kn.queueproxy.proxy", "kn.queueproxy.wait"} {
				r.Note("span "+name, "%v", found[name])
			}
		},
		broken: settings("span kn.queueproxy.wait", "CONTAINER_CONCURRENCY", "0"),
	},
	{
		id: "K3.6.5-01", title: "an observability config that is no JSON ends it",
		run: func(r *run) {
			r.launch("OBSERVABILITY_CONFIG={")
			select {
			case <-r.process.Ended():
			case <-time.After(patience):
			}
			r.Note("ended", "%s", r.process.Exit())
		},
		broken: settings("ended", "OBSERVABILITY_CONFIG", "{}"),
	},
}

// dropBlue loses a tag from the metrics.
func dropBlue(response *http.Response) {
	reply := &wire.Reply{Response: response}
	reply.Finish()
	setBody(response, strings.ReplaceAll(string(reply.Body), "blue", "green"))
}
