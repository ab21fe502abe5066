// Package corpus sends malformed and smuggled requests to a proxy and compares what its function sees with what Go's
// proxy lets a function see.
package corpus

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"zipline.internal/interop/protocols/upstream"
)

// How long nothing may come before an exchange counts as over. Only its end depends on it, and an end that is not the
// expected one is waited for longer.
var quiet = 250 * time.Millisecond

// Outcome is what an exchange looked like from both sides of the proxy.
type Outcome struct {
	// Statuses of the responses in order, the interim ones included.
	Statuses []int
	// Echoes are the serials of the upstream's requests that the responses answer; -1: the proxy's own answer.
	Echoes []int
	// End is open, closed or reset.
	End string
	// Garbage is what came and is no response.
	Garbage string
	// Upstream is what the function saw.
	Upstream []string
}

// String is the form that stands in outcomes.txt.
func (o Outcome) String() string {
	var statuses []string
	for _, status := range o.Statuses {
		statuses = append(statuses, strconv.Itoa(status))
	}
	client := strings.Join(statuses, ",")
	if client == "" {
		client = "nothing"
	}
	if o.Garbage != "" {
		client += " GARBAGE"
	}
	seen := "-"
	if len(o.Upstream) > 0 {
		seen = strings.Join(o.Upstream, " ; ")
	}
	return client + " " + o.End + " | " + seen
}

// exchange1 sends raw bytes over a connection and watches until nothing more happens, or until `expected` says
// that this is how it is to look like.
func exchange1(conn net.Conn, send []byte, headOnly bool, up *upstream.Upstream, expected func(Outcome) bool) Outcome {
	heard := &heard{last: time.Now(), end: "open"}
	go heard.listen(conn)
	go func() {
		// A server that has answered need not read the rest.
		conn.Write(send)
		heard.touch()
	}()
	deadline := time.Now().Add(patience)
	for {
		outcome := heard.outcome(headOnly)
		seen, last := up.Seen()
		outcome.Upstream = seen
		still := time.Since(heard.lastTime()) > quiet && time.Since(last) > quiet
		if still && expected(outcome) || time.Now().After(deadline) {
			return outcome
		}
		time.Sleep(5 * time.Millisecond)
	}
}

type heard struct {
	mu   sync.Mutex
	all  bytes.Buffer
	last time.Time
	end  string
}

func (h *heard) touch() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last = time.Now()
}

func (h *heard) lastTime() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last
}

func (h *heard) listen(conn net.Conn) {
	chunk := make([]byte, 64<<10)
	for {
		read, err := conn.Read(chunk)
		h.mu.Lock()
		h.all.Write(chunk[:read])
		h.last = time.Now()
		if err != nil {
			h.end = "closed"
			h.mu.Unlock()
			return
		}
		h.mu.Unlock()
	}
}

func (h *heard) outcome(headOnly bool) Outcome {
	h.mu.Lock()
	defer h.mu.Unlock()
	outcome := Outcome{End: h.end}
	from := bufio.NewReader(bytes.NewReader(h.all.Bytes()))
	for {
		status, echo, err := readResponse(from, headOnly)
		if err == errNothing {
			return outcome
		}
		if err != nil {
			outcome.Garbage = err.Error()
			return outcome
		}
		outcome.Statuses = append(outcome.Statuses, status)
		if status >= 200 || status == 101 {
			outcome.Echoes = append(outcome.Echoes, echo)
		}
	}
}

var errNothing = fmt.Errorf("nothing more")

// readResponse reads one response of which everything must be there.
func readResponse(from *bufio.Reader, headOnly bool) (status, echo int, err error) {
	line, err := from.ReadString('\n')
	if line == "" {
		return 0, 0, errNothing
	}
	words := strings.SplitN(strings.TrimRight(line, "\r\n"), " ", 3)
	if err != nil || len(words) < 2 || !strings.HasPrefix(words[0], "HTTP/1.") {
		return 0, 0, fmt.Errorf("%.40q", line)
	}
	status, err = strconv.Atoi(words[1])
	if err != nil {
		return 0, 0, fmt.Errorf("%.40q", line)
	}
	echo = -1
	length, chunked, noBody := -1, false, headOnly || status < 200 || status == 204 || status == 304
	for {
		line, err := from.ReadString('\n')
		if err != nil {
			return 0, 0, fmt.Errorf("a cut head of %d", status)
		}
		line = strings.TrimRight(line, "\r\n")
		if line == "" {
			break
		}
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch strings.ToLower(name) {
		case "content-length":
			length, _ = strconv.Atoi(value)
		case "transfer-encoding":
			chunked = value == "chunked"
		case "x-echo":
			echo, _ = strconv.Atoi(value)
		case "x-echo-method":
			noBody = noBody || value == "HEAD"
		}
	}
	switch {
	case noBody:
		return status, echo, nil
	case chunked:
		err = skipChunks(from)
	case length >= 0:
		_, err = from.Discard(length)
	default:
		// To the connection's end.
		_, err = from.WriteTo(&bytes.Buffer{})
	}
	if err != nil {
		return 0, 0, fmt.Errorf("a cut body of %d", status)
	}
	return status, echo, nil
}

func skipChunks(from *bufio.Reader) error {
	for {
		line, err := from.ReadString('\n')
		if err != nil {
			return err
		}
		size, err := strconv.ParseUint(strings.TrimSpace(line), 16, 32)
		if err != nil {
			return err
		}
		if size == 0 {
			for line != "\r\n" {
				if line, err = from.ReadString('\n'); err != nil {
					return err
				}
			}
			return nil
		}
		if _, err := from.Discard(int(size) + 2); err != nil {
			return err
		}
	}
}
