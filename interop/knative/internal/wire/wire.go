// Package wire speaks to a queue-proxy as its callers do and says what came back, down to trailers and how bodies ended.
package wire

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"slices"
	"sort"
	"strings"
	"syscall"
	"time"

	"zipline.internal/interop/knative/internal/fact"
)

// Dial connects to a port of the queue-proxy.
type Dial func(port int) (net.Conn, error)

// Request is what a caller sends.
type Request struct {
	Port     int
	H2       bool
	Method   string
	Path     string
	Host     string
	Header   []string // "Name: value", in order
	Body     io.Reader
	Length   int64 // of Body; 0 means unknown when Body is set
	Trailer  http.Header
	Patience time.Duration
}

// Reply is what came back.
type Reply struct {
	Informational []string
	Response      *http.Response
	Body          []byte
	BodyErr       error
	Err           error
}

// Client is a caller with its own connections.
type Client struct {
	dial Dial
	http map[key]*http.Transport
}

type key struct {
	port int
	h2   bool
}

// NewClient returns a caller without connections yet.
func NewClient(dial Dial) *Client { return &Client{dial: dial, http: map[key]*http.Transport{}} }

// Close closes idle connections.
func (c *Client) Close() {
	for _, t := range c.http {
		t.CloseIdleConnections()
	}
}

// Transport returns the client's transport for a port; not safe for concurrent first use.
func (c *Client) Transport(port int, h2 bool) *http.Transport {
	if t, ok := c.http[key{port, h2}]; ok {
		return t
	}
	var protocols http.Protocols
	protocols.SetHTTP1(!h2)
	protocols.SetUnencryptedHTTP2(h2)
	t := &http.Transport{
		Protocols:             &protocols,
		DisableCompression:    true,
		MaxIdleConnsPerHost:   64,
		ExpectContinueTimeout: 5 * time.Second,
		DialContext:           func(context.Context, string, string) (net.Conn, error) { return c.dial(port) },
	}
	c.http[key{port, h2}] = t
	return t
}

// Build turns r into a request for net/http.
func (r Request) Build(ctx context.Context) (*http.Request, error) {
	method := r.Method
	if method == "" {
		method = http.MethodGet
	}
	host := r.Host
	if host == "" {
		host = "echo.default.example.com"
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://"+host, r.Body)
	if err != nil {
		return nil, err
	}
	path := r.Path
	if path == "" {
		path = "/"
	}
	if request.URL, err = url.Parse("http://" + host); err != nil {
		return nil, err
	}
	// Opaque keeps the path as it was written.
	if before, query, ok := strings.Cut(path, "?"); ok {
		request.URL.Opaque, request.URL.RawQuery = before, query
	} else {
		request.URL.Opaque = path
	}
	if r.Length > 0 {
		request.ContentLength = r.Length
	}
	request.Trailer = r.Trailer
	request.Header["User-Agent"] = nil
	for _, line := range r.Header {
		name, value, _ := strings.Cut(line, ":")
		name, value = textproto.CanonicalMIMEHeaderKey(name), strings.TrimSpace(value)
		if request.Header[name] == nil {
			request.Header[name] = []string{value}
		} else {
			request.Header.Add(name, value)
		}
	}
	return request, nil
}

// Open sends r and returns when the head of the answer is there; the body is unread.
func (c *Client) Open(ctx context.Context, r Request) *Reply {
	reply := &Reply{}
	trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
		reply.Informational = append(reply.Informational, fmt.Sprintf("%d %v", code, Headers(http.Header(header))))
		return nil
	}}
	request, err := r.Build(httptrace.WithClientTrace(ctx, trace))
	if err != nil {
		reply.Err = err
		return reply
	}
	reply.Response, reply.Err = c.Transport(r.Port, r.H2).RoundTrip(request)
	return reply
}

