package vectors

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/kelseyhightower/envconfig"
)

// The variables of pkg/queue/sharedmain/main.go, which does not export its structure, with their types and rules.
type environment struct {
	ContainerConcurrency                int    `split_words:"true" required:"true"`
	QueueServingPort                    string `split_words:"true" required:"true"`
	QueueServingTLSPort                 string `split_words:"true" required:"true"`
	UserPort                            string `split_words:"true" required:"true"`
	RevisionTimeoutSeconds              int    `split_words:"true" required:"true"`
	RevisionResponseStartTimeoutSeconds int    `split_words:"true"`
	RevisionIdleTimeoutSeconds          int    `split_words:"true"`
	ServingReadinessProbe               string `split_words:"true"`
	EnableHTTPFullDuplex                bool   `split_words:"true"`
	EnableHTTP2AutoDetection            bool   `envconfig:"ENABLE_HTTP2_AUTO_DETECTION"`
	EnableMultiContainerProbes          bool   `split_words:"true"`
	ServingLoggingConfig                string `split_words:"true" required:"true"`
	ServingLoggingLevel                 string `split_words:"true" required:"true"`
	ServingNamespace                    string `split_words:"true" required:"true"`
	ServingService                      string `split_words:"true"`
	ServingConfiguration                string `split_words:"true" required:"true"`
	ServingRevision                     string `split_words:"true" required:"true"`
	ServingPod                          string `split_words:"true" required:"true"`
	ServingPodIP                        string `split_words:"true" required:"true"`
}

// What every question starts from.
var given = map[string]string{
	"CONTAINER_CONCURRENCY": "10", "QUEUE_SERVING_PORT": "8012", "QUEUE_SERVING_TLS_PORT": "8112", "USER_PORT": "8080",
	"REVISION_TIMEOUT_SECONDS": "300", "REVISION_RESPONSE_START_TIMEOUT_SECONDS": "0", "REVISION_IDLE_TIMEOUT_SECONDS": "0",
	"SERVING_READINESS_PROBE": "", "ENABLE_HTTP_FULL_DUPLEX": "false", "ENABLE_HTTP2_AUTO_DETECTION": "false",
	"ENABLE_MULTI_CONTAINER_PROBES": "false", "SERVING_LOGGING_CONFIG": "", "SERVING_LOGGING_LEVEL": "", "SERVING_NAMESPACE": "ns",
	"SERVING_SERVICE": "s", "SERVING_CONFIGURATION": "c", "SERVING_REVISION": "r", "SERVING_POD": "p", "SERVING_POD_IP": "10.0.0.1",
}

// One variable changed, or missing where Value is null.
type environmentAnswer struct {
	Name    string
	Value   *string
	OK      bool
	Numbers [4]int
	Flags   [3]bool
}

func environments(t *testing.T) []environmentAnswer {
	values := map[bool][]string{
		// Numbers, truth values.
		true: {"", "0", "1", "-5", "0x10", "1_0", "010", "ten", " 1", "1.5", "9999999999", "t", "T", "TRUE", "true", "True", "f", "False", "yes", "2"},
		// Texts.
		false: {""},
	}
	var names []string
	for name := range given {
		names = append(names, name)
	}
	slices.Sort(names)
	var out []environmentAnswer
	for _, name := range names {
		typed := strings.HasSuffix(name, "_SECONDS") || strings.HasPrefix(name, "ENABLE_") || name == "CONTAINER_CONCURRENCY"
		out = append(out, ask(t, name, nil))
		for _, value := range values[typed] {
			out = append(out, ask(t, name, &value))
		}
	}
	return out
}

func ask(t *testing.T, name string, value *string) environmentAnswer {
	for other, usual := range given {
		t.Setenv(other, usual)
	}
	if value == nil {
		os.Unsetenv(name)
	} else {
		t.Setenv(name, *value)
	}
	var read environment
	err := envconfig.Process("", &read)
	answer := environmentAnswer{Name: name, Value: value, OK: err == nil}
	if err == nil {
		answer.Numbers = [4]int{
			read.ContainerConcurrency, read.RevisionTimeoutSeconds, read.RevisionResponseStartTimeoutSeconds, read.RevisionIdleTimeoutSeconds,
		}
		answer.Flags = [3]bool{read.EnableHTTPFullDuplex, read.EnableHTTP2AutoDetection, read.EnableMultiContainerProbes}
	}
	return answer
}
