package interop

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"zipline.internal/interop/knative/internal/relay"
	"zipline.internal/interop/knative/internal/role"
	"zipline.internal/interop/knative/internal/wire"
)

const referenceType = "application/vnd.zipline.reference"

// ingressPort is where the stand-in for an ingress listens: it names the revision, as Knative's ingresses do.
const ingressPort = 7000

// reached is what arrived at the function.
type reached struct {
	agent, contentType string
	digest             [32]byte
	length             int
}

// stock is Knative without Zipline: function, queue-proxy, activator if wanted.
type stock struct {
	*run
	mu      sync.Mutex
	arrived []reached
	// passed are the content types that went through the ingress, with their lengths.
	passed []string
}

func (s *stock) serve(w http.ResponseWriter, request *http.Request) {
	body, _ := io.ReadAll(request.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.arrived = append(s.arrived, reached{request.UserAgent(), request.Header.Get("Content-Type"), sha256.Sum256(body), len(body)})
	ok(w, request)
}

// deferredRequest is a message as a sender's queue-proxy puts it on the wire.
func deferredRequest(port int, h2 bool) wire.Request {
	reference := "zl1." + strings.Repeat("A", 300)
	request := wire.Request{H2: h2, Method: "POST", Path: "/work", Body: strings.NewReader(reference), Length: int64(len(reference)), Header: []string{
		"User-Agent: Knative-Activator-Probe zipline/1 camera/2", "Content-Type: " + referenceType, "Zipline-Accept: zla1.AAAA",
	}}
	if port == role.ActivatorPort {
		return activated(request)
	}
	request.Port = port
	return request
}

// refused checks that a deferred message was refused and ran nothing.
func (s *stock) refused(port int, h2 bool) error {
	reply := s.Do(deferredRequest(port, h2))
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.arrived) > 0 {
		return fmt.Errorf("the function was run: %+v", s.arrived)
	}
	body := string(reply.Body)
	stays := reply.Status() == 400 && strings.HasPrefix(body, "unexpected probe header value: ")
	drains := reply.Status() == 503 && strings.HasPrefix(body, "shutting down")
	if !stays && !drains {
		return fmt.Errorf("no refusal: %d %q %v", reply.Status(), body, reply.Err)
	}
	return nil
}

// ingress relays to the queue-proxy or the activator and keeps what it saw.
func (s *stock) ingress(next int) {
	listener, err := s.namespace.Listen(ingressPort)
	s.must(err)
	s.later(func() { listener.Close() })
	go relay.Serve(listener, func() (net.Conn, error) { return s.namespace.Dial(next) }, relay.Hooks{Request: func(r *http.Request) {
		r.Header.Set("Knative-Serving-Revision", "echo-00001")
		r.Header.Set("Knative-Serving-Namespace", "default")
		s.mu.Lock()
		defer s.mu.Unlock()
		s.passed = append(s.passed, r.Header.Get("Content-Type"))
	}})
}

// resent checks that a sender's payload reaches the function inline, once, after the refusal of its reference.
func (s *stock) resent(next int, h2 bool) error {
	s.ingress(next)
	from := s.sender(ingressPort, "echo.default")
	payload := bytes.Repeat([]byte("payload of the sender "), 20_000)
	reply := s.Do(wire.Request{Port: from.api, H2: h2, Method: "POST", Path: "/v1/invoke/echo.default/work", Host: "127.0.0.1",
		Body: bytes.NewReader(payload), Length: int64(len(payload)),
		Header: []string{"Zipline-Token: " + senderToken, "User-Agent: camera/2", "Content-Type: image/x-raw"}})
	s.mu.Lock()
	defer s.mu.Unlock()
	if reply.Status() != 200 || string(reply.Body) != "hello" {
		return fmt.Errorf("the sender's function got %d %q %v", reply.Status(), reply.Body, reply.Err)
	}
	want := reached{"camera/2", "image/x-raw", sha256.Sum256(payload), len(payload)}
	if len(s.arrived) != 1 || s.arrived[0] != want {
		return fmt.Errorf("the function got %+v, not once %+v", s.arrived, want)
	}
	if len(s.passed) != 2 || s.passed[0] != referenceType || s.passed[1] != "image/x-raw" {
		return fmt.Errorf("on the way were %q", s.passed)
	}
	return nil
}

