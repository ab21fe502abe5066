package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// inPod names the folder of a pod, for the process that is one.
const inPod = "ZIPLINE_TEST_POD"

func TestMain(m *testing.M) {
	if folder := os.Getenv(inPod); folder != "" {
		if err := bePod(folder); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// bePod runs in a network and a mount namespace of its own, as a kubelet would have made them: Knative's fixed ports are free, the
// token lies where Knative mounts it, and the controller has its name. Sockets in folder lead out and in.
func bePod(folder string) error {
	for _, mount := range []struct {
		from, to, kind string
		flags          uintptr
	}{
		{"", "/", "", unix.MS_REC | unix.MS_PRIVATE},
		{"tmpfs", "/run", "tmpfs", 0},
		{filepath.Join(folder, "hosts"), "/etc/hosts", "", unix.MS_BIND},
	} {
		if err := unix.Mount(mount.from, mount.to, mount.kind, mount.flags, ""); err != nil {
			return fmt.Errorf("mount %s: %w", mount.to, err)
		}
	}
	token, err := os.ReadFile(filepath.Join(folder, "token"))
	if err != nil {
		return err
	}
	if err := os.MkdirAll("/var/run/secrets/tokens", 0o755); err != nil {
		return err
	}
	if err := os.WriteFile("/var/run/secrets/tokens/"+audience, token, 0o600); err != nil {
		return err
	}
	if err := loopback(); err != nil {
		return err
	}
	for _, way := range [][4]string{
		{"tcp", "127.0.0.1:8443", "unix", filepath.Join(folder, "controller.sock")},
		{"unix", filepath.Join(folder, "status.sock"), "tcp", "127.0.0.1:8032"},
		{"unix", filepath.Join(folder, "api.sock"), "tcp", "127.0.0.1:8030"},
	} {
		listener, err := net.Listen(way[0], way[1])
		if err != nil {
			return err
		}
		go relay(listener, way[2], way[3])
	}
	command := exec.Command(os.Getenv("ZIPLINE_QUEUE_PROXY"))
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	variables, err := os.ReadFile(filepath.Join(folder, "environment"))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(variables, &command.Env); err != nil {
		return err
	}
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return command.Run()
}

// loopback switches the interface of a new network namespace on.
func loopback() error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, request)
}

// relay joins every connection of listener to one of network and address.
func relay(listener net.Listener, network, address string) {
	for {
		near, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer near.Close()
			far, err := net.Dial(network, address)
			if err != nil {
				return
			}
			defer far.Close()
			go func() {
				_, _ = io.Copy(far, near)
				far.Close()
			}()
			_, _ = io.Copy(near, far)
		}()
	}
}

// status is what the queue-proxy says of itself.
type status struct {
	Mode, Zone string
	Held       struct{ Payloads int }
	Controller struct {
		State, Mode, Error string
		Keys               []uint32
	}
}

