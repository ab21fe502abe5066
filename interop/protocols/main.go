// Protocols runs the protocol suites against Zipline's queue-proxy. See README.md.
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"zipline.internal/interop/protocols/conformance"
	"zipline.internal/interop/protocols/corpus"
	"zipline.internal/interop/protocols/grpcsuite"
	"zipline.internal/interop/protocols/report"
	"zipline.internal/interop/protocols/subject"
	"zipline.internal/interop/protocols/wssuite"
)

// workers is how many cases of the corpus run at a time; most of their time is waiting.
const workers = 8

func main() {
	if len(os.Args) == 3 && os.Args[1] == conformance.Command {
		exit(conformance.Child(os.Args[2]))
	}
	if len(os.Args) == 5 && os.Args[1] == grpcsuite.Command {
		exit(grpcsuite.Child(os.Args[2], os.Args[3], os.Args[4]))
	}
	binaries := flag.String("bin", "target/debug", "folder of the built programs")
	queue := flag.String("queue", "build/knative/queue", "Knative's own queue-proxy")
	names := flag.String("suite", "", "which suites to run, with commas between; all if empty")
	only := flag.String("case", "", "of a corpus, only cases whose id begins so")
	learn := flag.Bool("learn", false, "print a corpus' outcomes as they would be now")
	all := flag.Bool("v", false, "print cases that pass too")
	flag.Parse()

	standalone := func(_ *subject.Place, port int) (*subject.Subject, error) {
		return subject.Zipline{Binaries: *binaries, UserPort: port}.Start()
	}
	inPod := subject.Knative{Name: "zipline", Binary: filepath.Join(*binaries, "zipline-queue-proxy")}.Start
	stock := subject.Knative{Name: "knative", Binary: *queue}.Start
	send := func(name, against string, config corpus.Config) (report.Suite, error) {
		config.Workers, config.Only, config.Learn = workers, *only, *learn
		results, err := corpus.Run(config)
		if *learn && err == nil {
			fmt.Print(corpus.Record(results))
		}
		return corpus.Report(name, against, results), err
	}
	apart := func(run func(*subject.Place) (report.Suite, error)) (report.Suite, error) {
		place, err := subject.NewPlace()
		if err != nil {
			return report.Suite{}, err
		}
		defer place.Close()
		return run(place)
	}
	suites := []struct {
		name string
		run  func(name string) (report.Suite, error)
	}{
		{"h2spec", func(name string) (report.Suite, error) { return conformance.Run(name, nil, standalone) }},
		{"h2spec-knative", func(name string) (report.Suite, error) {
			return apart(func(place *subject.Place) (report.Suite, error) { return conformance.Run(name, place, inPod) })
		}},
		{"grpc", func(string) (report.Suite, error) { return grpcsuite.Run(*binaries) }},
		{"grpc-knative", func(name string) (report.Suite, error) {
			return apart(func(place *subject.Place) (report.Suite, error) { return grpcsuite.RunOne(name, place, inPod) })
		}},
		{"websocket", func(name string) (report.Suite, error) { return wssuite.Run(name, nil, standalone) }},
		{"websocket-knative", func(name string) (report.Suite, error) {
			return apart(func(place *subject.Place) (report.Suite, error) { return wssuite.Run(name, place, inPod) })
		}},
		{"corpus", func(name string) (report.Suite, error) {
			return send(name, "Knative's own queue-proxy", corpus.Config{Zipline: standalone, Go: stock, GoApart: true})
		}},
		{"corpus-forward", func(name string) (report.Suite, error) {
			config := corpus.Config{Workers: workers, Only: *only}
			return corpus.Forward(name, config, func(gateway string, port int) (*subject.Subject, error) {
				return subject.Zipline{Binaries: *binaries, UserPort: port, Gateway: gateway}.Start()
			})
		}},
		{"corpus-knative", func(name string) (report.Suite, error) {
			return send(name, "Knative's own queue-proxy", corpus.Config{Zipline: inPod, ZiplineApart: true, Go: stock, GoApart: true})
		}},
	}
	wanted := strings.Split(*names, ",")
	cases, failed := 0, 0
	started := time.Now()
	// The servers here complain of what the suites do to them.
	log.SetOutput(io.Discard)
	for _, suite := range suites {
		if *names != "" && !slices.Contains(wanted, suite.name) {
			continue
		}
		result, err := suite.run(suite.name)
		result.Print(os.Stderr, *all)
		if err != nil {
			fmt.Fprintf(os.Stderr, "FAIL %s: %v\n", suite.name, err)
			failed++
		}
		cases += len(result.Checks)
		failed += result.Failed()
	}
	fmt.Fprintf(os.Stderr, "protocols: %d cases, %d failed, in %.0f s\n", cases, failed, time.Since(started).Seconds())
	if failed > 0 || cases == 0 {
		os.Exit(1)
	}
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}
