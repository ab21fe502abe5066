package vectors

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"math/rand"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gogo/protobuf/proto"
	"github.com/prometheus/otlptranslator"
	netheader "knative.dev/networking/pkg/http/header"
	netstats "knative.dev/networking/pkg/http/stats"
	knativetls "knative.dev/pkg/network/tls"
	"knative.dev/pkg/observability/runtime"
	"knative.dev/serving/pkg/autoscaler/metrics"
	pkghttp "knative.dev/serving/pkg/http"
	servingmetrics "knative.dev/serving/pkg/metrics"
	"knative.dev/serving/pkg/networking"
	o11y "knative.dev/serving/pkg/observability"
	"knative.dev/serving/pkg/queue"
	"knative.dev/serving/pkg/queue/readiness"
)

type stat struct {
	PodName string
	// Bits of the five numbers with a fraction, in the order of the fields.
	Numbers   [5]string
	Timestamp int64
	Encoded   string
}

func bits(value float64) string { return fmt.Sprintf("%016x", math.Float64bits(value)) }

func stats(t *testing.T) []stat {
	list := []metrics.Stat{
		{}, {PodName: "pod"}, {Timestamp: -1, ProcessUptime: math.Copysign(0, -1)}, {RequestCount: math.NaN()},
		{PodName: strings.Repeat("p", 253), AverageConcurrentRequests: 1, AverageProxiedConcurrentRequests: 2, RequestCount: 3, ProxiedRequestCount: 4, ProcessUptime: 5},
		{PodName: "pod-1", AverageConcurrentRequests: 1.5, AverageProxiedConcurrentRequests: .25, RequestCount: 3, ProxiedRequestCount: 2, ProcessUptime: 12.75, Timestamp: 300},
	}
	random := rand.New(rand.NewSource(4))
	for range 20 {
		pick := func() float64 { return float64(random.Intn(3)) * random.Float64() * 100 }
		list = append(list, metrics.Stat{
			PodName: strings.Repeat("x", random.Intn(200)), AverageConcurrentRequests: pick(), AverageProxiedConcurrentRequests: pick(),
			RequestCount: pick(), ProxiedRequestCount: pick(), ProcessUptime: pick(), Timestamp: int64(random.Intn(3)) * random.Int63(),
		})
	}
	var out []stat
	for _, one := range list {
		encoded, err := proto.Marshal(&one)
		if err != nil {
			t.Fatal(err)
		}
		numbers := [5]string{
			bits(one.AverageConcurrentRequests), bits(one.AverageProxiedConcurrentRequests), bits(one.RequestCount),
			bits(one.ProxiedRequestCount), bits(one.ProcessUptime),
		}
		out = append(out, stat{one.PodName, numbers, one.Timestamp, hex.EncodeToString(encoded)})
	}
	return out
}

// Steps of one run: kind 0 to 3 as netstats names events, 4 is a report whose four numbers follow as bits.
type concurrency struct {
	Steps []step
}

type step struct {
	Kind        int
	Nanoseconds int64
	Report      []string `json:",omitempty"`
}

func concurrencies() []concurrency {
	random := rand.New(rand.NewSource(5))
	var runs []concurrency
	for range 12 {
		start := time.Now()
		stats := netstats.NewRequestStats(start)
		inside := map[bool]int{}
		var at int64
		var run concurrency
		for range 60 {
			at += random.Int63n(200_000_000)
			// Now and then a moment before the last one.
			moment := max(at-random.Int63n(20_000_000), 0)
			proxied := random.Intn(2) == 0
			kind := netstats.ReqIn
			switch {
			case random.Intn(8) == 0:
				report := stats.Report(start.Add(time.Duration(moment)))
				run.Steps = append(run.Steps, step{4, moment, []string{
					bits(report.AverageConcurrency), bits(report.AverageProxiedConcurrency), bits(report.RequestCount), bits(report.ProxiedRequestCount),
				}})
				continue
			case inside[proxied] > 0 && random.Intn(2) == 0:
				inside[proxied]--
				kind = netstats.ReqOut
				if proxied {
					kind = netstats.ProxiedOut
				}
			default:
				inside[proxied]++
				if proxied {
					kind = netstats.ProxiedIn
				}
			}
			stats.HandleEvent(netstats.ReqEvent{Time: start.Add(time.Duration(moment)), Type: kind})
			run.Steps = append(run.Steps, step{Kind: int(kind), Nanoseconds: moment})
		}
		runs = append(runs, run)
	}
	return runs
}

