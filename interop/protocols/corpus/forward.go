package corpus

import (
	"encoding/base64"
	"fmt"
	"regexp"
	"strings"

	"zipline.internal/interop/protocols/report"
	"zipline.internal/interop/protocols/subject"
	"zipline.internal/interop/protocols/upstream"
)

// destination is the function that requests through the forward proxy ask for.
const destination = "g.default.svc.cluster.local"

// through makes a case one for a forward proxy: the first target gets an origin, the first Host is its, and the client shows
// the proxy's secret. Requests further back stay as they are.
func through(send string) string {
	send = strings.Replace(send, "~", "http://"+destination, 1)
	credentials := base64.StdEncoding.EncodeToString([]byte("zipline:" + subject.Token))
	host := "Host: " + destination + "\r\nProxy-Authorization: Basic " + credentials + "\r\n"
	send = strings.Replace(send, "Host: t\r\n", host, 1)
	return strings.ReplaceAll(send, "~", "")
}

// Forward sends the corpus to the forward proxy of a queue-proxy, with the upstream where the gateway would be. Nothing is
// recorded for it: what passes must be what Knative's queue-proxy passes too, and may be less.
func Forward(name string, config Config, zipline func(gateway string, userPort int) (*subject.Subject, error)) (report.Suite, error) {
	suite := report.Suite{Name: name, Against: "what Knative's own queue-proxy passes"}
	expectations, err := Expectations()
	if err != nil {
		return suite, err
	}
	var wanted []Case
	for _, c := range HTTP1 {
		// What has no place for an origin, or no Host of its own to be replaced, is not for this door.
		if strings.HasPrefix(c.ID, config.Only) && strings.Contains(c.Send, "~") && strings.Contains(c.Send, "Host: t\r\n") {
			wanted = append(wanted, c)
		}
	}
	suite.Checks = make([]report.Check, len(wanted))
	queue := make(chan int)
	go func() {
		defer close(queue)
		for index := range wanted {
			queue <- index
		}
	}()
	failures := make(chan error, config.Workers)
	for range config.Workers {
		go func() {
			failures <- forward(wanted, expectations, queue, suite.Checks, zipline)
		}()
	}
	for range config.Workers {
		if failure := <-failures; failure != nil {
			err = failure
		}
	}
	return suite, err
}

func forward(cases []Case, expectations map[string]*Expectation, queue <-chan int, checks []report.Check, zipline func(string, int) (*subject.Subject, error)) error {
	var place *subject.Place
	listener, err := place.Listen()
	if err != nil {
		return err
	}
	up := upstream.Start(listener)
	up.Host = destination
	proxy, err := zipline(listener.Addr().String(), up.Port())
	if err != nil {
		up.Close()
		return err
	}
	// The pair speaks to the door of functions.
	door := *proxy
	door.Addr = proxy.API
	both := &pair{proxy: &door, up: up}
	defer both.close()
	for index := range queue {
		c := cases[index]
		check := report.Check{ID: c.ID, What: c.What}
		c.Send = through(c.Send)
		up.Reset()
		conn, err := both.dial()
		if err != nil {
			return err
		}
		outcome := exchange1(conn, []byte(c.Send), c.Head, up, func(Outcome) bool { return true })
		conn.Close()
		serials := up.Serials()
		check.Failure = forbidden(outcome, serials)
		if check.Failure == "" {
			check.Failure = more(outcome, expectations[c.ID])
		}
		if check.Failure == "" {
			if err := both.canaryOf(through("GET ~/canary HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")); err != nil {
				check.Failure = err.Error()
			}
		}
		if check.Failure != "" {
			check.Failure += "\nzipline " + outcome.String()
		}
		checks[index] = check
	}
	return nil
}

// more names a request that the upstream got whole and that nothing recorded for the case has.
func more(outcome Outcome, recorded *Expectation) string {
	if recorded == nil {
		return "nothing is recorded for it"
	}
	known := "\n" + requests(recorded.Zipline) + "\n"
	for _, outcome := range recorded.Go {
		known += requests(outcome) + "\n"
	}
	for _, seen := range strings.Split(requests(outcome.String()), "\n") {
		if !strings.Contains(known, "\n"+seen+"\n") {
			return fmt.Sprintf("%q passed, which passes nowhere else", seen)
		}
	}
	return ""
}

// expectation is a field that the forward proxy has no use for further on: it answers it itself.
var expectation = regexp.MustCompile(` \{expect: "[^"]*"\}`)

// requests are those of an outcome that the function got whole, one per line.
func requests(outcome string) string {
	_, seen, _ := strings.Cut(class(outcome), " | ")
	var whole []string
	for _, request := range strings.Split(seen, " ; ") {
		if !strings.HasSuffix(request, " <reading>") {
			whole = append(whole, expectation.ReplaceAllString(request, ""))
		}
	}
	return strings.Join(whole, "\n")
}
