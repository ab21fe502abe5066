package interop

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"zipline.internal/interop/knative/internal/wire"
)

// hangs is a function that does something first and then nothing until its request is taken back.
func hangs(r *run, first func(w http.ResponseWriter)) http.HandlerFunc {
	return func(w http.ResponseWriter, request *http.Request) {
		_, _ = io.Copy(io.Discard, request.Body)
		if first != nil {
			first(w)
		}
		select {
		case <-request.Context().Done():
			r.Note("function's request", "taken back")
		case <-time.After(patience):
			r.Note("function's request", "left alone")
		}
	}
}

func sends(text string, header ...string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		_, _ = io.WriteString(w, text)
		_ = http.NewResponseController(w).Flush()
	}
}

// late is a function that hangs under timers; both protocols are asked.
func late(first func(w http.ResponseWriter), variables ...string) func(*run) {
	return func(r *run) {
		r.function(hangs(r, first))
		r.start(variables...)
		r.do("http1", wire.Request{Path: "/late"})
		r.finished(1)
		r.do("h2c", wire.Request{H2: true, Path: "/late"})
		r.finished(2)
	}
}

// finished waits until the function has noted the end of so many requests.
func (r *run) finished(n int) {
	deadline := time.Now().Add(patience + time.Second)
	for time.Now().Before(deadline) {
		count := 0
		for _, f := range r.Facts() {
			if strings.HasPrefix(f.Key, "function's request") {
				count++
			}
		}
		if count >= n {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// upgraded is a WebSocket under timers.
func upgraded(variables ...string) func(*run) {
	return func(r *run) {
		r.function(func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer conn.Close()
			_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			// It speaks all the time, so nothing here is idle.
			for range 100 {
				if _, err := io.WriteString(conn, "."); err != nil {
					break
				}
				time.Sleep(50 * time.Millisecond)
			}
			r.Note("function's end", "closed")
		})
		r.start(variables...)
		c := r.connect(mainPort)
		c.say("GET /ws HTTP/1.1\nHost: echo\nConnection: Upgrade\nUpgrade: websocket\n\n")
		c.answer("upgrade", "GET")
		_ = c.SetReadDeadline(time.Now().Add(3 * time.Second))
		got, err := io.ReadAll(c.Reader)
		r.Note("connection", "%s", wire.Class(err))
		r.Note("said at the end", "%q", strings.Trim(string(got), "."))
	}
}

var timeouts = []*scenario{
	{
		id: "K3.2.1-01", title: "timeout before the head: 504 with its text, and the function's request is taken back",
		run:    late(nil, "REVISION_TIMEOUT_SECONDS=1"),
		broken: status("http1 status", 503),
	},
	{
		id: "K3.2.1-02", title: "timeout in the body: the text is appended and the answer ends cleanly",
		run:    late(sends("begun,"), "REVISION_TIMEOUT_SECONDS=1"),
		broken: text("http1 body", "begun,"),
	},
	{
		id: "K3.2.1-03", title: "timeout in a body of known length: it ends short",
		run:    late(sends("begun,", "Content-Length", "1000"), "REVISION_TIMEOUT_SECONDS=1"),
		broken: fault{key: "http1", env: map[string]string{"REVISION_TIMEOUT_SECONDS": "3000"}},
	},
	{
		id: "K3.2.1-04", title: "a timeout of 0 ends every request at once",
		run: func(r *run) {
			r.function(func(w http.ResponseWriter, request *http.Request) { <-request.Context().Done() })
			r.start("REVISION_TIMEOUT_SECONDS=0")
			r.do("reply", wire.Request{})
		},
		broken: text("reply body", "too late"),
	},
	{
		id: "K3.2.1-05", title: "waiting in the breaker counts as time of the request",
		run: func(r *run) {
			entered := make(chan struct{}, 16)
			r.function(func(_ http.ResponseWriter, request *http.Request) {
				entered <- struct{}{}
				<-request.Context().Done()
			})
			r.start("CONTAINER_CONCURRENCY=1", "REVISION_TIMEOUT_SECONDS=2")
			long := make(chan *wire.Reply, 1)
			r.Transport(mainPort, false)
			go func() { long <- r.Do(wire.Request{Port: mainPort, Path: "/long"}) }()
			happens(r, "function runs", entered)
			c := r.connect(mainPort)
			c.say("GET /waiting HTTP/1.1\nHost: echo\n\n")
			(<-long).Note(r.Observation, "long")
			c.answer("waiting", "GET")
		},
		broken: text("long body", "timeout"),
	},
	{
		id: "K3.2.1-06", title: "a timed-out request gives its slot back",
		run: func(r *run) {
			r.function(func(w http.ResponseWriter, request *http.Request) {
				if request.URL.Path == "/long" {
					<-request.Context().Done()
					return
				}
				ok(w, request)
			})
			r.start("CONTAINER_CONCURRENCY=1", "REVISION_TIMEOUT_SECONDS=1")
			for range 2 {
				r.do("long", wire.Request{Path: "/long"})
				r.do("next", wire.Request{})
			}
		},
		broken: answers("next status", limited(4), 504, "request timeout"),
	},
	{
		id: "K3.2.1-07", title: "inside the timeout nothing happens",
		run: func(r *run) {
			r.function(r.echo)
			r.start("REVISION_TIMEOUT_SECONDS=5", "REVISION_RESPONSE_START_TIMEOUT_SECONDS=4", "REVISION_IDLE_TIMEOUT_SECONDS=3")
			r.do("reply", wire.Request{Method: "POST", Body: strings.NewReader("x"), Length: 1})
		},
		broken: settings("reply status", "REVISION_TIMEOUT_SECONDS", "0"),
	},
	{
		id: "K3.2.2-01", title: "response start: 504 if neither head nor byte came",
		run:    late(nil, "REVISION_RESPONSE_START_TIMEOUT_SECONDS=1"),
		broken: settings("http1", "REVISION_RESPONSE_START_TIMEOUT_SECONDS", "0"),
	},
	{
		id: "K3.2.2-02", title: "response start: once begun the answer may take its time",
		run: func(r *run) {
			r.function(slowly(3, 600*time.Millisecond))
			r.start("REVISION_RESPONSE_START_TIMEOUT_SECONDS=1")
			r.do("reply", wire.Request{})
		},
		broken: settings("reply body", "REVISION_TIMEOUT_SECONDS", "1"),
	},
	{
		id: "K3.2.2-03", title: "response start: an upload that takes longer trips it",
		run: func(r *run) {
			r.function(func(_ http.ResponseWriter, request *http.Request) { <-request.Context().Done() })
			r.start("REVISION_RESPONSE_START_TIMEOUT_SECONDS=1")
			reader, writer := io.Pipe()
			defer writer.Close()
			r.do("reply", wire.Request{Method: "POST", Body: reader, H2: true, Patience: 4 * time.Second})
		},
		broken: settings("reply", "REVISION_RESPONSE_START_TIMEOUT_SECONDS", "9"),
	},
	{
		id: "K3.2.3-01", title: "idle: nothing ever written ends at the idle time with 504",
		run:    late(nil, "REVISION_IDLE_TIMEOUT_SECONDS=1"),
		broken: settings("http1", "REVISION_IDLE_TIMEOUT_SECONDS", "0"),
	},
	{
		id: "K3.2.3-02", title: "idle: silence in the body ends it with the text appended",
		run:    late(sends("begun,"), "REVISION_IDLE_TIMEOUT_SECONDS=1"),
		broken: text("h2c body", "begun,"),
	},
	{
		id: "K3.2.3-03", title: "idle: steady bytes keep it alive beyond the idle time",
		run: func(r *run) {
			r.function(slowly(4, 500*time.Millisecond))
			r.start("REVISION_IDLE_TIMEOUT_SECONDS=1")
			r.do("reply", wire.Request{})
		},
		broken: settings("reply body", "REVISION_TIMEOUT_SECONDS", "1"),
	},
	{
		id: "K3.2.3-04", title: "idle: bytes of the request do not count",
		run: func(r *run) {
			r.function(func(_ http.ResponseWriter, request *http.Request) { <-request.Context().Done() })
			r.start("REVISION_IDLE_TIMEOUT_SECONDS=1")
			reader, writer := io.Pipe()
			stop := make(chan struct{})
			defer close(stop)
			go func() {
				defer writer.Close()
				for {
					select {
					case <-stop:
						return
					case <-time.After(100 * time.Millisecond):
						if _, err := writer.Write([]byte("x")); err != nil {
							return
						}
					}
				}
			}()
			r.do("reply", wire.Request{Method: "POST", Body: reader, H2: true, Patience: 4 * time.Second})
		},
		broken: settings("reply", "REVISION_IDLE_TIMEOUT_SECONDS", "9"),
	},
	{
		id: "K3.2.4-01", title: "WebSocket: the timeout is an absolute end, without a word",
		run:    upgraded("REVISION_TIMEOUT_SECONDS=1"),
		broken: settings("connection", "REVISION_TIMEOUT_SECONDS", "300"),
	},
	{
		id: "K3.2.4-02", title: "WebSocket: so is the response start timeout",
		run:    upgraded("REVISION_RESPONSE_START_TIMEOUT_SECONDS=1"),
		broken: settings("connection", "REVISION_RESPONSE_START_TIMEOUT_SECONDS", "0"),
	},
	{
		id: "K3.2.4-03", title: "WebSocket: so is the idle timeout, however busy it is",
		run:    upgraded("REVISION_IDLE_TIMEOUT_SECONDS=1"),
		broken: settings("connection", "REVISION_IDLE_TIMEOUT_SECONDS", "0"),
	},
}

// slowly is a function that writes so many bytes with pauses between.
func slowly(n int, pause time.Duration) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		for i := range n {
			if i > 0 {
				time.Sleep(pause)
			}
			fmt.Fprint(w, i)
			_ = http.NewResponseController(w).Flush()
		}
	}
}
