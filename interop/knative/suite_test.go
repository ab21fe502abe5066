package interop

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"zipline.internal/interop/knative/internal/fact"
	"zipline.internal/interop/knative/internal/role"
)

var (
	knativeBinary = flag.String("knative", env("INTEROP_KNATIVE", "../../build/knative/queue"), "Knative's queue-proxy")
	ziplineBinary = flag.String("zipline", env("INTEROP_ZIPLINE", "../../target/debug/zipline-queue-proxy"), "Zipline's queue-proxy")
	only          = flag.String("only", env("INTEROP_ONLY", ""), "run only scenarios whose id matches")
	verbose       = flag.Bool("facts", false, "print every fact of Knative's queue-proxy")
	workers       = flag.Int("workers", 6, "scenarios at a time, beside those that mostly wait")
)

func env(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func TestMain(m *testing.M) {
	if role.Play() {
		return
	}
	flag.Parse()
	// Knative's builders ask for it, as in the controller's own pod.
	os.Setenv("SYSTEM_NAMESPACE", "knative-serving")
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "interop: network namespaces need root; run as root")
		os.Exit(1)
	}
	for _, binary := range []*string{knativeBinary, ziplineBinary} {
		path, err := filepath.Abs(*binary)
		if err == nil {
			_, err = os.Stat(path)
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "interop: %v; build it first (make test-interop does) or name another by flag\n", err)
			os.Exit(1)
		}
		*binary = path
	}
	code := m.Run()
	totals.print()
	os.Exit(code)
}

// scenarios are all of them, in the order of their ids.
func scenarios() []*scenario {
	var all []*scenario
	for _, table := range [][]*scenario{
		servers, tlsServers, upstream, probes, timeouts, chain, forwarding, telemetry, stats, readiness, shutdown, packages, services,
	} {
		all = append(all, table...)
	}
	sort.SliceStable(all, func(i, j int) bool { return all[i].id < all[j].id })
	return all
}

// verdict is what became of a scenario.
type verdict struct {
	scenario   *scenario
	failures   []string
	deviations []string
	facts      []fact.Fact
	took       time.Duration
}

func TestScenarios(t *testing.T) {
	match, err := regexp.Compile(*only)
	if err != nil {
		t.Fatal(err)
	}
	var chosen []*scenario
	for _, s := range scenarios() {
		if match.MatchString(s.id) {
			chosen = append(chosen, s)
		}
	}
	results := map[string]chan verdict{}
	slots := make(chan struct{}, *workers)
	var quick sync.WaitGroup
	for _, s := range chosen {
		result := make(chan verdict, 1)
		results[s.id] = result
		if s.slow {
			go func() { result <- judge(s) }()
		}
	}
	for _, s := range chosen {
		if s.slow {
			continue
		}
		quick.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			results[s.id] <- judge(s)
		})
	}
	for _, s := range chosen {
		t.Run(s.id, func(t *testing.T) {
			v := <-results[s.id]
			totals.add(v)
			for _, failure := range v.failures {
				t.Error(failure)
			}
		})
	}
	quick.Wait()
}

// judge runs a scenario against both queue-proxies and against broken ones.
func judge(s *scenario) (v verdict) {
	v.scenario = s
	begin := time.Now()
	defer func() { v.took = time.Since(begin) }()
	type outcome struct {
		facts []fact.Fact
		log   string
		err   error
	}
	var knative, zipline, broken, neutral outcome
	run := func(o *outcome, binary string, f *fault) func() {
		return func() { o.facts, o.log, o.err = perform(s, binary, f) }
	}
	jobs := []func(){run(&knative, *knativeBinary, nil), run(&zipline, *ziplineBinary, nil), run(&broken, *knativeBinary, &s.broken)}
	without := s.broken.neutral()
	if without != nil {
		jobs = append(jobs, run(&neutral, *knativeBinary, without))
	}
	var group sync.WaitGroup
	for _, job := range jobs {
		group.Go(job)
		if !s.slow {
			group.Wait()
		}
	}
	group.Wait()

	v.facts = knative.facts
	if knative.err != nil {
		v.failures = append(v.failures, fmt.Sprintf("Knative's queue-proxy: %v\n%s", knative.err, tail(knative.log)))
		return v
	}
	if len(knative.facts) == 0 {
		v.failures = append(v.failures, "nothing was seen")
		return v
	}
	if zipline.err != nil {
		v.failures = append(v.failures, fmt.Sprintf("Zipline's queue-proxy: %v", zipline.err))
	}
	differences, recorded, stale := deviations.split(s.id, fact.Compare(knative.facts, zipline.facts))
	for _, d := range differences {
		v.failures = append(v.failures, d.String())
	}
	v.deviations = recorded
	v.failures = append(v.failures, stale...)
	if len(v.failures) > 0 {
		v.failures = append(v.failures, "log of Zipline's queue-proxy:\n"+tail(zipline.log))
	}
	// The broken one may also fail to do its part; what counts is that the comparison says so.
	if !anyKey(fact.Compare(knative.facts, broken.facts), s.broken.key) {
		v.failures = append(v.failures, fmt.Sprintf("cannot fail: a queue-proxy broken in %q passes (%v)", s.broken.key, broken.err))
	}
	if without != nil {
		for _, d := range fact.Compare(knative.facts, neutral.facts) {
			v.failures = append(v.failures, fmt.Sprintf("unbroken relays change %s (%v)", d, neutral.err))
		}
	}
	return v
}

func anyKey(differences []fact.Difference, key string) bool {
	for _, d := range differences {
		if key != "" && strings.Contains(d.Key, key) {
			return true
		}
	}
	return false
}

func tail(log string) string {
	lines := strings.Split(log, "\n")
	if len(lines) > 20 {
		lines = lines[len(lines)-20:]
	}
	return strings.Join(lines, "\n")
}
