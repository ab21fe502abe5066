package interop

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"sort"
	"strings"

	"zipline.internal/interop/knative/internal/relay"
	"zipline.internal/interop/knative/internal/wire"
)

// asks sends one request by both protocols to a function that shows what it got.
func asks(request wire.Request) func(*run) {
	return func(r *run) {
		r.function(r.echo)
		r.start()
		r.do("http1", request)
		over2 := request
		over2.H2 = true
		r.do("h2c", over2)
	}
}

// replying asks a function that answers in its own way, by both protocols.
func replying(handler http.HandlerFunc) func(*run) {
	return func(r *run) {
		r.function(handler)
		r.start()
		r.do("http1", wire.Request{Path: "/r"})
		r.do("h2c", wire.Request{Path: "/r", H2: true})
	}
}

// rawFunction answers bytes as they are to each connection, once a head has arrived.
func (r *run) rawFunction(answer string, close bool) {
	listener, err := r.namespace.Listen(userPort)
	r.must(err)
	r.later(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				buffer, head := make([]byte, 4096), []byte(nil)
				for !bytes.Contains(head, []byte("\r\n\r\n")) {
					n, err := conn.Read(buffer)
					if err != nil {
						return
					}
					head = append(head, buffer[:n]...)
				}
				lines := strings.Split(strings.TrimSpace(string(head)), "\r\n")
				sort.Strings(lines[1:])
				r.Note("function got lines", "%q", lines)
				_, _ = io.WriteString(conn, answer)
				if close {
					if tcp, ok := conn.(*net.TCPConn); ok {
						_ = tcp.CloseWrite()
					}
				}
				_, _ = io.Copy(io.Discard, conn)
			}()
		}
	}()
}

// raw asks once over HTTP/1.1 a function that answers these bytes.
func raw(answer string, close bool) func(*run) {
	return func(r *run) {
		r.rawFunction(answer, close)
		r.start("SERVING_READINESS_PROBE=")
		r.do("reply", wire.Request{Path: "/r"})
	}
}

