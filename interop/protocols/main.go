// Protocols runs the protocol suites against Zipline's queue-proxy. See README.md.
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"os"
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
	names := flag.String("suite", "h2spec,grpc,websocket,corpus", "which suites to run")
	only := flag.String("case", "", "of the corpus, only cases whose id begins so")
	learn := flag.Bool("learn", false, "print outcomes.txt as it would be now")
	all := flag.Bool("v", false, "print cases that pass too")
	flag.Parse()

	zipline := func(port int) (*subject.Subject, error) {
		return subject.Zipline{Binaries: *binaries, UserPort: port}.Start()
	}
	suites := []struct {
		name string
		run  func() (report.Suite, error)
	}{
		{"h2spec", func() (report.Suite, error) { return conformance.Run(zipline) }},
		{"grpc", func() (report.Suite, error) { return grpcsuite.Run(*binaries) }},
		{"websocket", func() (report.Suite, error) { return wssuite.Run(zipline) }},
		{"corpus", func() (report.Suite, error) {
			config := corpus.Config{Zipline: zipline, Workers: workers, Only: *only, Learn: *learn}
			results, err := corpus.Run(config)
			if *learn && err == nil {
				fmt.Print(corpus.Record(results))
			}
			return corpus.Report(results), err
		}},
	}
	wanted := strings.Split(*names, ",")
	cases, failed := 0, 0
	started := time.Now()
	// The servers here complain of what the suites do to them.
	log.SetOutput(io.Discard)
	for _, suite := range suites {
		if !slices.Contains(wanted, suite.name) {
			continue
		}
		result, err := suite.run()
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
