// Package grpcsuite runs gRPC's own interoperability cases, client and server of google.golang.org/grpc/interop, through
// Zipline: through one queue-proxy, and from a function's forward proxy through two of them with large messages deferred.
package grpcsuite

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"

	"zipline.internal/interop/protocols/report"
	"zipline.internal/interop/protocols/subject"
)

// Command is the argument that makes this program the client of one case; the library ends its process on a failure.
const Command = "grpc-child"

var cases = map[string]func(context.Context, *grpc.ClientConn, testgrpc.TestServiceClient){
	"empty_unary":        call(interop.DoEmptyUnaryCall),
	"large_unary":        call(interop.DoLargeUnaryCall),
	"client_streaming":   call(interop.DoClientStreaming),
	"server_streaming":   call(interop.DoServerStreaming),
	"ping_pong":          call(interop.DoPingPong),
	"empty_stream":       call(interop.DoEmptyStream),
	"cancel_after_begin": call(interop.DoCancelAfterBegin),
	"cancel_after_first_response": func(ctx context.Context, _ *grpc.ClientConn, client testgrpc.TestServiceClient) {
		interop.DoCancelAfterFirstResponse(ctx, client)
	},
	"timeout_on_sleeping_server": call(interop.DoTimeoutOnSleepingServer),
	"status_code_and_message":    call(interop.DoStatusCodeAndMessage),
	"special_status_message":     call(interop.DoSpecialStatusMessage),
	"custom_metadata":            call(interop.DoCustomMetadata),
	"unimplemented_method": func(ctx context.Context, conn *grpc.ClientConn, _ testgrpc.TestServiceClient) {
		interop.DoUnimplementedMethod(ctx, conn)
	},
	"unimplemented_service": func(ctx context.Context, conn *grpc.ClientConn, _ testgrpc.TestServiceClient) {
		interop.DoUnimplementedService(ctx, testgrpc.NewUnimplementedServiceClient(conn))
	},
}

func call(do func(context.Context, testgrpc.TestServiceClient, ...grpc.CallOption)) func(context.Context, *grpc.ClientConn, testgrpc.TestServiceClient) {
	return func(ctx context.Context, _ *grpc.ClientConn, client testgrpc.TestServiceClient) { do(ctx, client) }
}

// Child runs one case: its name, the server's address, and, if it goes through one, the forward proxy's.
func Child(name, addr, proxy string) error {
	run := cases[name]
	if run == nil {
		return fmt.Errorf("there is no case %s", name)
	}
	options := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	if proxy != "" {
		options = append(options, grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return through(ctx, proxy, addr)
		}))
	} else {
		options = append(options, grpc.WithNoProxy())
	}
	conn, err := grpc.NewClient("passthrough:///"+addr, options...)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), subject.Patience)
	defer cancel()
	run(ctx, conn, testgrpc.NewTestServiceClient(conn))
	return nil
}

// through connects by CONNECT, as a client with https_proxy does.
func through(ctx context.Context, proxy, addr string) (net.Conn, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", proxy)
	if err != nil {
		return nil, err
	}
	credentials := base64.StdEncoding.EncodeToString([]byte("zipline:" + subject.Token))
	fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\nProxy-Authorization: Basic %s\r\n\r\n", addr, addr, credentials)
	response, err := http.ReadResponse(bufio.NewReaderSize(conn, 16), &http.Request{Method: "CONNECT"})
	if err != nil {
		return nil, err
	}
	if response.StatusCode != 200 {
		return nil, fmt.Errorf("CONNECT: %s", response.Status)
	}
	return conn, nil
}

const against = "google.golang.org/grpc/interop"

// serve starts gRPC's test service.
func serve(place *subject.Place) (*grpc.Server, int, error) {
	listener, err := place.Listen()
	if err != nil {
		return nil, 0, err
	}
	server := grpc.NewServer()
	testgrpc.RegisterTestServiceServer(server, interop.NewTestServer())
	go server.Serve(listener)
	return server, subject.Port(listener.Addr()), nil
}

