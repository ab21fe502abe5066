package corpus

import (
	_ "embed"
	"fmt"
	"regexp"
	"strings"
)

// One line per case: its id, who, what was seen, and, where Zipline differs from Go, why.
//
//go:embed outcomes.txt
var recorded string

// Expectation is what is recorded for a case.
type Expectation struct {
	// Go is what Knative's proxy does: one thing, or one of several where its own threads race.
	Go []string
	// Zipline is what Zipline does; empty: the same.
	Zipline string
	// Standalone is what Zipline does with the standalone environment only; in a pod it does as Go.
	Standalone bool
	// Why it differs.
	Why string
}

// Expectations reads outcomes.txt.
func Expectations() (map[string]*Expectation, error) {
	all := map[string]*Expectation{}
	for number, line := range strings.Split(recorded, "\n") {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		columns := strings.Split(line, "\t")
		if len(columns) < 3 {
			return nil, fmt.Errorf("outcomes.txt:%d: three or four columns are needed", number+1)
		}
		expectation := all[columns[0]]
		if expectation == nil {
			expectation = &Expectation{}
			all[columns[0]] = expectation
		}
		switch columns[1] {
		case "go":
			expectation.Go = append(expectation.Go, columns[2])
		case "zipline", "standalone":
			if len(columns) != 4 || columns[3] == "" {
				return nil, fmt.Errorf("outcomes.txt:%d: a deviation without a reason", number+1)
			}
			expectation.Zipline, expectation.Why = columns[2], columns[3]
			expectation.Standalone = columns[1] == "standalone"
		default:
			return nil, fmt.Errorf("outcomes.txt:%d: %q is none of go, zipline and standalone", number+1, columns[1])
		}
	}
	return all, nil
}

// class is what two outcomes are compared by. Statuses of refusals are replaced by their class. What the function saw but
// never got whole is left out: how much of it was passed on before the rest proved wrong is a matter of buffers. Over HTTP/2
// all ways to refuse are one.
func class(outcome string) string {
	client, seen, _ := strings.Cut(outcome, " | ")
	statuses, end, _ := strings.Cut(client, " ")
	var requests []string
	for _, request := range strings.Split(seen, " ; ") {
		cut := strings.HasSuffix(request, " <cut>")
		if !cut && request != "-" {
			requests = append(requests, unfinished.ReplaceAllString(request, " <reading>"))
		}
	}
	// A server's own 100 and the one it passes on may both come.
	list := strings.Split(strings.ReplaceAll(statuses, "100,100", "100"), ",")
	for index, status := range list {
		if len(status) == 3 && (status[0] == '4' || status[0] == '5') {
			list[index] = status[:1] + "xx"
		}
	}
	answer := strings.Join(list, ",") + " " + end
	switch answer {
	case "4xx ended", "5xx ended", "nothing reset", "nothing goaway":
		answer = "refused"
	}
	return answer + " | " + strings.Join(requests, " ; ")
}

// unfinished is the body of a request that is still being read.
var unfinished = regexp.MustCompile(` ("([^"]|\\")*"|\[\d+ bytes\]) <reading>$`)

// forbidden is what no outcome of Zipline's may have, whatever is recorded; empty if there is nothing.
func forbidden(outcome Outcome, serials []int) string {
	if outcome.Garbage != "" {
		return "the client got something that is no response: " + outcome.Garbage
	}
	for _, seen := range outcome.Upstream {
		if strings.Contains(seen, "AMBIGUOUS") {
			return "the function got something that can be read in two ways: " + seen
		}
	}
	// The responses answer the requests that the function saw, in their order.
	next := 0
	for _, echo := range outcome.Echoes {
		if echo == -1 {
			continue
		}
		if next >= len(serials) || serials[next] != echo {
			return fmt.Sprintf("a response answers request %d of the function, which saw %v", echo, serials)
		}
		next++
	}
	if next < len(serials) && outcome.End == "open" {
		return fmt.Sprintf("the function saw %d requests, the client got %d of its responses", len(serials), next)
	}
	return ""
}
