package interop

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"zipline.internal/interop/knative/internal/relay"
	"zipline.internal/interop/knative/internal/wire"
)

var upstream = []*scenario{
	{
		id: "K2.8-01", title: "the function is spoken to as the caller speaks, whatever the port is called",
		run: func(r *run) {
			r.function(func(w http.ResponseWriter, request *http.Request) {
				r.Note("function speaks", "%s", request.Proto)
				ok(w, request)
			})
			r.start("QUEUE_SERVING_PORT=8013", "ENABLE_HTTP2_AUTO_DETECTION=true")
			r.do("http1", wire.Request{})
			r.do("h2c", wire.Request{H2: true})
			r.do("http1 again", wire.Request{})
		},
		broken: replies("h2c status", func(r *http.Response) { r.StatusCode = 500 }),
	},
	{
		id: "K2.9-01", title: "connections to the function are kept and used again",
		run: func(r *run) {
			r.function(ok)
			r.start("SERVING_READINESS_PROBE=")
			for range 5 {
				r.do("reply", wire.Request{})
			}
			r.Note("connections", "%d", r.connections())
		},
		broken: passes("connections", func(r *http.Request) { r.Close = true }),
	},
	{
		id: "K2.9-02", title: "compressed answers pass as they are, and none are asked for",
		run: func(r *run) {
			var packed bytes.Buffer
			z := gzip.NewWriter(&packed)
			_, _ = io.WriteString(z, strings.Repeat("payload ", 500))
			z.Close()
			r.function(func(w http.ResponseWriter, request *http.Request) {
				r.saw(request)
				w.Header().Set("Content-Encoding", "gzip")
				_, _ = w.Write(packed.Bytes())
			})
			r.start()
			r.do("reply", wire.Request{})
			r.do("asked", wire.Request{H2: true, Header: []string{"Accept-Encoding: gzip"}})
		},
		broken: passes("header Accept-Encoding", func(r *http.Request) { r.Header.Set("Accept-Encoding", "gzip") }),
	},
	{
		id: "K2.9-03", title: "nobody at the function's port is 502 at once",
		run: func(r *run) {
			r.start()
			r.do("http1", wire.Request{Path: "/x"})
			r.do("h2c", wire.Request{H2: true, Method: "POST", Body: strings.NewReader("some"), Length: 4})
		},
		broken: status("http1 status", 503),
	},
	{
		id: "K2.9-04", title: "h2c requests share one connection to the function",
		run: func(r *run) {
			entered, release := make(chan struct{}, 64), make(chan struct{})
			r.function(func(w http.ResponseWriter, request *http.Request) {
				entered <- struct{}{}
				<-release
				ok(w, request)
			})
			r.start("SERVING_READINESS_PROBE=")
			// The first one lets the connection be made before there is a crowd.
			go func() { <-entered; release <- struct{}{} }()
			r.do("first", wire.Request{H2: true})
			var group sync.WaitGroup
			for range 20 {
				group.Go(func() { r.Do(wire.Request{Port: mainPort, H2: true}) })
			}
			for range 20 {
				happens(r, "function runs", entered)
			}
			r.Note("connections", "%d", r.connections())
			close(release)
			group.Wait()
		},
		broken: fault{key: "connections", behind: &relay.Hooks{Request: func(r *http.Request) { r.Close = true }}},
	},
	{
		id: "K2.9-05", title: "Expect: 100-continue goes through, and the body only after it",
		run: func(r *run) {
			r.function(func(w http.ResponseWriter, request *http.Request) {
				r.Note("function got Expect", "%s", request.Header.Get("Expect"))
				if request.URL.Path == "/refuse" {
					http.Error(w, "too large", http.StatusRequestEntityTooLarge)
					return
				}
				body, _ := io.ReadAll(request.Body)
				r.Note("function got body", "%q", body)
				ok(w, request)
			})
			r.start()
			c := r.connect(mainPort)
			c.say("POST /take HTTP/1.1\nHost: echo\nExpect: 100-continue\nContent-Length: 4\n\n")
			line, _ := c.ReadString('\n')
			r.Note("first answer", "%q", line)
			_, _ = c.ReadString('\n')
			c.say("body")
			c.answer("taken", "POST")
			c = r.connect(mainPort)
			c.say("POST /refuse HTTP/1.1\nHost: echo\nExpect: 100-continue\nContent-Length: 4\n\n")
			c.answer("refused", "POST")
		},
		broken: wireDown("first answer", mainPort, swap("100 Continue", "102 Continue")),
	},
	{
		id: "K2.10-01", title: "a WebSocket goes through, both ways",
		run: func(r *run) {
			r.function(socket(r, "websocket"))
			r.start()
			c := r.connect(mainPort)
			c.say("GET /ws?x=1 HTTP/1.1\nHost: echo\nConnection: keep-alive, Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\n" +
				"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\nSec-WebSocket-Protocol: chat\n\n")
			c.answer("upgrade", "GET")
			_, _ = io.WriteString(c.Conn, "later")
			echoed := make([]byte, 5)
			_ = c.SetReadDeadline(time.Now().Add(patience))
			_, err := io.ReadFull(c.Reader, echoed)
			r.Note("echo", "%q %s", echoed, wire.Class(err))
		},
		broken: wireBehind("echo", nil, swap("later", "LATER")),
	},
	{
		id: "K2.10-07", title: "an upgraded function that has no more to say may still listen",
		run: func(r *run) {
			r.function(func(w http.ResponseWriter, _ *http.Request) {
				conn, _, err := http.NewResponseController(w).Hijack()
				r.must(err)
				defer conn.Close()
				_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nlast words")
				_ = conn.(*net.TCPConn).CloseWrite()
				heard := make([]byte, 5)
				_ = conn.SetReadDeadline(time.Now().Add(patience))
				_, err = io.ReadFull(conn, heard)
				r.Note("function heard", "%q %s", heard, wire.Class(err))
			})
			r.start()
			c := r.connect(mainPort)
			c.say("GET / HTTP/1.1\nHost: echo\nConnection: Upgrade\nUpgrade: echo\n\n")
			c.answer("upgrade", "GET")
			words := make([]byte, 10)
			_, err := io.ReadFull(c.Reader, words)
			r.Note("words", "%q %s", words, wire.Class(err))
			_, err = c.Reader.ReadByte()
			r.Note("then", "%s", wire.Class(err))
			_, _ = io.WriteString(c.Conn, "still")
			r.until("function heard")
		},
		broken: wireBehind("function heard", swap("still", "STILL"), nil),
	},
	{
		id: "K2.10-08", title: "an upgraded caller that has no more to say",
		run: func(r *run) {
			r.function(socket(r, "echo"))
			r.start()
			c := r.connect(mainPort)
			c.say("GET / HTTP/1.1\nHost: echo\nConnection: Upgrade\nUpgrade: echo\n\n")
			c.answer("upgrade", "GET")
			r.must(c.Conn.(*net.TCPConn).CloseWrite())
			c.ends("after our end", patience)
		},
		broken: fault{key: "after our end", front: map[int]relay.Hooks{mainPort: {Conn: func(from, to net.Conn) {
			go func() { _, _ = io.Copy(to, from) }()
			_, _ = io.Copy(from, to)
		}}}},
	},
	{
		id: "K2.10-02", title: "any protocol that the function agrees to, in any case, is switched to",
		run: func(r *run) {
			r.function(socket(r, "MQTT"))
			r.start()
			c := r.connect(mainPort)
			c.say("GET / HTTP/1.1\nHost: echo\nConnection: upgrade\nUpgrade: mqtt\n\n")
			c.answer("upgrade", "GET")
		},
		broken: passes("upgrade status", func(r *http.Request) { r.Header.Del("Upgrade"); r.Header.Del("Connection") }),
	},
	{
		id: "K2.10-03", title: "a function that switches to another protocol than asked is 502",
		run: func(r *run) {
			r.function(socket(r, "other"))
			r.start()
			c := r.connect(mainPort)
			c.say("GET / HTTP/1.1\nHost: echo\nConnection: Upgrade\nUpgrade: websocket\n\n")
			c.answer("upgrade", "GET")
		},
		broken: wireDown("upgrade status", mainPort, swap("502 Bad", "500 Bad")),
	},
	{
		id: "K2.10-04", title: "Upgrade that Connection does not name is no upgrade",
		run: func(r *run) {
			r.function(r.echo)
			r.start()
			r.do("reply", wire.Request{Header: []string{"Upgrade: websocket"}})
			r.do("refused by the function", wire.Request{Header: []string{"Connection: Upgrade", "Upgrade: websocket"}})
		},
		broken: passes("header Upgrade", func(r *http.Request) { r.Header.Set("Upgrade", "websocket") }),
	},
	{
		id: "K2.10-05", title: "CONNECT goes to the function as any method",
		run: func(r *run) {
			r.function(r.echo)
			r.start()
			c := r.connect(mainPort)
			c.say("CONNECT echo.default:443 HTTP/1.1\nHost: echo.default:443\n\n")
			c.answer("reply", "CONNECT")
		},
		broken: wireDown("reply status", mainPort, swap("200 OK", "201 OK")),
	},
	{
		id: "K2.10-06", title: "h2c says its limits and offers no WebSockets over h2",
		run: func(r *run) {
			r.start()
			serverSettings(r)
		},
		broken: wireDown("setting MAX_CONCURRENT_STREAMS", mainPort, swap("\x00\x03\x00\x00\x00\xfa", "\x00\x03\x00\x00\x00\x64")),
	},
	{
		id: "K2.11-01", title: "the body of a request that upgrades to h2c arrives whole, as its length says",
		run: func(r *run) {
			r.function(r.echo)
			r.start()
			upgradeToH2(r, "PUT", strings.Repeat("0123456789", 6_000))
		},
		broken: passes("function got body", func(r *http.Request) { r.Body, r.ContentLength = http.NoBody, 0 }),
	},
	{
		id: "K2.11-02", title: "so does one that is longer than a first window",
		run: func(r *run) {
			r.function(r.echo)
			r.start()
			upgradeToH2(r, "PUT", strings.Repeat("0123456789", 30_000))
		},
		broken: passes("function got body", func(r *http.Request) { r.Body, r.ContentLength = http.NoBody, 0 }),
	},
	{
		id: "K2.12-01", title: "an early answer with much body still to come closes the connection",
		run:    func(r *run) { early(r, 64<<20) },
		broken: wireDown("early closes", mainPort, swap("Connection: close", "Connection: stays")),
	},
	{
		id: "K2.12-02", title: "an early answer with little body to come keeps the connection",
		run:    func(r *run) { early(r, 64<<10) },
		broken: replies("early", func(r *http.Response) { r.Close = true; r.Header.Set("Connection", "close") }),
	},
	{
		id: "K2.12-03", title: "with full duplex an answer begins while the request is still sent",
		run:    duplex(false, "ENABLE_HTTP_FULL_DUPLEX=true"),
		broken: settings("answer begins", "ENABLE_HTTP_FULL_DUPLEX", "false"),
	},
	{
		id: "K2.12-04", title: "h2c is always full duplex",
		run:    duplex(true),
		broken: fault{key: "answer begins", front: map[int]relay.Hooks{mainPort: {Answer: readAllFirst}}},
	},
}