var forwarding = []*scenario{
	{
		id: "K3.5.1-01", title: "path and query reach the function as they were written",
		run: func(r *run) {
			r.function(r.echo)
			r.start()
			for _, path := range []string{"//two//slashes", "/a/../b/./c", "/%2F%41", "/sp%20ace+plus;semi", "/q?a=1;b=2&c=%zz&d", "/q?", "*"} {
				c := r.connect(mainPort)
				c.say("GET " + path + " HTTP/1.1\nHost: a.b\n\n")
				c.answer(path, "GET")
			}
		},
		broken: passes("function got #3", func(r *http.Request) { r.URL.Path, r.URL.RawPath = "/cleaned", "" }),
	},
	{
		id: "K3.5.1-02", title: "any method and a body of any kind",
		run: func(r *run) {
			r.function(r.echo)
			r.start()
			for _, h2 := range []bool{false, true} {
				r.do("put", wire.Request{H2: h2, Method: "PUT", Body: strings.NewReader("known"), Length: 5})
				r.do("unknown length", wire.Request{H2: h2, Method: "POST", Body: io.MultiReader(strings.NewReader("parts "), strings.NewReader("of it"))})
				r.do("delete with a body", wire.Request{H2: h2, Method: "DELETE", Body: strings.NewReader("d"), Length: 1})
				r.do("own method", wire.Request{H2: h2, Method: "BREW", Path: "/pot"})
				r.do("empty post", wire.Request{H2: h2, Method: "POST"})
				r.do("head", wire.Request{H2: h2, Method: "HEAD"})
				r.do("options", wire.Request{H2: h2, Method: "OPTIONS"})
			}
		},
		broken: passes("function got body", func(r *http.Request) { r.Body, r.ContentLength = http.NoBody, 0 }),
	},
	{
		id: "K3.5.1-03", title: "the Host stays as the caller wrote it",
		run:    asks(wire.Request{Host: "Some-Name.Example:8443"}),
		broken: passes("got host", func(r *http.Request) { r.Host = "127.0.0.1:8080" }),
	},
	{
		id: "K3.5.1-04", title: "16 MiB go through both ways unchanged",
		run: func(r *run) {
			r.function(func(w http.ResponseWriter, request *http.Request) {
				body, err := io.ReadAll(request.Body)
				r.Note("function got", "%s %s", wire.Text(body), wire.Class(err))
				_, _ = w.Write(body)
			})
			r.start()
			payload := make([]byte, 16<<20)
			for i := range payload {
				payload[i] = byte(i * i >> 7)
			}
			for _, h2 := range []bool{false, true} {
				r.do("known", wire.Request{H2: h2, Method: "POST", Body: bytes.NewReader(payload), Length: int64(len(payload))})
				r.do("unknown", wire.Request{H2: h2, Method: "POST", Body: io.MultiReader(bytes.NewReader(payload))})
			}
		},
		broken: replies("known body", func(r *http.Response) {
			r.Body = io.NopCloser(io.LimitReader(r.Body, 16<<20-1))
			r.ContentLength = 16<<20 - 1
		}),
	},
	{
		id: "K3.5.2-01", title: "headers for the activator's eyes are taken out, others of Knative stay",
		run: asks(wire.Request{Header: []string{
			"Knative-Serving-Revision: echo-00001", "Knative-Serving-Namespace: default", "K-Proxy-Request: activator", "K-Passthrough-Lb: true",
			"K-Network-Hash: 5", "Knative-Serving-Tag: blue", "Knative-Serving-Default-Route: true", "X-Request-Id: 7",
		}}),
		broken: passes("Knative-Serving-Revision", func(r *http.Request) { r.Header.Set("Knative-Serving-Revision", "echo-00001") }),
	},
	{
		id: "K3.5.3-01", title: "headers of one hop are taken out of requests",
		run: func(r *run) {
			r.function(r.echo)
			r.start()
			c := r.connect(mainPort)
			c.say("GET /hop HTTP/1.1\nHost: a\nConnection: X-One, close, x-two\nX-One: 1\nX-Two: 2\nX-Three: 3\nKeep-Alive: 5\n" +
				"Proxy-Authorization: p\nProxy-Authenticate: q\nProxy-Connection: keep-alive\nTE: trailers, deflate\n\n")
			c.answer("reply", "GET")
			c.ends("connection", patience)
		},
		broken: passes("header X-One", func(r *http.Request) { r.Header.Set("X-One", "1") }),
	},
	{
		id: "K3.5.3-02", title: "and out of answers",
		run: raw("HTTP/1.1 200 OK\r\nConnection: X-One\r\nX-One: 1\r\nX-Two: 2\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\n"+
			"Proxy-Connection: x\r\nTE: trailers\r\nUpgrade: h2c\r\nContent-Length: 2\r\nContent-Type: a/b\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\n\r\nhi", false),
		broken: header("reply header X-One", "X-One", "1"),
	},
	{
		id: "K3.5.3-03", title: "TE: trailers alone comes back",
		run: func(r *run) {
			r.function(r.echo)
			r.start()
			r.do("h2c", wire.Request{H2: true, Header: []string{"TE: trailers"}})
			c := r.connect(mainPort)
			c.say("GET / HTTP/1.1\nHost: a\nConnection: TE\nTE: trailers\n\n")
			c.answer("http1", "GET")
			c.say("GET / HTTP/1.1\nHost: a\nTE: gzip\n\n")
			c.answer("gzip", "GET")
		},
		broken: wireBehind("header Te", swap("Te: trailers", "Tx: trailers"), nil),
	},
	{
		id: "K3.5.4-01", title: "names arrive in canonical case over HTTP/1.1, repeated values stay repeated",
		run: func(r *run) {
			r.rawFunction("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false)
			r.start("SERVING_READINESS_PROBE=")
			c := r.connect(mainPort)
			c.say("GET /c HTTP/1.1\nhost: a\nx-lower-case: 1\nX-lower-case: 2\nETAG: e\nUSER-agent: u\n\n")
			response := c.answer("reply", "GET")
			_ = response
		},
		broken: wireBehind("function got lines", swap("X-Lower-Case", "x-lower-case"), nil),
	},
	{
		id: "K3.5.5-01", title: "the caller's address is appended to X-Forwarded-For",
		run: func(r *run) {
			r.function(r.echo)
			r.start()
			r.do("none", wire.Request{})
			r.do("one", wire.Request{Header: []string{"X-Forwarded-For: 10.0.0.1"}})
			r.do("two", wire.Request{H2: true, Header: []string{"X-Forwarded-For: 10.0.0.1, 10.0.0.2", "X-Forwarded-For: 10.0.0.3"}})
			r.do("others", wire.Request{Header: []string{"X-Forwarded-Proto: https", "X-Forwarded-Host: h", "X-Real-Ip: 1.1.1.1"}})
		},
		broken: passes("header X-Forwarded-For", func(r *http.Request) { r.Header.Set("X-Forwarded-For", "10.0.0.1") }),
	},
	{
		id: "K3.5.5-02", title: "no User-Agent is made up, and one that is there stays",
		run: func(r *run) {
			r.function(r.echo)
			r.start()
			r.do("none", wire.Request{})
			r.do("one", wire.Request{Header: []string{"User-Agent: camera/2"}})
			r.do("empty", wire.Request{Header: []string{"User-Agent:"}})
		},
		broken: passes("header User-Agent", func(r *http.Request) {
			if r.Header.Get("User-Agent") == "" {
				r.Header.Set("User-Agent", "Go-http-client/1.1")
			}
		}),
	},
	{
		id: "K3.5.6-01", title: "Date is added where the function sent none, and left where it did",
		run: func(r *run) {
			r.rawFunction("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: a/b\r\n\r\nhi", false)
			r.start("SERVING_READINESS_PROBE=")
			r.do("reply", wire.Request{})
		},
		broken: wireDown("reply header Date", mainPort, swap("Date:", "Dote:")),
	},
	{
		id: "K3.5.6-02", title: "Content-Type is guessed from the body where there is none",
		run: func(r *run) {
			bodies := map[string]string{
				"/html": "<!DOCTYPE html><p>hi", "/text": "plain text", "/json": `{"a":1}`, "/png": "\x89PNG\r\n\x1a\n...", "/pdf": "%PDF-1.7",
				"/zero": "a\x00b", "/gzip": "\x1f\x8b\x08zzz", "/xml": "<?xml version='1.0'?>", "/utf16": "\xfe\xffx", "/empty": "",
				"/wasm": "\x00asm\x01", "/mp4": "\x00\x00\x00\x18ftypmp42aaaabbbb", "/webp": "RIFFxxxxWEBPVP",
			}
			r.function(func(w http.ResponseWriter, request *http.Request) {
				w.Header()["Content-Type"] = nil
				if request.URL.Query().Has("encoded") {
					w.Header().Set("Content-Encoding", "br")
				}
				_, _ = io.WriteString(w, bodies[request.URL.Path])
			})
			r.start()
			for _, path := range []string{"/html", "/text", "/json", "/png", "/pdf", "/zero", "/gzip", "/xml", "/utf16", "/empty", "/wasm", "/mp4", "/webp"} {
				r.do(path, wire.Request{Path: path})
			}
			r.do("h2c", wire.Request{Path: "/html", H2: true})
			r.do("encoded", wire.Request{Path: "/html?encoded"})
		},
		broken: header("/html header Content-Type", "Content-Type", "application/octet-stream"),
	},
	{
		id: "K3.5.7-01", title: "trailers of answers go through, announced or not",
		run: func(r *run) {
			r.function(func(w http.ResponseWriter, request *http.Request) {
				w.Header().Set("Trailer", "X-Sum, X-Late")
				r.saw(request)
				_, _ = io.WriteString(w, "body")
				w.Header().Set("X-Sum", "42")
				w.Header().Set("X-Late", "yes")
				w.Header().Set(http.TrailerPrefix+"X-Unannounced", "too")
			})
			r.start()
			for _, h2 := range []bool{false, true} {
				r.do("reply", wire.Request{H2: h2, Method: "POST", Body: io.MultiReader(strings.NewReader("up")), Header: []string{"TE: trailers"}})
			}
		},
		broken: replies("reply trailer", dropTrailers),
	},
	{
		id: "K3.5.7-03", title: "trailers of a request",
		run: func(r *run) {
			r.function(r.echo)
			r.start()
			for _, h2 := range []bool{false, true} {
				r.do("reply", wire.Request{H2: h2, Method: "POST", Body: io.MultiReader(strings.NewReader("up")),
					Trailer: http.Header{"X-Checksum": {"abc"}}})
			}
		},
		broken: passes("function got trailer", func(r *http.Request) { r.Trailer = http.Header{"X-Other": nil} }),
	},
	{
		id: "K3.5.7-02", title: "an answer of trailers alone, as gRPC sends errors",
		run: replying(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			w.Header().Set("Trailer", "Grpc-Status, Grpc-Message")
			w.WriteHeader(200)
			w.Header().Set("Grpc-Status", "5")
			w.Header().Set("Grpc-Message", "no such thing")
		}),
		broken: replies("h2c trailer", dropTrailers),
	},
	{
		id: "K3.5.8-01", title: "each piece of an answer of unknown length goes on at once",
		run:    piecemeal(""),
		broken: fault{key: "second piece", behind: nil, front: map[int]relay.Hooks{mainPort: {Response: readAhead}}},
	},
	{
		id: "K3.5.8-02", title: "so does each event of an event stream",
		run:    piecemeal("text/event-stream; charset=utf-8"),
		broken: fault{key: "second piece", front: map[int]relay.Hooks{mainPort: {Response: readAhead}}},
	},
	{
		id: "K3.5.9-01", title: "103 from the function goes on, and the final status with it",
		run: replying(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Link", "</a.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			w.Header().Set("Content-Type", "text/plain")
			w.WriteHeader(http.StatusCreated)
			_, _ = io.WriteString(w, "made")
		}),
		broken: header("http1 header Content-Type", "Content-Type", "text/html"),
	},
	{
		id: "K3.5.9-02", title: "100 that was asked for, and the final status with it",
		run: func(r *run) {
			r.function(func(w http.ResponseWriter, request *http.Request) {
				body, _ := io.ReadAll(request.Body)
				w.WriteHeader(http.StatusAccepted)
				_, _ = w.Write(body)
			})
			r.start()
			r.do("reply", wire.Request{Method: "POST", Body: strings.NewReader("given"), Length: 5, Header: []string{"Expect: 100-continue"}})
		},
		broken: wireDown("reply body", mainPort, swap("given", "taken")),
	},
	{
		id: "K3.5.10-01", title: "a function that closes without an answer is 502",
		run:    raw("", true),
		broken: status("reply status", 500),
	},
	{
		id: "K3.5.10-02", title: "a function that talks nonsense is 502",
		run:    raw("what?\r\n\r\n", true),
		broken: status("reply status", 500),
	},
	{
		id: "K3.5.10-03", title: "a function that dies in a body of known length cuts the answer",
		run: func(r *run) {
			// More than anyone keeps back before it goes on.
			r.rawFunction("HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: 100000\r\n\r\n"+strings.Repeat("part", 10_000), true)
			r.start("SERVING_READINESS_PROBE=")
			reply := r.Do(wire.Request{Port: mainPort})
			r.Note("status", "%d", reply.Status())
			r.Note("length", "%d", reply.Response.ContentLength)
			r.Note("end", "%s", wire.Class(reply.BodyErr))
		},
		broken: answers("end", limited(1), 200, "part"),
	},
	{
		id: "K3.5.10-04", title: "a function that dies in a chunked body cuts the answer",
		run:    raw("HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n", true),
		broken: fault{key: "reply body end", front: map[int]relay.Hooks{mainPort: {Response: forgive}}},
	},
	{
		id: "K3.5.10-05", title: "over h2c a function that gives up resets the stream",
		run: func(r *run) {
			read := make(chan struct{})
			r.function(func(w http.ResponseWriter, request *http.Request) {
				w.Header().Set("Content-Type", "a/b")
				_, _ = io.WriteString(w, "part")
				_ = http.NewResponseController(w).Flush()
				select {
				case <-read:
				case <-request.Context().Done():
				}
				panic(http.ErrAbortHandler)
			})
			r.start()
			ctx, cancel := contextWithPatience()
			defer cancel()
			reply := r.Open(ctx, wire.Request{Port: mainPort, H2: true})
			if reply.Err == nil {
				part := make([]byte, 4)
				_, err := io.ReadFull(reply.Response.Body, part)
				r.Note("part", "%q %s", part, wire.Class(err))
			}
			close(read)
			reply.Finish()
			reply.Note(r.Observation, "h2c")
		},
		broken: answers("h2c body end", limited(1), 200, "part"),
	},
	{
		id: "K3.5.10-06", title: "over h2c a function that gives up before its head is 502",
		run: func(r *run) {
			r.function(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
			r.start()
			r.do("h2c", wire.Request{H2: true})
		},
		broken: status("h2c status", 500),
	},
	{
		id: "K3.5.11-01", title: "every status goes through, with and without a body",
		run: func(r *run) {
			r.function(func(w http.ResponseWriter, request *http.Request) {
				code := atoi(strings.TrimPrefix(request.URL.Path, "/"))
				w.Header().Set("Content-Type", "text/plain")
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(code)
				if code != 204 && code != 304 {
					fmt.Fprintf(w, "this is %d", code)
				}
			})
			r.start()
			for _, code := range []int{200, 201, 204, 206, 301, 302, 304, 307, 400, 401, 404, 409, 418, 429, 500, 502, 503, 504, 599} {
				r.do(fmt.Sprint(code), wire.Request{Path: fmt.Sprint("/", code)})
				r.do(fmt.Sprint(code, " h2c"), wire.Request{Path: fmt.Sprint("/", code), H2: true})
			}
			r.do("head", wire.Request{Method: "HEAD", Path: "/200"})
		},
		broken: replies("418 status", func(r *http.Response) {
			if r.StatusCode == 418 {
				r.StatusCode = 400
			}
		}),
	},
	{
		id: "K3.5.11-02", title: "repeated headers and cookies of an answer stay apart",
		run: replying(func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Set-Cookie"] = []string{"a=1; Path=/", "b=2"}
			w.Header()["X-Many"] = []string{"1", "2", "3"}
			w.Header().Set("Content-Type", "text/plain")
			w.Header().Set("Server", "mine")
			w.Header().Set("Via", "1.1 me")
		}),
		broken: replies("header Set-Cookie", func(r *http.Response) { r.Header["Set-Cookie"] = []string{"a=1; Path=/, b=2"} }),
	},
	{
		id: "K3.5.11-03", title: "an answer that ends with its connection keeps its bytes",
		run:    raw("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil the end", true),
		broken: text("reply body", "until"),
	},
}