type observed struct {
	Text           string
	OK             bool
	Tracing        [2]string
	SamplingRate   float64
	RequestMetrics [2]string
	ExportInterval int64
	Profiling      bool
	Runtime        int64
	Logs           [2]bool
	Template       string
}

func observability() []observed {
	var out []observed
	for _, text := range []string{
		`{}`, `null`, `[]`, `{`, `{} x`, `{"tracing":{},"metrics":{},"runtime":{},"requestMetrics":{}}`,
		`{"tracing":{},"metrics":{},"runtime":{},"requestMetrics":{"protocol":"prometheus"}}`,
		`{"tracing":{"protocol":"http/protobuf","endpoint":"http://j:4318","samplingRate":0.25},"metrics":{"protocol":"prometheus"},"runtime":{"profiling":"enabled","exportInterval":5000000000},"requestMetrics":{"protocol":"grpc","endpoint":"o:4317","exportInterval":60000000000},"enableRequestLog":true,"requestLogTemplate":"{{.Request.URL}}","enableProbeRequestLog":true,"EnableVarLogCollection":true,"LoggingURLTemplate":"http://l"}`,
		`{"REQUESTMETRICS":{"Protocol":"prometheus"},"unknown":[1,{"a":null}],"runtime":null,"requestMetrics":{"endpoint":":9"},"requestLogTemplate":null,"tracing":{"samplingRate":1}}`,
		`{"tracing":1}`, `{"requestMetrics":{"exportInterval":"60s"}}`, `{"runtime":{"exportInterval":15e9}}`, `{"metrics":{"exportInterval":true}}`,
		`{"enableRequestLog":"true"}`, `{"tracing":{"samplingRate":"1"}}`, `{"tracing":{"protocol":null}}`, `{"runtime":{"profiling":"maybe"}}`,
		`{"runtime":{"profiling":"enabled"},"Runtime":{"exportInterval":1}}`, `{"requestMetrics":{"exportInterval":1.0}}`, `{"tracing":null}`,
		`{"requestLogTemplate":""}`, `{"enablerequestlog":true,"ENABLEPROBEREQUESTLOG":true}`, `{"metrics":[]}`, `{"LoggingURLTemplate":1}`,
		`{"tracing":{"endpoint":"a"},"tracing":{"protocol":"stdout"}}`, ``,
	} {
		config := o11y.DefaultConfig()
		var err error
		// As pkg/queue/sharedmain/main.go reads it.
		if text != "" {
			err = json.Unmarshal([]byte(text), config)
		}
		if err != nil {
			out = append(out, observed{Text: text})
			continue
		}
		out = append(out, observed{
			Text: text, OK: true, Tracing: [2]string{config.Tracing.Protocol, config.Tracing.Endpoint}, SamplingRate: config.Tracing.SamplingRate,
			RequestMetrics: [2]string{config.RequestMetrics.Protocol, config.RequestMetrics.Endpoint}, ExportInterval: int64(config.RequestMetrics.ExportInterval),
			Profiling: config.Runtime.ProfilingEnabled(), Runtime: int64(config.Runtime.ExportInterval),
			Logs: [2]bool{config.EnableRequestLog, config.EnableProbeRequestLog}, Template: config.RequestLogTemplate,
		})
	}
	return out
}

type probed struct {
	Text    string
	Several bool
	OK      bool
	Probes  []probeAnswer
}

type probeAnswer struct {
	Handler string
	Port    string
	Path    string
	Numbers [4]int32
}

