// Package conformance runs h2spec against a server, in a process of its own: h2spec prints as it goes and ends the process
// when it cannot connect.
package conformance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/summerwind/h2spec/config"
	"github.com/summerwind/h2spec/generic"
	"github.com/summerwind/h2spec/hpack"
	h2specHTTP2 "github.com/summerwind/h2spec/http2"
	"github.com/summerwind/h2spec/spec"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/h2c"

	"zipline.internal/interop/protocols/report"
	"zipline.internal/interop/protocols/subject"
)

// Command is the argument that makes this program the process of its own.
const Command = "h2spec-child"

// Commit is the version of h2spec that go.mod pins.
const Commit = "70ac22940108"

// How long h2spec waits for an answer before it says that none came.
const timeout = 3 * time.Second

// headerLength is the length of one of h2spec's fields: five of them are more than the largest frame that Zipline takes, one of
// them is less than what everybody takes.
const headerLength = 16_000

// answerAfter is how long the function takes for each request.
const answerAfter = 50 * time.Millisecond

type result struct {
	ID, What, Error string
	Skipped         bool
}

// Child runs every case against an address and prints the results as JSON.
func Child(addr string) error {
	out := os.Stdout
	quiet, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	os.Stdout = quiet
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		return err
	}
	settings := &config.Config{Host: host, Port: port, Path: "/", Timeout: timeout, MaxHeaderLen: headerLength, Strict: true}
	var results []result
	for _, group := range []*spec.TestGroup{generic.Spec(), h2specHTTP2.Spec(), hpack.Spec()} {
		group.Test(settings)
		results = collect(group, results)
	}
	return json.NewEncoder(out).Encode(results)
}

func collect(group *spec.TestGroup, into []result) []result {
	for _, test := range append(append([]*spec.TestCase(nil), group.Tests...), group.StrictTests...) {
		if test.Result == nil {
			continue
		}
		one := result{ID: fmt.Sprintf("%s/%d", group.ID(), test.Result.Sequence), What: test.Desc, Skipped: test.Result.Skipped}
		if test.Result.Failed {
			one.Error = test.Result.Error.Error()
		}
		into = append(into, one)
	}
	for _, inner := range group.Groups {
		into = collect(inner, into)
	}
	return into
}

// excused are cases that need not pass, with the reason.
var excused = map[string]string{
	"http2/3.5/2": "the port speaks HTTP/1.1 too, so what is no preface is refused in HTTP/1.1, with 400",
}

// Run runs h2spec against Zipline and, at the same time, against Go's server.
func Run(name string, place *subject.Place, zipline subject.Starter) (report.Suite, error) {
	suite := report.Suite{Name: name, Against: "RFC 9113 and RFC 7541 as h2spec " + Commit + " reads them"}
	listener, err := place.Listen()
	if err != nil {
		return suite, err
	}
	body := []byte(strings.Repeat("what the function says\n", 100))
	function := &http.Server{Handler: h2c.NewHandler(http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		// Some cases break the rules on a stream whose request has ended, and are about a stream that is still open.
		time.Sleep(answerAfter)
		writer.Write(body)
	}), &http2.Server{})}
	go function.Serve(listener)
	defer function.Close()
	port := subject.Port(listener.Addr())
	ours, err := zipline(place, port)
	if err != nil {
		return suite, err
	}
	defer ours.Close()
	reference, err := subject.Reference(place, port)
	if err != nil {
		return suite, err
	}
	defer reference.Close()
	type outcome struct {
		results []result
		err     error
	}
	theirs := make(chan outcome, 1)
	go func() {
		results, err := child(place, reference.Addr)
		theirs <- outcome{results, err}
	}()
	results, err := child(place, ours.Addr)
	of := <-theirs
	if err != nil {
		return suite, err
	}
	if of.err != nil {
		return suite, of.err
	}
	goFails := map[string]bool{}
	for _, result := range of.results {
		goFails[result.ID] = result.Error != ""
	}
	failed := 0
	for _, result := range results {
		check := report.Check{ID: result.ID, What: result.What}
		reason, known := excused[result.ID]
		switch {
		case result.Skipped:
			check.Deviation = "h2spec skipped it"
		case result.Error != "" && known:
			check.Deviation = reason
		case result.Error != "":
			also := "Go's server passes it"
			if goFails[result.ID] {
				also = "Go's server fails it too"
			}
			check.Failure = result.Error + "\n" + also
		case known:
			check.Failure = "it is excused, but it passes"
		}
		suite.Checks = append(suite.Checks, check)
	}
	var list []string
	for _, result := range of.results {
		if result.Error != "" {
			failed++
			list = append(list, result.ID)
		}
	}
	suite.Notes = append(suite.Notes, fmt.Sprintf("of the same %d cases Go's server fails %d: %s", len(of.results), failed, strings.Join(list, " ")))
	return suite, nil
}

func child(place *subject.Place, addr string) ([]result, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	command := exec.Command(self, Command, addr)
	command.Stderr = os.Stderr
	var output bytes.Buffer
	command.Stdout = &output
	place.Do(func() { err = command.Start() })
	if err == nil {
		err = command.Wait()
	}
	if err != nil {
		return nil, fmt.Errorf("h2spec against %s: %w: %.500s", addr, err, output.String())
	}
	var results []result
	if err := json.Unmarshal(output.Bytes(), &results); err != nil {
		return nil, fmt.Errorf("h2spec against %s: %w", addr, err)
	}
	return results, nil
}