// readAllFirst is half duplex: it takes the whole request before anything goes on.
func readAllFirst(_ http.ResponseWriter, r *http.Request) bool {
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	return false
}

// socket is a function that switches to a protocol and echoes until the other side ends.
func socket(r *run, protocol string) http.HandlerFunc {
	return func(w http.ResponseWriter, request *http.Request) {
		r.Note("function got", "%s %s", request.Method, request.RequestURI)
		for _, name := range []string{"Connection", "Upgrade", "Sec-Websocket-Key", "Sec-Websocket-Protocol", "Sec-Websocket-Version"} {
			r.Note("function got header "+name, "%s", request.Header.Get(name))
		}
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			r.Note("function", "%v", err)
			return
		}
		defer conn.Close()
		fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\nX-Function: yes\r\n\r\n", protocol)
		_, _ = io.Copy(conn, bufio.NewReader(buffered))
		_, _ = io.WriteString(conn, "bye")
	}
}

// early sends a request to a function that answers 413 without reading.
func early(r *run, length int) {
	r.function(func(w http.ResponseWriter, request *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.Header().Set("Content-Length", "10")
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		_, _ = io.WriteString(w, "too large\n")
		_ = http.NewResponseController(w).Flush()
		// It leaves the connection alone, so that no reset overtakes its answer.
		<-request.Context().Done()
	})
	r.start()
	c := r.connect(mainPort)
	c.say(fmt.Sprintf("POST /early HTTP/1.1\nHost: echo\nContent-Length: %d\n\n", length))
	go func() { _, _ = c.Conn.Write(make([]byte, length)) }()
	c.answer("early", "POST")
	c.stays("connection")
}

