// Package vectors keeps the answers of Knative's own code to what crates/zipline-knative reads and writes. The Rust tests
// hold the crate against the file; this test holds the file against the pinned release. After a change of either:
//
//	go test ./vectors -update
package vectors

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"reflect"
	"testing"
)

const file = "../../../crates/zipline-knative/vectors.json"

var update = flag.Bool("update", false, "write the file instead of comparing with it")

type vectors struct {
	Given         map[string]string
	Environments  []environmentAnswer
	Ints          []answer
	Bools         []answer
	Floats        []float
	Quotes        []text
	Forms         []string
	Requests      []rendering
	Stats         []stat
	Concurrency   []concurrency
	Observability []observed
	Probes        []probed
	Logging       []logged
	Lines         []line
	TLS           []tlsAnswer
	Names         []name
	Headers       []headerAnswer
	Constants     map[string]string
}

func TestTheFileIsWhatKnativeAnswers(t *testing.T) {
	now := vectors{
		Given:         given,
		Environments:  environments(t),
		Ints:          ints(),
		Bools:         bools(),
		Floats:        floats(),
		Quotes:        quotes(),
		Forms:         forms,
		Requests:      renderings(t),
		Stats:         stats(t),
		Concurrency:   concurrencies(),
		Observability: observability(),
		Probes:        probes(),
		Logging:       loggings(),
		Lines:         lines(t),
		TLS:           tlsSettings(t),
		Names:         names(t),
		Headers:       headers(),
		Constants:     constants(),
	}
	encoded := encode(t, now)
	if *update {
		if err := os.WriteFile(file, encoded, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	kept, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(kept, encoded) {
		t.Errorf("%s is not what this release answers; run go test ./vectors -update and look at the difference", file)
	}
}

// One line per answer, so that a difference can be read.
func encode(t *testing.T, now vectors) []byte {
	var out bytes.Buffer
	value := reflect.ValueOf(now)
	for at := range value.NumField() {
		fmt.Fprintf(&out, "%s%q: ", map[bool]string{true: "{\n", false: ",\n"}[at == 0], value.Type().Field(at).Name)
		field := value.Field(at)
		if field.Kind() != reflect.Slice {
			out.Write(compact(t, field.Interface()))
			continue
		}
		for item := range field.Len() {
			out.WriteString(map[bool]string{true: "[\n", false: ",\n"}[item == 0])
			out.Write(compact(t, field.Index(item).Interface()))
		}
		out.WriteString("\n]")
	}
	out.WriteString("\n}\n")
	return out.Bytes()
}

func compact(t *testing.T, value any) []byte {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n"))
}
