// Package fact keeps what was seen of a queue-proxy from outside, as text, and compares it.
package fact

import (
	"fmt"
	"sync"
)

// Fact is one thing that was seen.
type Fact struct{ Key, Value string }

// Observation is everything seen in one run of a scenario, in order. Safe for concurrent use.
type Observation struct {
	mu    sync.Mutex
	facts []Fact
	times map[string]int
}

// Note adds a fact. A key seen before gets a number.
func (o *Observation) Note(key, format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.times == nil {
		o.times = map[string]int{}
	}
	o.times[key]++
	if n := o.times[key]; n > 1 {
		key = fmt.Sprintf("%s #%d", key, n)
	}
	value := format
	if len(args) > 0 {
		value = fmt.Sprintf(format, args...)
	}
	o.facts = append(o.facts, Fact{key, value})
}

// Facts returns a copy of what was seen so far.
func (o *Observation) Facts() []Fact {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]Fact(nil), o.facts...)
}

// Missing is the value of a fact that one side does not have.
const Missing = "(not seen)"

// Difference is a fact that is not the same on both sides.
type Difference struct{ Key, Want, Got string }

// String says both values on one line.
func (d Difference) String() string { return fmt.Sprintf("%s: want %s, got %s", d.Key, d.Want, d.Got) }

// Compare returns what differs, in the order of want, then what only got has.
func Compare(want, got []Fact) []Difference {
	values := map[string]string{}
	for _, f := range got {
		values[f.Key] = f.Value
	}
	var differences []Difference
	known := map[string]bool{}
	for _, f := range want {
		known[f.Key] = true
		value, seen := values[f.Key]
		if !seen {
			value = Missing
		}
		if value != f.Value {
			differences = append(differences, Difference{f.Key, f.Value, value})
		}
	}
	for _, f := range got {
		if !known[f.Key] {
			differences = append(differences, Difference{f.Key, Missing, f.Value})
		}
	}
	return differences
}
