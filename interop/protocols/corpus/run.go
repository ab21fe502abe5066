package corpus

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"zipline.internal/interop/protocols/report"
	"zipline.internal/interop/protocols/subject"
	"zipline.internal/interop/protocols/upstream"
)

// Result is what came of one case.
type Result struct {
	// Case is what was sent.
	Case Case
	// Go and Zipline are what was seen.
	Go, Zipline Outcome
	// Deviation is the recorded reason of a difference.
	Deviation string
	// Failure is empty if all is well.
	Failure string
}

// pair is a proxy in front of an upstream of its own.
type pair struct {
	place *subject.Place
	proxy *subject.Subject
	up    *upstream.Upstream
}

func start(starter subject.Starter, apart bool) (*pair, error) {
	var place *subject.Place
	if apart {
		var err error
		if place, err = subject.NewPlace(); err != nil {
			return nil, err
		}
	}
	listener, err := place.Listen()
	if err != nil {
		place.Close()
		return nil, err
	}
	up := upstream.Start(listener)
	proxy, err := starter(place, up.Port())
	if err != nil {
		up.Close()
		place.Close()
		return nil, err
	}
	return &pair{place: place, proxy: proxy, up: up}, nil
}

func (p *pair) close() {
	p.proxy.Close()
	p.up.Close()
	p.place.Close()
}

func (p *pair) dial() (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), subject.Patience)
	defer cancel()
	return p.proxy.Dial(ctx, p.proxy.Addr)
}

// try runs one case and then sees whether the proxy still serves others rightly.
func (p *pair) try(c Case, expected func(Outcome) bool) (Outcome, []int, error) {
	p.up.Reset()
	conn, err := p.dial()
	if err != nil {
		return Outcome{}, nil, err
	}
	defer conn.Close()
	var outcome Outcome
	if c.Frames != nil {
		outcome = exchange2(conn, c.Frames, p.up, expected)
	} else {
		outcome = exchange1(conn, []byte(strings.ReplaceAll(c.Send, "~", "")), c.Head, p.up, expected)
	}
	serials := p.up.Serials()
	return outcome, serials, p.canary()
}

// patience is how long an expected outcome may take; only a failure takes that long.
const patience = 10 * time.Second

// canary sends an ordinary request over a connection of its own.
func (p *pair) canary() error {
	return p.canaryOf("GET /canary HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
}

func (p *pair) canaryOf(send string) error {
	p.up.Reset()
	conn, err := p.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(subject.Patience))
	fmt.Fprint(conn, send)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return fmt.Errorf("the next request was not answered: %w", err)
	}
	defer response.Body.Close()
	seen, _ := p.up.Seen()
	if response.StatusCode != 200 || len(seen) != 1 || !strings.HasPrefix(seen[0], "GET /canary") {
		return fmt.Errorf("the next request got %s, and the function saw %q", response.Status, seen)
	}
	return nil
}

// Config says how to run the corpus.
type Config struct {
	// Zipline starts the proxy under test, Go the one it is held against.
	Zipline, Go subject.Starter
	// ZiplineApart and GoApart say that each has the environment of a pod, and so needs a network of its own.
	ZiplineApart, GoApart bool
	// Workers is how many cases run at a time.
	Workers int
	// Only is the id of the one case to run, or empty.
	Only string
	// Learn takes every outcome as the expected one.
	Learn bool
}

// Run sends every case to both proxies.
func Run(config Config) ([]Result, error) {
	expectations, err := Expectations()
	if err != nil {
		return nil, err
	}
	if config.Learn {
		quiet = time.Second
	}
	cases := concat(HTTP1, HTTP2)
	known := map[string]bool{}
	var wanted []Case
	for _, c := range cases {
		if known[c.ID] {
			return nil, fmt.Errorf("two cases are called %s", c.ID)
		}
		known[c.ID] = true
		if config.Only == "" || strings.HasPrefix(c.ID, config.Only) {
			wanted = append(wanted, c)
		}
	}
	for id := range expectations {
		if !known[id] {
			return nil, fmt.Errorf("outcomes.txt: there is no case %s", id)
		}
	}
	queue := make(chan int)
	results := make([]Result, len(wanted))
	failures := make(chan error, config.Workers)
	var workers sync.WaitGroup
	for range min(config.Workers, len(wanted)) {
		workers.Go(func() {
			failures <- work(config, wanted, expectations, queue, results)
		})
	}
	go func() {
		defer close(queue)
		for index := range wanted {
			queue <- index
		}
	}()
	workers.Wait()
	close(failures)
	var all []error
	for failure := range failures {
		all = append(all, failure)
	}
	return results, errors.Join(all...)
}

