package interop

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"time"

	"zipline.internal/interop/knative/internal/wire"
)

// function starts the function of the run on the usual port.
func (r *run) function(handler http.HandlerFunc) { r.functionOn(userPort, handler) }

// functionOn starts a function that speaks HTTP/1 and h2c and keeps what it was sent.
func (r *run) functionOn(port int, handler http.HandlerFunc) *http.Server {
	listener, err := r.namespace.Listen(port)
	r.must(err)
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{
		Handler:   handler,
		Protocols: &protocols,
		ErrorLog:  log.New(io.Discard, "", 0),
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				r.mu.Lock()
				r.connected++
				r.mu.Unlock()
			}
		},
	}
	go func() { _ = server.Serve(listener) }()
	r.later(func() { server.Close() })
	return server
}

// saw notes what the function was sent, body included.
func (r *run) saw(request *http.Request) {
	body, err := io.ReadAll(request.Body)
	r.Note("function got", "%s %s %s", request.Method, request.RequestURI, request.Proto)
	r.Note("function got host", "%s", request.Host)
	for _, line := range wire.Headers(request.Header) {
		name, value, _ := strings.Cut(line, ": ")
		// A length of nothing says nothing that the framing does not say.
		if name == "Content-Length" && value == "0" {
			continue
		}
		r.Note("function got header "+name, "%s", value)
	}
	framing := fmt.Sprintf("length %d", request.ContentLength)
	if request.ContentLength < 0 {
		framing = "unknown length"
	}
	r.Note("function got framing", "%s", framing)
	r.Note("function got body", "%s, %s", wire.Text(body), wire.Class(err))
	for _, line := range wire.Headers(request.Trailer) {
		r.Note("function got trailer", "%s", line)
	}
}

// echo notes what the function was sent and answers 200.
func (r *run) echo(w http.ResponseWriter, request *http.Request) {
	r.saw(request)
	ok(w, request)
}

// happens notes whether a channel is ready before patience ends.
func happens[T any](r *run, what string, ready <-chan T) bool {
	select {
	case <-ready:
		r.Note(what, "yes")
		return true
	case <-time.After(r.patience()):
		r.given = true
		r.Note(what, "no")
		return false
	}
}

// patience is how long a run waits; one that has waited in vain already knows enough.
func (r *run) patience() time.Duration {
	if r.given {
		return 20 * time.Millisecond
	}
	return patience
}

// within notes whether a condition comes true before patience ends.
func (r *run) within(what string, condition func() bool) bool {
	deadline := time.Now().Add(r.patience())
	for !condition() {
		if time.Now().After(deadline) {
			r.given = true
			r.Note(what, "no")
			return false
		}
		time.Sleep(5 * time.Millisecond)
	}
	r.Note(what, "yes")
	return true
}

// counter counts calls of the function.
func (r *run) connections() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.connected
}

// until waits for a fact that the function notes, for a while.
func (r *run) until(key string) {
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		for _, f := range r.Facts() {
			if f.Key == key {
				return
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
}