func sorted() []string {
	names := make([]string, 0, len(cases))
	for name := range cases {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// RunOne runs every case through one queue-proxy.
func RunOne(name string, place *subject.Place, zipline subject.Starter) (report.Suite, error) {
	suite := report.Suite{Name: name, Against: against}
	server, port, err := serve(place)
	if err != nil {
		return suite, err
	}
	defer server.Stop()
	proxy, err := zipline(place, port)
	if err != nil {
		return suite, err
	}
	defer proxy.Close()
	for _, name := range sorted() {
		suite.Checks = append(suite.Checks, one(place, "one/"+name, "through one queue-proxy", name, proxy.Addr, ""))
	}
	return suite, nil
}

// Run runs every case through one queue-proxy, and then through two with deferral.
func Run(binaries string) (report.Suite, error) {
	suite := report.Suite{Name: "grpc", Against: against}
	server, port, err := serve(nil)
	if err != nil {
		return suite, err
	}
	defer server.Stop()

	folder, err := os.MkdirTemp("", "zipline-grpc-")
	if err != nil {
		return suite, err
	}
	defer os.RemoveAll(folder)
	keyring, err := writeKeyring(folder)
	if err != nil {
		return suite, err
	}
	receiver, err := subject.Zipline{Binaries: binaries, Function: "receiver.default", UserPort: port, Keyring: keyring}.Start()
	if err != nil {
		return suite, err
	}
	defer receiver.Close()
	// With one other function in the world, its queue-proxy can stand for the gateway.
	sender, err := subject.Zipline{Binaries: binaries, Function: "sender.default", UserPort: port, Keyring: keyring, Gateway: receiver.Addr}.Start()
	if err != nil {
		return suite, err
	}
	defer sender.Close()

	for _, name := range sorted() {
		suite.Checks = append(suite.Checks, one(nil, "one/"+name, "through one queue-proxy", name, receiver.Addr, ""))
	}
	const function = "receiver.default.svc.cluster.local:80"
	for _, name := range sorted() {
		suite.Checks = append(suite.Checks, one(nil, "two/"+name, "by CONNECT to a forward proxy, through two queue-proxies", name, function, sender.API))
	}
	deferred := report.Check{ID: "two/deferred", What: "the large messages of these calls were deferred, both ways"}
	if err := subject.Eventually(func() error { return wasDeferred(sender, receiver) }); err != nil {
		deferred.Failure = err.Error()
	}
	suite.Checks = append(suite.Checks, deferred)
	return suite, nil
}

func one(place *subject.Place, id, what, name, addr, proxy string) report.Check {
	check := report.Check{ID: id, What: what}
	self, err := os.Executable()
	if err != nil {
		check.Failure = err.Error()
		return check
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*subject.Patience)
	defer cancel()
	command := exec.CommandContext(ctx, self, Command, name, addr, proxy)
	command.Env = append(os.Environ(), "GRPC_GO_LOG_SEVERITY_LEVEL=error")
	var output bytes.Buffer
	command.Stdout, command.Stderr = &output, &output
	place.Do(func() { err = command.Start() })
	if err == nil {
		err = command.Wait()
	}
	if err != nil {
		check.Failure = fmt.Sprintf("%v: %s", err, strings.TrimSpace(output.String()))
	}
	return check
}

func writeKeyring(folder string) (string, error) {
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		return "", err
	}
	type key struct {
		Serial int    `json:"serial"`
		Secret string `json:"secret"`
	}
	text, err := json.Marshal(struct {
		Tenant   string `json:"tenant"`
		Keys     []key  `json:"keys"`
		SealWith int    `json:"seal_with"`
	}{"default", []key{{1, base64.RawURLEncoding.EncodeToString(secret)}}, 1})
	if err != nil {
		return "", err
	}
	path := filepath.Join(folder, "keyring.json")
	return path, os.WriteFile(path, text, 0o600)
}

// wasDeferred reads from the status of both that payloads went over the data ports, as requests and as responses.
func wasDeferred(sender, receiver *subject.Subject) error {
	for _, side := range []struct {
		who  *subject.Subject
		kind string
	}{{sender, "request"}, {receiver, "response"}} {
		if err := sent(side.who, side.kind); err != nil {
			return err
		}
	}
	return nil
}

func sent(who *subject.Subject, kind string) error {
	client := http.Client{Timeout: 5 * time.Second}
	response, err := client.Get("http://" + who.Status + "/status")
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var status struct {
		Transfers struct {
			Edges []struct {
				Direction, Kind, Way string
				Bytes                int64
			}
		}
	}
	if err := json.NewDecoder(response.Body).Decode(&status); err != nil {
		return err
	}
	for _, edge := range status.Transfers.Edges {
		if edge.Direction == "sent" && edge.Kind == kind && edge.Way == "network" && edge.Bytes > 0 {
			return nil
		}
	}
	return fmt.Errorf("no %s was sent over the data port: %+v", kind, status.Transfers.Edges)
}