// TestFailClosed proves that Knative without Zipline never runs a function for a deferred message.
func TestFailClosed(t *testing.T) {
	type proof struct {
		id, title string
		run       func(*stock) error
	}
	knative := func(s *stock, h2, activator bool) int {
		port := mainPort
		if h2 {
			port = mainH2Port
		}
		s.start(fmt.Sprintf("QUEUE_SERVING_PORT=%d", port))
		if !activator {
			return port
		}
		if h2 {
			s.activator("INTEROP_H2C=1")
		} else {
			s.activator()
		}
		// The pod is found first: an ordinary request goes through, and is forgotten.
		reply := s.Do(activated(wire.Request{H2: h2}))
		s.mu.Lock()
		defer s.mu.Unlock()
		if reply.Status() != 200 || len(s.arrived) != 1 {
			s.must(fmt.Errorf("the activator does not work: %d %v", reply.Status(), reply.Err))
		}
		s.arrived = nil
		return role.ActivatorPort
	}
	// A proxy that passes everything: each proof must see through it.
	open := func(s *stock) int {
		listener, err := s.namespace.Listen(mainPort)
		s.must(err)
		s.later(func() { listener.Close() })
		go relay.Serve(listener, func() (net.Conn, error) { return s.namespace.Dial(userPort) }, relay.Hooks{})
		return mainPort
	}
	must := func(err error) error {
		if err == nil {
			return fmt.Errorf("cannot fail: a proxy that passes everything is taken for Knative's")
		}
		return nil
	}
	var proofs []proof
	for i, h2 := range []bool{false, true} {
		protocol := []string{"HTTP/1.1", "h2c"}[i]
		for j, activator := range []bool{false, true} {
			by := []string{"Knative's queue-proxy", "Knative's activator before it"}[j]
			proofs = append(proofs,
				proof{fmt.Sprintf("F1-%d%d", i+1, j+1), "a deferred message over " + protocol + " is refused by " + by + " and runs nothing",
					func(s *stock) error { return s.refused(knative(s, h2, activator), h2) }},
				proof{fmt.Sprintf("F2-%d%d", i+1, j+1), "a sender behind " + by + " over " + protocol + " resends inline, and the function runs once",
					func(s *stock) error { return s.resent(knative(s, h2, activator), h2) }})
		}
		proofs = append(proofs, proof{fmt.Sprintf("F3-%d", i+1), "these proofs over " + protocol + " see a proxy that passes everything",
			func(s *stock) error { return must(s.refused(open(s), h2)) }})
	}
	proofs = append(proofs,
		proof{"F1-31", "a deferred message is refused while Knative's queue-proxy drains", func(s *stock) error {
			port := knative(s, false, false)
			s.term()
			return s.refused(port, false)
		}},
		proof{"F2-31", "a sender behind one that drains resends inline", func(s *stock) error {
			port := knative(s, false, false)
			s.term()
			return s.resent(port, false)
		}},
		proof{"F3-3", "the proof of the inline resend sees a proxy that passes everything", func(s *stock) error { return must(s.resent(open(s), false)) }})
	for _, p := range proofs {
		t.Run(p.id, func(t *testing.T) {
			begin := time.Now()
			_, log, err := perform(&scenario{id: p.id, run: func(r *run) {
				s := &stock{run: r}
				r.function(s.serve)
				r.must(p.run(s))
			}}, *knativeBinary, nil)
			totals.proof(p.id, p.title, err != nil)
			if err != nil {
				t.Errorf("after %v: %v\n%s", time.Since(begin).Round(time.Millisecond), err, tail(log))
			}
		})
	}
}
