package interop

import (
	"fmt"
	"sync"
	"time"
)

// report prints each scenario as it is judged and totals at the end.
type report struct {
	mu                       sync.Mutex
	passed, failed, deviated int
	facts                    int
	proofs, proofsFailed     int
}

var totals report

func (r *report) add(v verdict) {
	r.mu.Lock()
	defer r.mu.Unlock()
	word := "pass"
	switch {
	case len(v.failures) > 0:
		word = "FAIL"
		r.failed++
	case len(v.deviations) > 0:
		word = "deviates"
		r.deviated++
	default:
		r.passed++
	}
	r.facts += len(v.facts)
	fmt.Printf("%-9s %-9s %s\n", v.scenario.id, word, v.scenario.title)
	for _, d := range v.deviations {
		fmt.Printf("%-19s recorded deviation: %s\n", "", d)
	}
	if *verbose {
		fmt.Printf("%-19s took %v\n", "", v.took.Round(time.Millisecond))
		for _, f := range v.facts {
			fmt.Printf("%-19s %s = %s\n", "", f.Key, f.Value)
		}
	}
}

// proof prints one of the proofs that are not comparisons.
func (r *report) proof(id, title string, failed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	word := "pass"
	r.proofs++
	if failed {
		word = "FAIL"
		r.proofsFailed++
	}
	fmt.Printf("%-9s %-9s %s\n", id, word, title)
}

func (r *report) print() {
	r.mu.Lock()
	defer r.mu.Unlock()
	total := r.passed + r.failed + r.deviated
	if total+r.proofs == 0 {
		return
	}
	fmt.Printf("interop: %d scenarios (%d facts compared): %d the same, %d with a recorded deviation, %d failed\n",
		total, r.facts, r.passed, r.deviated, r.failed)
	if r.proofs > 0 {
		fmt.Printf("interop: %d proofs, %d failed\n", r.proofs, r.proofsFailed)
	}
}