// queueProxy runs the real queue-proxy as Knative starts it, against the real controller.
func queueProxy(t *testing.T, s *servers) {
	if os.Geteuid() != 0 {
		t.Fatal("this test makes namespaces: run it as root")
	}
	uid := s.revision(t, "shop", "real-00001")
	object := s.create(t, pod("shop", "real-1", "real-00001", uid, nil))
	folder := t.TempDir()
	write(t, folder, "token", []byte(s.tokenOf(t, object, audience)))
	write(t, folder, "hosts", []byte("127.0.0.1 localhost zipline-controller.zipline-system.svc\n"))
	variables, err := json.Marshal([]string{
		"CONTAINER_CONCURRENCY=0", "QUEUE_SERVING_PORT=8012", "QUEUE_SERVING_TLS_PORT=8112", "USER_PORT=8080",
		"REVISION_TIMEOUT_SECONDS=300", "SERVING_LOGGING_CONFIG=", "SERVING_LOGGING_LEVEL=info",
		"SERVING_NAMESPACE=shop", "SERVING_SERVICE=real", "SERVING_CONFIGURATION=real", "SERVING_REVISION=real-00001",
		"SERVING_POD=real-1", "SERVING_POD_IP=127.0.0.1", "ROOT_CA=" + string(s.authority.pem()),
	})
	must(t, err)
	write(t, folder, "environment", variables)
	listener, err := net.Listen("unix", filepath.Join(folder, "controller.sock"))
	must(t, err)
	defer listener.Close()
	go relay(listener, "tcp", s.controller.address)

	output := &log{}
	program, err := os.Executable()
	must(t, err)
	command := exec.Command(program)
	command.Env = []string{inPod + "=" + folder, "ZIPLINE_QUEUE_PROXY=" + environment(t, "ZIPLINE_QUEUE_PROXY")}
	command.Stdout, command.Stderr = output, output
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	began := time.Now()
	must(t, command.Start())
	defer func() {
		_ = command.Process.Kill()
		_ = command.Wait()
		if t.Failed() {
			t.Logf("the queue-proxy wrote:\n%s", output)
		}
	}()
	through := func(socket string) *http.Client {
		return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(folder, socket))
			},
		}}
	}
	admin, api := through("status.sock"), through("api.sock")
	now := func() (now status) {
		answer, err := admin.Get("http://127.0.0.1:8032/status")
		if err != nil {
			return now
		}
		defer answer.Body.Close()
		_ = json.NewDecoder(answer.Body).Decode(&now)
		return now
	}
	eventually(t, "the queue-proxy has keys", func() bool { return now().Controller.State == "ok" })
	t.Logf("keys, mode and zone were there %.2f s after the start", time.Since(began).Seconds())
	if first := now(); first.Mode != "on" || first.Zone != zone || len(first.Controller.Keys) == 0 {
		t.Errorf("unexpected status: %+v", first)
	}

	began = time.Now()
	s.configure(t, map[string]any{"mode": "off"})
	eventually(t, "the queue-proxy is off", func() bool { return now().Mode == "off" })
	t.Logf("off everywhere: seen by the queue-proxy after %.2f s", time.Since(began).Seconds())
	s.configure(t, map[string]any{"mode": "on"})
	eventually(t, "the queue-proxy is on", func() bool { return now().Mode == "on" })

	before := now().Controller.Keys
	s.addMaster(t, 3)
	eventually(t, "the queue-proxy has the new keys", func() bool {
		keys := now().Controller.Keys
		return len(keys) == len(before)+3 && !slices.ContainsFunc(before, func(key uint32) bool { return !slices.Contains(keys, key) })
	})

	request, err := http.NewRequest(http.MethodPost, "http://127.0.0.1:8030/v1/payloads?ttl=300s", strings.NewReader("held"))
	must(t, err)
	request.Header.Set("Zipline-Token", "pod")
	answer, err := api.Do(request)
	must(t, err)
	var put struct{ Reference string }
	must(t, json.NewDecoder(answer.Body).Decode(&put))
	answer.Body.Close()
	if answer.StatusCode != http.StatusCreated || put.Reference == "" {
		t.Fatalf("no put: %s", answer.Status)
	}
	marked := func() bool {
		found, err := s.client.CoreV1().Pods("shop").Get(context.Background(), object.Name, meta.GetOptions{})
		must(t, err)
		return found.Annotations[cost] != ""
	}
	began = time.Now()
	eventually(t, "the pod that holds a payload is marked", marked)
	t.Logf("the pod was marked %.1f s after it began to hold", time.Since(began).Seconds())
	request, err = http.NewRequest(http.MethodDelete, "http://127.0.0.1:8030/v1/payload", nil)
	must(t, err)
	request.Header.Set("Zipline-Token", "pod")
	request.Header.Set("Zipline-Reference", put.Reference)
	answer, err = api.Do(request)
	must(t, err)
	answer.Body.Close()
	began = time.Now()
	eventually(t, "the pod that holds nothing is not marked any more", func() bool { return !marked() })
	t.Logf("the mark was gone %.1f s after the last payload", time.Since(began).Seconds())
	if strings.Contains(output.String(), put.Reference) {
		t.Error("a reference stands in the log")
	}
}