// work takes cases from the queue until it is empty.
func work(config Config, cases []Case, expectations map[string]*Expectation, queue <-chan int, results []Result) error {
	reference, err := start(config.Go, config.GoApart)
	if err == nil {
		defer reference.close()
		var ours *pair
		if ours, err = start(config.Zipline, config.ZiplineApart); err == nil {
			defer ours.close()
			for index := range queue {
				expectation := expectations[cases[index].ID]
				if expectation == nil {
					expectation = &Expectation{}
				}
				if config.ZiplineApart && expectation.Standalone {
					expectation = &Expectation{Go: expectation.Go}
				}
				results[index] = compare(cases[index], reference, ours, *expectation, config.Learn)
			}
			return nil
		}
	}
	for range queue {
		// Somebody has to, or the others would wait for ever.
	}
	return err
}

// compare sends one case to both.
func compare(c Case, reference, ours *pair, expectation Expectation, learn bool) Result {
	result := Result{Case: c, Deviation: expectation.Why}
	want := expectation.Go
	if expectation.Zipline != "" {
		want = []string{expectation.Zipline}
	}
	is := func(recorded []string) func(Outcome) bool {
		return func(outcome Outcome) bool {
			same := func(one string) bool { return class(one) == class(outcome.String()) }
			return learn || slices.ContainsFunc(recorded, same)
		}
	}
	var both sync.WaitGroup
	var goErr, ourErr error
	var serials []int
	both.Go(func() { result.Go, _, goErr = reference.try(c, is(expectation.Go)) })
	both.Go(func() { result.Zipline, serials, ourErr = ours.try(c, is(want)) })
	both.Wait()
	switch {
	case goErr != nil:
		result.Failure = "go: " + goErr.Error()
	case ourErr != nil:
		result.Failure = ourErr.Error()
	case forbidden(result.Zipline, serials) != "":
		result.Failure = forbidden(result.Zipline, serials)
	case learn:
	case len(expectation.Go) == 0:
		result.Failure = "nothing is recorded for it"
	case !is(expectation.Go)(result.Go):
		result.Failure = "go does otherwise than recorded: " + strings.Join(expectation.Go, ", or ")
	case !is(want)(result.Zipline):
		result.Failure = "expected: " + strings.Join(want, ", or ")
	case expectation.Zipline != "" && is(expectation.Go)(result.Zipline):
		result.Failure = "a deviation is recorded, but there is none"
	}
	return result
}

// Record is what outcomes.txt would say about these results; reasons are for people to write.
func Record(results []Result) string {
	var text strings.Builder
	for _, result := range results {
		fmt.Fprintf(&text, "%s\tgo\t%s\n", result.Case.ID, result.Go)
		if class(result.Go.String()) != class(result.Zipline.String()) {
			fmt.Fprintf(&text, "%s\tzipline\t%s\t%s\n", result.Case.ID, result.Zipline, result.Deviation)
		}
	}
	return text.String()
}

// Report is the form of the results that all suites share.
func Report(name, against string, results []Result) report.Suite {
	suite := report.Suite{Name: name, Against: against}
	for _, result := range results {
		check := report.Check{ID: result.Case.ID, What: result.Case.What, Deviation: result.Deviation, Failure: result.Failure}
		if check.Failure != "" {
			check.Failure += fmt.Sprintf("\ngo      %s\nzipline %s", result.Go, result.Zipline)
		}
		suite.Checks = append(suite.Checks, check)
	}
	return suite
}