func probes() []probed {
	single := []string{
		`{}`, `{"tcpSocket":{"port":8080,"host":"127.0.0.1"},"successThreshold":1}`, `{"httpGet":{"path":"/ok?a=b","port":"9000","scheme":"HTTP","httpHeaders":[{"name":"X-A","value":"b"}]},"periodSeconds":5,"timeoutSeconds":2,"failureThreshold":4,"successThreshold":2,"initialDelaySeconds":3,"terminationGracePeriodSeconds":9,"later":{}}`,
		`{"grpc":{"port":50051,"service":"a.B"},"periodSeconds":1,"timeoutSeconds":1}`, `{"HTTPGET":{"PATH":"/u","Port":1}}`, `{`, `[]`, `{"httpGet":1}`,
		`{"periodSeconds":"1"}`, `{"periodSeconds":3000000000}`, `{"tcpSocket":{"port":true}}`, `{"tcpSocket":{"port":1.5}}`, `{"httpGet":{"httpHeaders":{}}}`,
		`{"tcpSocket":{"port":1},"tcpSocket":{"host":"h"}}`, `{"tcpSocket":null}`,
	}
	var out []probed
	add := func(text string, several bool) {
		decoded, err := readiness.DecodeProbes(text, several)
		answer := probed{Text: text, Several: several, OK: err == nil}
		for _, probe := range decoded {
			if err != nil {
				break
			}
			one := probeAnswer{Numbers: [4]int32{probe.PeriodSeconds, probe.TimeoutSeconds, probe.SuccessThreshold, probe.FailureThreshold}}
			switch {
			case probe.HTTPGet != nil:
				one.Handler, one.Port, one.Path = "http", probe.HTTPGet.Port.String(), "/"+strings.TrimPrefix(probe.HTTPGet.Path, "/")
			case probe.TCPSocket != nil:
				one.Handler, one.Port = "tcp", probe.TCPSocket.Port.String()
			case probe.GRPC != nil:
				one.Handler, one.Port = "grpc", fmt.Sprint(probe.GRPC.Port)
			}
			answer.Probes = append(answer.Probes, one)
		}
		out = append(out, answer)
	}
	for _, text := range single {
		add(text, false)
	}
	add(`[{"tcpSocket":{"port":1}},{"httpGet":{"port":2,"path":"x"}}]`, true)
	add(`[]`, true)
	add(`{}`, true)
	add(`[1]`, true)
	return out
}

type tlsAnswer struct {
	Values [4]string
	OK     bool
	Min    uint16
	Max    uint16
	Suites int
	Curves []uint16
}

func tlsSettings(t *testing.T) []tlsAnswer {
	var out []tlsAnswer
	for _, values := range [][4]string{
		{}, {"1.2"}, {"1.3", "1.3"}, {"1.2", "1.2"}, {"1.1"}, {"", "1.4"}, {"TLS1.2"}, {"", "", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_AES_128_GCM_SHA256,"},
		{"", "", "TLS_RSA_WITH_RC4_128_SHA"}, {"", "", " , "}, {"", "", "", "X25519,CurveP256,P-256,P-384,CurveP521,X25519MLKEM768"}, {"", "", "", "P256"}, {"", "", "", "x25519"},
		{"", "", "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA,TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"}, {"", "", "TLS_RSA_WITH_AES_128_GCM_SHA256"},
	} {
		for at, suffix := range []string{knativetls.MinVersionEnvKey, knativetls.MaxVersionEnvKey, knativetls.CipherSuitesEnvKey, knativetls.CurvePreferencesEnvKey} {
			t.Setenv("VECTOR_"+suffix, values[at])
		}
		config, err := knativetls.DefaultConfigFromEnv("VECTOR_")
		answer := tlsAnswer{Values: values, OK: err == nil}
		if err == nil {
			answer.Min, answer.Max, answer.Suites = config.MinVersion, config.MaxVersion, len(config.CipherSuites)
			for _, curve := range config.CurvePreferences {
				answer.Curves = append(answer.Curves, uint16(curve))
			}
		}
		out = append(out, answer)
	}
	return out
}

type name struct {
	Name   string
	Unit   string
	Kind   string
	Metric string
	Label  string
}

func names(t *testing.T) []name {
	metric := otlptranslator.NewMetricNamer("", otlptranslator.UnderscoreEscapingWithSuffixes)
	label := otlptranslator.LabelNamer{}
	kinds := map[string]otlptranslator.MetricType{
		"counter": otlptranslator.MetricTypeMonotonicCounter, "gauge": otlptranslator.MetricTypeGauge, "histogram": otlptranslator.MetricTypeHistogram,
	}
	var out []name
	for _, one := range [][3]string{
		{"kn.serving.invocation.duration", "s", "histogram"}, {"kn.serving.queue.depth", "{request}", "gauge"},
		{"http.server.request.duration", "s", "histogram"}, {"http.server.request.body.size", "By", "histogram"},
		{"http.server.response.body.size", "By", "histogram"}, {"http.client.request.duration", "s", "histogram"},
		{"go.memory.used", "By", "gauge"}, {"go.memory.allocations", "{allocation}", "counter"}, {"go.memory.allocated", "By", "counter"},
		{"go.config.gogc", "%", "gauge"}, {"go.goroutine.count", "{goroutine}", "gauge"}, {"a.seconds", "s", "counter"}, {"a.total", "1", "counter"},
		{"a.share", "1", "gauge"}, {"a.share", "1", "histogram"}, {"9lives", "", "gauge"}, {"a..b--c", "ms", "histogram"},
	} {
		built, err := metric.Build(otlptranslator.Metric{Name: one[0], Unit: one[1], Type: kinds[one[2]]})
		if err != nil {
			t.Fatal(err)
		}
		as, err := label.Build(one[0])
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, name{one[0], one[1], one[2], built, as})
	}
	return out
}

