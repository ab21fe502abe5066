package interop

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"zipline.internal/interop/knative/internal/wire"
)

// rawConn is a connection on which a scenario says exactly what it means.
type rawConn struct {
	net.Conn
	*bufio.Reader
	r *run
}

// connect opens a connection to a port of the queue-proxy.
func (r *run) connect(port int) *rawConn {
	conn, err := r.dial(port)
	r.must(err)
	r.later(func() { conn.Close() })
	return &rawConn{conn, bufio.NewReader(conn), r}
}

// Read reads what was buffered first.
func (c *rawConn) Read(b []byte) (int, error) { return c.Reader.Read(b) }

// say writes text; a line feed alone becomes the end of a line as HTTP wants it.
func (c *rawConn) say(text string) {
	_, _ = io.WriteString(c.Conn, strings.ReplaceAll(text, "\n", "\r\n"))
}

// answer reads one answer to a request of this method and notes it.
func (c *rawConn) answer(name, method string) *http.Response {
	_ = c.SetReadDeadline(time.Now().Add(patience))
	defer c.SetReadDeadline(time.Time{})
	response, err := http.ReadResponse(c.Reader, &http.Request{Method: method})
	reply := &wire.Reply{Response: response, Err: err}
	if err == nil && response.StatusCode == http.StatusSwitchingProtocols {
		// Whether a 101 has a date is of no consequence.
		response.Header.Del("Date")
		reply.Note(c.r.Observation, name)
		return response
	}
	reply.Finish()
	reply.Note(c.r.Observation, name)
	return response
}

// stays notes whether the other side keeps the connection open.
func (c *rawConn) stays(name string) {
	c.r.Note(name, "%s", c.state(300*time.Millisecond))
}

// ends waits for the other side to close and notes whether it did.
func (c *rawConn) ends(name string, patience time.Duration) {
	c.r.Note(name, "%s", c.state(patience))
}

func (c *rawConn) state(patience time.Duration) string {
	_ = c.SetReadDeadline(time.Now().Add(patience))
	defer c.SetReadDeadline(time.Time{})
	rest, err := io.ReadAll(io.LimitReader(c.Reader, 1<<20))
	said := ""
	if len(rest) > 0 {
		said = " after " + wire.Text(rest)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return "open" + said
	}
	return "closed" + said
}

// contextWithPatience bounds what only a broken queue-proxy makes long.
func contextWithPatience() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), patience)
}