// dropTrailers loses what comes after the body.
func dropTrailers(response *http.Response) {
	response.Body = &withoutTrailers{response.Body, response}
}

type withoutTrailers struct {
	io.ReadCloser
	response *http.Response
}

func (b *withoutTrailers) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.response.Trailer = nil
	}
	return n, err
}

// readAhead holds an answer back until all of it is there.
func readAhead(response *http.Response) error {
	body, _ := io.ReadAll(response.Body)
	response.Body = io.NopCloser(bytes.NewReader(body))
	return nil
}

// forgive ends a broken answer as if it were whole.
func forgive(response *http.Response) error {
	body, _ := io.ReadAll(response.Body)
	response.Body = io.NopCloser(bytes.NewReader(body))
	return nil
}

// piecemeal has a function write a piece only after the caller has read the one before.
func piecemeal(contentType string) func(*run) {
	return func(r *run) {
		next := make(chan struct{})
		r.function(func(w http.ResponseWriter, request *http.Request) {
			if contentType != "" {
				w.Header().Set("Content-Type", contentType)
			} else {
				w.Header().Set("Content-Type", "text/plain")
			}
			for _, piece := range []string{"one\n\n", "two\n\n"} {
				_, _ = io.WriteString(w, piece)
				_ = http.NewResponseController(w).Flush()
				select {
				case <-next:
				case <-request.Context().Done():
				}
			}
		})
		r.start()
		ctx, cancel := contextWithPatience()
		defer cancel()
		reply := r.Open(ctx, wire.Request{Port: mainPort})
		if reply.Err != nil {
			r.Note("second piece", "%s", wire.Class(reply.Err))
			return
		}
		piece := make([]byte, 5)
		for _, name := range []string{"first piece", "second piece"} {
			_, err := io.ReadFull(reply.Response.Body, piece)
			r.Note(name, "%q %s", piece, wire.Class(err))
			if err == nil {
				next <- struct{}{}
			}
		}
		reply.Finish()
		reply.Note(r.Observation, "reply")
	}
}