// What is read from the header fields of one request.
type headerAnswer struct {
	Headers  [][2]string
	RouteTag string
	TraceID  string
	Probe    bool
}

func headers() []headerAnswer {
	var out []headerAnswer
	for _, list := range [][][2]string{
		{}, {{"Knative-Serving-Tag", "blue"}}, {{"Knative-Serving-Tag", "blue"}, {"Knative-Serving-Default-Route", "true"}},
		{{"Knative-Serving-Tag", "blue"}, {"Knative-Serving-Default-Route", "false"}}, {{"Knative-Serving-Default-Route", "true"}},
		{{"Knative-Serving-Default-Route", "false"}}, {{"Knative-Serving-Tag", ""}}, {{"Knative-Serving-Tag", "a"}, {"Knative-Serving-Tag", "b"}},
		{{"Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}}, {{"Traceparent", "00"}}, {{"Traceparent", "00-"}}, {{"Traceparent", "-x"}},
		{{"Traceparent", "00"}, {"X-B3-Traceid", "b3"}}, {{"Traceparent", "00-"}, {"X-B3-Traceid", "b3"}}, {{"Traceparent", ""}, {"X-B3-Traceid", "b3"}}, {{"X-B3-Traceid", "b3"}},
		{{"User-Agent", "kube-probe/1.31"}}, {{"User-Agent", "kube-probe"}}, {{"User-Agent", "Knative-Activator-Probe"}}, {{"K-Kubelet-Probe", "x"}}, {{"K-Kubelet-Probe", ""}},
		{{"K-Network-Probe", "queue"}}, {{"K-Network-Probe", ""}}, {{"K-Network-Probe", "anything"}},
	} {
		request := &http.Request{Header: http.Header{}}
		for _, field := range list {
			request.Header.Add(field[0], field[1])
		}
		out = append(out, headerAnswer{list, queue.GetRouteTagNameFromRequest(request), pkghttp.ExtractTraceID(request.Header), netheader.IsProbe(request)})
	}
	return out
}

func constants() map[string]string {
	return map[string]string{
		"template":        o11y.DefaultRequestLogTemplate,
		"http1":           fmt.Sprint(networking.BackendHTTPPort),
		"h2c":             fmt.Sprint(networking.BackendHTTP2Port),
		"tls":             fmt.Sprint(networking.BackendHTTPSPort),
		"admin":           fmt.Sprint(networking.QueueAdminPort),
		"autoscaler":      fmt.Sprint(networking.AutoscalingQueueMetricsPort),
		"user":            fmt.Sprint(networking.UserQueueMetricsPort),
		"profiling":       fmt.Sprint(runtime.ProfilingDefaultPort),
		"drain":           queue.RequestQueueDrainPath,
		"certificates":    queue.CertDirectory,
		"annotations":     queue.PodInfoDirectory + "/" + queue.PodInfoAnnotationsFilename,
		"tokens":          queue.TokenDirectory,
		"queue":           queue.Name,
		"queue full":      queue.ErrRequestQueueFull.Error() + "\n",
		"probe":           strings.ToLower(netheader.ProbeKey),
		"probe value":     netheader.ProbeValue,
		"hash":            strings.ToLower(netheader.HashKey),
		"proxy":           strings.ToLower(netheader.ProxyKey),
		"host":            strings.ToLower(netheader.OriginalHostKey),
		"kubelet":         strings.ToLower(netheader.KubeletProbeKey),
		"route tag":       strings.ToLower(netheader.RouteTagKey),
		"default route":   strings.ToLower(netheader.DefaultRouteKey),
		"kube probe":      netheader.KubeProbeUAPrefix,
		"activator":       netheader.ActivatorUserAgent,
		"autoscaling":     netheader.AutoscalingUserAgent,
		"protobuf":        netheader.ProtobufMIMEType,
		"route attribute": string(servingmetrics.RouteTagNameKey),
	}
}