// Do sends r and reads the whole answer.
func (c *Client) Do(r Request) *Reply {
	patience := r.Patience
	if patience == 0 {
		patience = 10 * time.Second
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	reply := c.Open(ctx, r)
	reply.Finish()
	return reply
}

// Finish reads the rest of the answer.
func (r *Reply) Finish() {
	if r.Err != nil {
		return
	}
	var body bytes.Buffer
	_, r.BodyErr = io.Copy(&body, r.Response.Body)
	r.Body = append(r.Body, body.Bytes()...)
	r.Response.Body.Close()
}

// Status is the status code, 0 if there is none.
func (r *Reply) Status() int {
	if r.Err != nil {
		return 0
	}
	return r.Response.StatusCode
}

// Note writes down all of a finished answer.
func (r *Reply) Note(o *fact.Observation, name string) {
	// One of several equal ones says as much: Knative's server says 100 once or twice as its reads and writes happen to fall.
	for _, head := range slices.Compact(slices.Clone(r.Informational)) {
		o.Note(name+" informational", "%s", head)
	}
	if r.Err != nil {
		o.Note(name+" error", "%s", Class(r.Err))
		return
	}
	o.Note(name+" status", "%s %d", r.Response.Proto, r.Response.StatusCode)
	// The text of a failure to reach the function is for people; that it is one line of plain text is not.
	failure := r.Response.StatusCode == http.StatusBadGateway && r.Response.Header.Get("X-Content-Type-Options") != "" &&
		bytes.Count(r.Body, []byte("\n")) == 1 && bytes.HasSuffix(r.Body, []byte("\n")) && int(r.Response.ContentLength) == len(r.Body)
	if failure {
		r.Body, r.Response.ContentLength = []byte("(why)\n"), 6
		r.Response.Header.Set("Content-Length", "6")
	}
	for _, line := range Headers(r.Response.Header) {
		header, value, _ := strings.Cut(line, ": ")
		o.Note(name+" header "+header, "%s", value)
	}
	framing := "to the end of the connection"
	switch {
	case len(r.Response.TransferEncoding) > 0:
		framing = strings.Join(r.Response.TransferEncoding, ", ")
	case r.Response.ContentLength >= 0:
		framing = fmt.Sprintf("length %d", r.Response.ContentLength)
	case r.Response.ProtoMajor == 2:
		framing = "frames"
	}
	o.Note(name+" framing", "%s", framing)
	if r.Response.ProtoMajor == 1 {
		o.Note(name+" closes", "%v", r.Response.Close)
	}
	o.Note(name+" body", "%s", Text(r.Body))
	o.Note(name+" body end", "%s", Class(r.BodyErr))
	for _, line := range Headers(r.Response.Trailer) {
		o.Note(name+" trailer", "%s", line)
	}
}

// Headers are canonical lines in the order of their names. What must differ between two runs is replaced.
func Headers(header http.Header) []string {
	var lines []string
	for name, values := range header {
		value := strings.Join(values, " | ")
		if name == "Date" {
			value = "(not a date)"
			if len(values) == 1 {
				if _, err := http.ParseTime(values[0]); err == nil {
					value = "(a date)"
				}
			}
		}
		lines = append(lines, name+": "+value)
	}
	sort.Strings(lines)
	return lines
}

// Text shows short bodies as they are and long ones by length and digest.
func Text(body []byte) string {
	if len(body) <= 300 {
		return fmt.Sprintf("%q", body)
	}
	return fmt.Sprintf("%d bytes, %x", len(body), sha256.Sum256(body))
}

// Class says how something failed, without what may differ between two runs.
func Class(err error) string {
	var timeout net.Error
	switch {
	case err == nil:
		return "complete"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "never ended"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case strings.Contains(err.Error(), "stream error"):
		_, code, _ := strings.Cut(err.Error(), "; ")
		return "stream error " + strings.TrimSuffix(code, "; received from peer")
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		strings.Contains(err.Error(), "server closed idle connection"),
		strings.Contains(err.Error(), "client connection lost"):
		return "cut"
	}
	return err.Error()
}
