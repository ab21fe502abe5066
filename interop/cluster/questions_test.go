package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"
)

// keysAnswer is what POST /v1/keys gives.
type keysAnswer struct {
	Tenant, Namespace, Zone string
	Keys                    []struct{ ID, Secret, State string }
	RefreshSeconds          int `json:"refresh_seconds"`
	ValidSeconds            int `json:"valid_seconds"`
	Modes                   struct{ Cluster, Namespace, Service string }
}

func (k keysAnswer) active() (id string) {
	for _, key := range k.Keys {
		if key.State == "active" {
			id = key.ID
		}
	}
	return id
}

// modeAnswer is what GET /v1/mode gives.
type modeAnswer struct {
	Revision, Keys uint64
	Mode           string
}

var addresses atomic.Uint32

// asker speaks to the controller from an address of its own, since the controller counts by address.
func (s *servers) asker(t *testing.T) *http.Client {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.authority.pem())
	number := addresses.Add(1)
	from := net.IPv4(127, 0, byte(1+number/250), byte(1+number%250))
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: from}}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, s.controller.address)
		},
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 40 * time.Second}
}

// ask gives the status, and the reason of a refusal or the body.
func ask(t *testing.T, client *http.Client, method, path, token, body string) (status int, reason string, answer []byte) {
	t.Helper()
	request, err := http.NewRequest(method, "https://zipline-controller.zipline-system.svc:8443"+path, bytes.NewReader([]byte(body)))
	must(t, err)
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := client.Do(request)
	must(t, err)
	defer response.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(response.Body, 1<<20))
	must(t, err)
	if response.StatusCode >= 400 {
		var problem struct {
			Type, Title, Detail string
			Status              int
		}
		if err := json.Unmarshal(answer, &problem); err != nil || problem.Status != response.StatusCode || problem.Detail == "" {
			t.Errorf("%d is no problem JSON: %s", response.StatusCode, answer)
		}
		if response.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("content type %q", response.Header.Get("Content-Type"))
		}
		return response.StatusCode, problem.Title, answer
	}
	return response.StatusCode, "", answer
}

// keys asks for keys and expects them.
func (s *servers) keys(t *testing.T, token, revision string) (answer keysAnswer) {
	t.Helper()
	status, reason, body := ask(t, s.asker(t), http.MethodPost, "/v1/keys", token, `{"revision":"`+revision+`"}`)
	if status != http.StatusOK {
		t.Fatalf("no keys: %d %s", status, reason)
	}
	must(t, json.Unmarshal(body, &answer))
	return answer
}

func (s *servers) mode(t *testing.T, token, query string) (answer modeAnswer) {
	t.Helper()
	status, reason, body := ask(t, s.asker(t), http.MethodGet, "/v1/mode"+query, token, "")
	if status != http.StatusOK {
		t.Fatalf("no mode: %d %s", status, reason)
	}
	must(t, json.Unmarshal(body, &answer))
	return answer
}

// eventually waits for something that comes by itself.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
