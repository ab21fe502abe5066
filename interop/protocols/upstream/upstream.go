// Package upstream stands where the function would: it writes down what reaches it, byte by byte, and reads it as strictly
// as RFC 9112 allows. Whatever could be read in two ways is noted as such and never guessed at.
package upstream

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"
)

// Upstream is a server that records.
type Upstream struct {
	listener net.Listener

	// Host is what requests are expected to name; another one is shown.
	Host string

	mu    sync.Mutex
	seen  []*Request
	conns map[net.Conn]struct{}
	last  time.Time
}

// Request is one request as the upstream understood it.
type Request struct {
	// Line names method, target, and whatever else tells two readings apart.
	Line string
	// Body is the content so far.
	Body bytes.Buffer
	// Trailers are the fields after the body.
	Trailers string
	// State is how far it came: reading, whole or cut.
	State string
	// Ambiguous says what can be read in two ways; empty if nothing can.
	Ambiguous string
	// Serial is told to the client in X-Echo.
	Serial int

	conn net.Conn
}

// Start serves a listener.
func Start(listener net.Listener) *Upstream {
	upstream := &Upstream{listener: listener, Host: "t", conns: map[net.Conn]struct{}{}}
	go upstream.accept()
	return upstream
}

// Port is where it listens.
func (u *Upstream) Port() int { return u.listener.Addr().(*net.TCPAddr).Port }

// Close ends it with all its connections.
func (u *Upstream) Close() {
	u.listener.Close()
	u.mu.Lock()
	defer u.mu.Unlock()
	for conn := range u.conns {
		conn.Close()
	}
}

// Reset forgets everything, and closes connections with an unfinished request.
func (u *Upstream) Reset() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, request := range u.seen {
		if request.State == reading {
			request.conn.Close()
		}
	}
	u.seen = nil
}

// Seen is what came since the last Reset, in order, and when something last came.
func (u *Upstream) Seen() ([]string, time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	lines := make([]string, 0, len(u.seen))
	for _, request := range u.seen {
		// A proxy that invents a Host names this listener.
		lines = append(lines, strings.ReplaceAll(request.describe(), u.listener.Addr().String(), "upstream"))
	}
	return lines, u.last
}

// Serials are the serials of the requests that were whole, in order.
func (u *Upstream) Serials() []int {
	u.mu.Lock()
	defer u.mu.Unlock()
	var serials []int
	for _, request := range u.seen {
		if request.State == whole {
			serials = append(serials, request.Serial)
		}
	}
	return serials
}

const (
	reading = "reading"
	whole   = "whole"
	cut     = "cut"
)

// Longest body that is shown as it is.
const shownBody = 48

func (r *Request) describe() string {
	text := r.Line
	if r.Body.Len() > shownBody {
		text += fmt.Sprintf(" [%d bytes]", r.Body.Len())
	} else if r.Body.Len() > 0 {
		text += fmt.Sprintf(" %q", r.Body.String())
	}
	text += r.Trailers
	if r.State != whole {
		text += " <" + r.State + ">"
	}
	if r.Ambiguous != "" {
		text += " AMBIGUOUS(" + r.Ambiguous + ")"
	}
	return text
}

func (u *Upstream) accept() {
	for {
		conn, err := u.listener.Accept()
		if err != nil {
			return
		}
		u.mu.Lock()
		u.conns[conn] = struct{}{}
		u.mu.Unlock()
		go func() {
			u.serve(conn)
			conn.Close()
			u.mu.Lock()
			delete(u.conns, conn)
			u.mu.Unlock()
		}()
	}
}

func (u *Upstream) serve(conn net.Conn) {
	buffered := bufio.NewReaderSize(conn, 64<<10)
	preface, _ := buffered.Peek(4)
	if bytes.HasPrefix([]byte(http2.ClientPreface), preface) && len(preface) == 4 {
		u.serve2(conn, buffered)
		return
	}
	for u.serve1(conn, buffered) {
	}
}

// begin notes a request whose head was read.
func (u *Upstream) begin(conn net.Conn, line, ambiguous string) *Request {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.last = time.Now()
	request := &Request{Line: line, Ambiguous: ambiguous, State: reading, Serial: len(u.seen), conn: conn}
	u.seen = append(u.seen, request)
	return request
}

// note changes a request under the lock.
func (u *Upstream) note(change func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.last = time.Now()
	change()
}

// blame marks a request as readable in two ways.
func (u *Upstream) blame(request *Request, what string) {
	u.note(func() {
		request.State = cut
		if request.Ambiguous == "" {
			request.Ambiguous = what
		}
	})
}

var errStop = errors.New("no further request can be told from this one")

// copyBody takes `length` bytes of content.
func (u *Upstream) copyBody(from io.Reader, length int64, request *Request) error {
	chunk := make([]byte, 32<<10)
	for length > 0 {
		read, err := from.Read(chunk[:min(int64(len(chunk)), length)])
		u.note(func() { request.Body.Write(chunk[:read]) })
		length -= int64(read)
		if err != nil {
			return err
		}
	}
	return nil
}
