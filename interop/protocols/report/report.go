// Package report is the form in which every suite tells what came of its cases.
package report

import (
	"fmt"
	"io"
	"sort"
	"strings"
)

// Check is one case of one suite.
type Check struct {
	// ID is its number.
	ID string
	// What it does, in words.
	What string
	// Deviation is the recorded reason why Zipline does otherwise than Go.
	Deviation string
	// Failure is empty if all is well.
	Failure string
}

// Suite is what came of one suite.
type Suite struct {
	// Name of the suite.
	Name string
	// Against says what it was held against.
	Against string
	// Checks are its cases.
	Checks []Check
	// Notes are worth a line each.
	Notes []string
}

// Failed counts failures.
func (s Suite) Failed() int {
	failed := 0
	for _, check := range s.Checks {
		if check.Failure != "" {
			failed++
		}
	}
	return failed
}

// Print writes failures, recorded deviations by reason, and a line of numbers.
func (s Suite) Print(to io.Writer, all bool) {
	reasons := map[string][]string{}
	deviations := 0
	for _, check := range s.Checks {
		switch {
		case check.Failure != "":
			fmt.Fprintf(to, "FAIL %s %s, %s\n     %s\n", s.Name, check.ID, check.What, strings.ReplaceAll(check.Failure, "\n", "\n     "))
		case check.Deviation != "":
			reasons[check.Deviation] = append(reasons[check.Deviation], check.ID)
			deviations++
		case all:
			fmt.Fprintf(to, "ok   %s %s, %s\n", s.Name, check.ID, check.What)
		}
	}
	sorted := make([]string, 0, len(reasons))
	for reason := range reasons {
		sorted = append(sorted, reason)
	}
	sort.Slice(sorted, func(a, b int) bool { return reasons[sorted[a]][0] < reasons[sorted[b]][0] })
	for _, reason := range sorted {
		fmt.Fprintf(to, "deviation %s: %s\n", strings.Join(reasons[reason], " "), reason)
	}
	for _, note := range s.Notes {
		fmt.Fprintf(to, "note %s: %s\n", s.Name, note)
	}
	fmt.Fprintf(to, "%s: %d cases against %s, %d passed, %d of them recorded deviations, %d failed\n\n",
		s.Name, len(s.Checks), s.Against, len(s.Checks)-s.Failed(), deviations, s.Failed())
}
