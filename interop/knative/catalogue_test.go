package interop

import (
	_ "embed"
	"fmt"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"zipline.internal/interop/knative/internal/fact"
)

//go:embed contract.yaml
var contractText []byte

//go:embed deviations.yaml
var deviationsText []byte

// row is one thing that Knative's queue-proxy does and callers, functions or the control plane can see.
type row struct {
	ID        string   `json:"id"`
	Fact      string   `json:"fact"`
	Source    string   `json:"source"`
	Scenarios []string `json:"scenarios"`
}

// section groups rows as the code of Knative does.
type section struct {
	Title string `json:"title"`
	Rows  []row  `json:"rows"`
}

// deviation is a difference from Knative that is meant.
type deviation struct {
	Scenario string `json:"scenario"`
	// Facts are the names of the facts that differ, and what ours must be.
	Facts  map[string]string `json:"facts"`
	Reason string            `json:"reason"`
}

type deviationList []deviation

var deviations = mustLoad[deviationList](deviationsText)

func mustLoad[T any](text []byte) T {
	var value T
	if err := yaml.UnmarshalStrict(text, &value); err != nil {
		panic(fmt.Sprintf("interop data: %v", err))
	}
	return value
}

// split separates what may differ from what may not, and names recorded deviations that did not happen.
func (list deviationList) split(id string, all []fact.Difference) (rest []fact.Difference, recorded, stale []string) {
	allowed := map[string]string{}
	reasons := map[string]string{}
	for _, d := range list {
		if d.Scenario == id {
			for key, value := range d.Facts {
				allowed[key], reasons[key] = value, d.Reason
			}
		}
	}
	for _, d := range all {
		want, known := allowed[d.Key]
		if !known || want != d.Got {
			rest = append(rest, d)
			continue
		}
		recorded = append(recorded, fmt.Sprintf("%s: Knative %s, Zipline %s: %s", d.Key, d.Want, d.Got, reasons[d.Key]))
		delete(allowed, d.Key)
	}
	for key := range allowed {
		stale = append(stale, "recorded deviation did not happen: "+key)
	}
	return rest, recorded, stale
}

// TestContract fails on a row without a scenario, on a scenario without a row and on one without a broken queue-proxy.
func TestContract(t *testing.T) {
	sections := mustLoad[[]section](contractText)
	known := map[string]bool{}
	for _, s := range scenarios() {
		if known[s.id] {
			t.Errorf("scenario %s exists twice", s.id)
		}
		known[s.id] = false
		f := s.broken
		if f.key == "" || (f.env == nil && f.front == nil && f.behind == nil && f.line == nil && !f.dies && f.withhold == "") {
			t.Errorf("scenario %s has no queue-proxy that is broken", s.id)
		}
	}
	rows, covered := map[string]bool{}, 0
	for _, section := range sections {
		for _, row := range section.Rows {
			if rows[row.ID] || row.ID == "" {
				t.Errorf("row id %q is missing or used twice", row.ID)
			}
			rows[row.ID] = true
			if row.Fact == "" || !strings.Contains(row.Source, "/") {
				t.Errorf("row %s has no fact or no source", row.ID)
			}
			if len(row.Scenarios) == 0 {
				t.Errorf("row %s has no scenario", row.ID)
				continue
			}
			covered++
			for _, id := range row.Scenarios {
				if _, ok := known[id]; !ok {
					t.Errorf("row %s names scenario %s, which does not exist", row.ID, id)
				}
				known[id] = true
			}
		}
	}
	for id, cited := range known {
		if !cited {
			t.Errorf("scenario %s belongs to no row", id)
		}
	}
	for _, d := range deviations {
		if _, ok := known[d.Scenario]; !ok || d.Reason == "" {
			t.Errorf("deviation of %s names no scenario or no reason", d.Scenario)
		}
	}
	fmt.Printf("contract: %d rows, %d without a scenario\n", len(rows), len(rows)-covered)
}
