package subject

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/h2c"
)

// Reference starts net/http's server and ReverseProxy in front of a function, put together as Knative's queue-proxy puts
// them together (knative.dev/pkg network: NewServer, NewProxyAutoTransport; knative.dev/serving pkg/http:
// NewHeaderPruningReverseProxy): HTTP/1.1 and h2c on one port, the upstream's protocol as the request's.
func Reference(place *Place, userPort int) (*Subject, error) {
	listener, err := place.Listen()
	if err != nil {
		return nil, err
	}
	quiet := log.New(io.Discard, "", 0)
	dial := func(ctx context.Context, _, addr string) (net.Conn, error) { return place.Dial(ctx, addr) }
	http1 := &http.Transport{
		DialContext: dial, MaxIdleConns: 1000, MaxIdleConnsPerHost: 1000,
		IdleConnTimeout: 90 * time.Second, ExpectContinueTimeout: time.Second, DisableCompression: true,
	}
	prior := &http2.Transport{
		AllowHTTP: true, DisableCompression: true,
		DialTLSContext: func(ctx context.Context, network, addr string, _ *tls.Config) (net.Conn, error) {
			return dial(ctx, network, addr)
		},
	}
	target := fmt.Sprintf("127.0.0.1:%d", userPort)
	proxy := &httputil.ReverseProxy{
		Director: func(request *http.Request) {
			request.URL.Scheme, request.URL.Host = "http", target
			request.Header.Del("Knative-Serving-Revision")
			request.Header.Del("Knative-Serving-Namespace")
		},
		Transport: roundTripper(func(request *http.Request) (*http.Response, error) {
			if request.ProtoMajor == 2 {
				return prior.RoundTrip(request)
			}
			return http1.RoundTrip(request)
		}),
		FlushInterval: -1,
		ErrorLog:      quiet,
		ErrorHandler: func(writer http.ResponseWriter, request *http.Request, err error) {
			http.Error(writer, err.Error(), http.StatusBadGateway)
		},
	}
	server := &http.Server{
		Handler:           h2c.NewHandler(proxy, &http2.Server{}),
		ReadHeaderTimeout: time.Minute,
		ErrorLog:          quiet,
	}
	go server.Serve(listener)
	stop := func() {
		server.Close()
		http1.CloseIdleConnections()
		prior.CloseIdleConnections()
	}
	return &Subject{Name: "go", Addr: listener.Addr().String(), place: place, stop: stop}, nil
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(request *http.Request) (*http.Response, error) { return f(request) }
