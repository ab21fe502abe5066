// Package relay breaks a queue-proxy: set before its ports or between it and the function, it changes one behaviour of
// what is otherwise the real thing. Without hooks it changes nothing that scenarios look at.
package relay

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"
)

// Hooks are the behaviours that a relay breaks; a nil one leaves things alone.
type Hooks struct {
	// Answer replaces the next hop; it returns true if it has answered.
	Answer func(http.ResponseWriter, *http.Request) bool
	// Request changes what goes to the next hop.
	Request func(*http.Request)
	// Response changes what comes back.
	Response func(*http.Response) error
	// Conn takes over whole connections, below HTTP.
	Conn func(from, to net.Conn)
}

// Dial connects to the next hop.
type Dial func() (net.Conn, error)

// Serve relays from a listener until it is closed.
func Serve(listener net.Listener, dial Dial, hooks Hooks) {
	if hooks.Conn != nil {
		serveRaw(listener, dial, hooks.Conn)
		return
	}
	server := &http.Server{
		Handler:   handler(dial, hooks),
		Protocols: both(),
		ErrorLog:  log.New(io.Discard, "", 0),
	}
	_ = server.Serve(listener)
}

func both() *http.Protocols {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return &protocols
}

func transport(dial Dial, h2 bool) *http.Transport {
	var protocols http.Protocols
	protocols.SetHTTP1(!h2)
	protocols.SetUnencryptedHTTP2(h2)
	return &http.Transport{
		Protocols:          &protocols,
		DisableCompression: true,
		DialContext:        func(context.Context, string, string) (net.Conn, error) { return dial() },
	}
}

func handler(dial Dial, hooks Hooks) http.Handler {
	http1, http2 := transport(dial, false), transport(dial, true)
	proxy := &httputil.ReverseProxy{
		FlushInterval:  -1,
		ErrorLog:       log.New(io.Discard, "", 0),
		ModifyResponse: hooks.Response,
		Rewrite: func(r *httputil.ProxyRequest) {
			target, _ := url.Parse("http://relay")
			r.Out.URL.Scheme, r.Out.URL.Host = target.Scheme, target.Host
			r.Out.Host = r.In.Host
			r.Out.URL.RawQuery = r.In.URL.RawQuery
			for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
				if values, ok := r.In.Header[name]; ok {
					r.Out.Header[name] = values
				}
			}
			if _, ok := r.In.Header["User-Agent"]; !ok {
				r.Out.Header["User-Agent"] = nil
			}
			if hooks.Request != nil {
				hooks.Request(r.Out)
			}
		},
		Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			if r.ProtoMajor == 2 {
				return http2.RoundTrip(r)
			}
			return http1.RoundTrip(r)
		}),
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { panic(http.ErrAbortHandler) },
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if hooks.Answer != nil && hooks.Answer(w, r) {
			return
		}
		// Whether the far side reads and writes at once is for it to say.
		_ = http.NewResponseController(w).EnableFullDuplex()
		proxy.ServeHTTP(w, r)
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func serveRaw(listener net.Listener, dial Dial, conn func(from, to net.Conn)) {
	for {
		from, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer from.Close()
			to, err := dial()
			if err != nil {
				return
			}
			defer to.Close()
			conn(from, to)
		}()
	}
}

// Copy passes bytes on, both ways, changed by up (towards the next hop) and down, until both ways have ended.
func Copy(from, to net.Conn, up, down func([]byte) []byte) {
	done := make(chan struct{}, 2)
	one := func(to, from net.Conn, change func([]byte) []byte) {
		defer func() { done <- struct{}{} }()
		defer closeWrite(to)
		buffer := make([]byte, 64<<10)
		for {
			n, err := from.Read(buffer)
			if n > 0 {
				bytes := buffer[:n]
				if change != nil {
					bytes = change(bytes)
				}
				if _, err := to.Write(bytes); err != nil {
					return
				}
			}
			if err != nil {
				return
			}
		}
	}
	go one(to, from, up)
	go one(from, to, down)
	<-done
	<-done
}

func closeWrite(conn net.Conn) {
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
		return
	}
	_ = conn.SetDeadline(time.Now())
}
