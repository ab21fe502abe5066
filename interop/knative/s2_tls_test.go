package interop

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"strings"
	"time"

	"zipline.internal/interop/knative/internal/wire"
)

// secure starts the queue-proxy with a certificate and waits for the port of TLS.
func (r *run) secure(variables ...string) {
	r.certificates("data-plane.knative.dev", "kn-user-default")
	r.start(variables...)
	if r.fault.withhold == "" {
		r.must(r.open(tlsPort))
	}
}

// handshake opens a TLS connection and notes what was agreed.
func (r *run) handshake(name string, config *tls.Config) *tls.Conn {
	asked := false
	config.InsecureSkipVerify = true
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		asked = true
		return &tls.Certificate{}, nil
	}
	conn, err := r.dial(tlsPort)
	if err != nil {
		r.Note(name, "%s", wire.Class(err))
		return nil
	}
	r.later(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	secure := tls.Client(conn, config)
	if err := secure.Handshake(); err != nil {
		var alert tls.AlertError
		if errors.As(err, &alert) {
			r.Note(name, "%s", alert.Error())
		} else {
			r.Note(name, "%s", strings.TrimPrefix(err.Error(), "remote error: "))
		}
		return nil
	}
	state := secure.ConnectionState()
	r.Note(name, "%s %q, leaf %v, asks for a certificate: %v", tls.VersionName(state.Version), state.NegotiatedProtocol,
		state.PeerCertificates[0].DNSNames, asked)
	return secure
}

// overTLS sends a request by TLS.
func (r *run) overTLS(name string, h2 bool) {
	var protocols http.Protocols
	protocols.SetHTTP1(!h2)
	protocols.SetHTTP2(h2)
	transport := &http.Transport{
		Protocols: &protocols, DisableCompression: true,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		DialContext:     func(context.Context, string, string) (net.Conn, error) { return r.dial(tlsPort) },
	}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://echo.default/by/tls?x=1", nil)
	r.must(err)
	request.Header["User-Agent"] = nil
	reply := &wire.Reply{}
	reply.Response, reply.Err = transport.RoundTrip(request)
	reply.Finish()
	reply.Note(r.Observation, name)
}

const reloaded = "Certificate and/or key have changed on disk and were reloaded."

var tlsServers = []*scenario{
	{
		id: "K2.2-01", title: "8112 serves HTTP/1.1 and h2 by TLS as soon as there is a certificate, the plain port too",
		run: func(r *run) {
			r.function(r.echo)
			r.secure()
			r.overTLS("http1", false)
			r.overTLS("h2", true)
			r.do("plain", wire.Request{})
			r.do("plain admin", wire.Request{Port: adminPort})
			r.listening()
		},
		broken: fault{key: "h2 error", withhold: "certificates"},
	},
	{
		id: "K2.2-02", title: "TLS 1.3 at least, unless told otherwise; h2 before http/1.1; no client certificate asked",
		run: func(r *run) {
			r.secure()
			r.handshake("1.3", &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"h2", "http/1.1"}})
			r.handshake("1.3 http/1.1", &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}})
			r.handshake("1.3 no protocol", &tls.Config{MinVersion: tls.VersionTLS13})
			r.handshake("1.2", &tls.Config{MaxVersion: tls.VersionTLS12, NextProtos: []string{"h2"}})
		},
		broken: settings("1.2", "QUEUE_PROXY_TLS_MIN_VERSION", "1.2"),
	},
	{
		id: "K2.2-03", title: "TLS 1.2 where the variable allows it",
		run: func(r *run) {
			r.secure("QUEUE_PROXY_TLS_MIN_VERSION=1.2", "QUEUE_PROXY_TLS_MAX_VERSION=1.2")
			r.handshake("1.2", &tls.Config{MaxVersion: tls.VersionTLS12, NextProtos: []string{"h2"}})
			r.handshake("1.3", &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}})
		},
		broken: settings("1.2", "QUEUE_PROXY_TLS_MIN_VERSION", "1.3", "QUEUE_PROXY_TLS_MAX_VERSION", "1.3"),
	},
	refusedTLS("K2.2-04", "a TLS version that is none ends it", "QUEUE_PROXY_TLS_MIN_VERSION", "1.5", "1.3"),
	refusedTLS("K2.2-05", "a cipher suite that is none ends it", "QUEUE_PROXY_TLS_CIPHER_SUITES", "TLS_NONE", "TLS_AES_128_GCM_SHA256"),
	refusedTLS("K2.2-06", "a curve that is none ends it", "QUEUE_PROXY_TLS_CURVE_PREFERENCES", "P-1", "X25519,P-256"),
	{
		id: "K2.2-07", title: "TLS variables mean nothing without a certificate",
		run: func(r *run) {
			r.function(r.echo)
			r.start("QUEUE_PROXY_TLS_MIN_VERSION=1.5")
			r.do("plain", wire.Request{})
		},
		broken: status("plain status", 500),
	},
	{
		id: "K2.2-08", title: "a changed certificate is shown within 60 s, and both loads are logged", slow: true,
		run: func(r *run) {
			r.secure()
			r.handshake("first", &tls.Config{NextProtos: []string{"h2"}})
			r.certificates("other.knative.dev")
			found := r.process.WaitLines(2, 66*time.Second, func(line string) bool { return strings.Contains(line, reloaded) })
			r.Note("logged", "%d times", len(found))
			r.handshake("second", &tls.Config{NextProtos: []string{"h2"}})
		},
		broken: fault{key: "logged", line: func(line string) string { return strings.ReplaceAll(line, reloaded, "reloaded") }},
	},
	{
		id: "K2.2-09", title: "a request by TLS and one in plain share the breaker",
		run: func(r *run) {
			entered, release := make(chan struct{}, 16), make(chan struct{})
			r.function(func(w http.ResponseWriter, request *http.Request) {
				entered <- struct{}{}
				<-release
				ok(w, request)
			})
			r.secure("CONTAINER_CONCURRENCY=1")
			done := make(chan *wire.Reply, 32)
			send := func() { done <- r.Do(wire.Request{Port: mainPort}) }
			r.Transport(mainPort, false)
			for range 11 {
				go send()
			}
			r.within("11 admitted", func() bool { return admitted(r) >= 11 })
			r.overTLS("twelfth", false)
			close(release)
			for range 11 {
				r.Note("admitted", "%d", (<-done).Status())
			}
		},
		broken: settings("twelfth status", "CONTAINER_CONCURRENCY", "2"),
	},
}

// admitted is how many requests the queue-proxy counts as in flight, by its next report.
func admitted(r *run) int {
	stat, err := r.stat()
	if err != nil {
		return 0
	}
	return int(stat.AverageConcurrentRequests + 0.001)
}

func refusedTLS(id, title, name, wrong, right string) *scenario {
	return &scenario{
		id: id, title: title,
		run: func(r *run) {
			r.certificates("data-plane.knative.dev")
			r.launch(name + "=" + wrong)
			select {
			case <-r.process.Ended():
			case <-time.After(patience):
			}
			r.Note("ended", "%s", r.process.Exit())
		},
		broken: settings("ended", name, right),
	}
}