// duplex has a conversation in one request: each side waits for the other's last word.
func duplex(h2 bool, variables ...string) func(*run) {
	return func(r *run) {
		r.function(func(w http.ResponseWriter, request *http.Request) {
			_ = http.NewResponseController(w).EnableFullDuplex()
			buffer := make([]byte, 4)
			for {
				n, err := io.ReadFull(request.Body, buffer)
				if n > 0 {
					_, _ = fmt.Fprintf(w, "<%s>", buffer[:n])
					_ = http.NewResponseController(w).Flush()
				}
				if err != nil {
					return
				}
			}
		})
		r.start(variables...)
		reader, writer := io.Pipe()
		reply := make(chan *wire.Reply, 1)
		ctx, cancel := contextWithPatience()
		defer cancel()
		go func() { reply <- r.Open(ctx, wire.Request{Port: mainPort, H2: h2, Method: "POST", Body: reader}) }()
		go func() { _, _ = io.WriteString(writer, "ping") }()
		var got *wire.Reply
		select {
		case got = <-reply:
			r.Note("answer begins", "before the request ends: %s", wire.Class(got.Err))
		case <-time.After(2 * time.Second):
			r.Note("answer begins", "not before the request ends")
			writer.Close()
			got = <-reply
		}
		if got.Err != nil {
			return
		}
		first := make([]byte, 6)
		_, err := io.ReadFull(got.Response.Body, first)
		r.Note("first word", "%q %s", first, wire.Class(err))
		_, _ = io.WriteString(writer, "pong")
		_, err = io.ReadFull(got.Response.Body, first)
		r.Note("second word", "%q %s", first, wire.Class(err))
		writer.Close()
		got.Finish()
		got.Note(r.Observation, "reply")
	}
}
