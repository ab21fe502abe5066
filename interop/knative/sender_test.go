package interop

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

const senderToken = "token-of-the-sender"

// sender is Zipline's queue-proxy of the function that invokes: standalone, told that the receiver opens references.
type sender struct {
	api int
}

// sender starts one whose gateway is a port of the namespace.
func (r *run) sender(gateway int, receiver string) *sender {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	r.must(err)
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	defer theirs.Close()
	control, err := net.FileConn(ours)
	r.must(err)
	ours.Close()
	r.later(func() { control.Close() })
	secret := base64.RawURLEncoding.EncodeToString([]byte(strings.Repeat("k", 32)))
	fmt.Fprintf(control, `{"type":"keyring","tenant":"default","keys":[{"serial":1,"secret":%q}],"seal_with":1}`+"\n", secret)
	fmt.Fprintf(control, `{"type":"receivers","functions":[%q],"valid_seconds":60}`+"\n", receiver)

	command := exec.Command(*ziplineBinary)
	command.Stdin = theirs
	command.Stderr = os.Stderr
	command.Env = []string{
		"ZIPLINE_GUEST=1", "CONTAINER_CONCURRENCY=0", "REVISION_TIMEOUT_SECONDS=60", "SERVING_NAMESPACE=default", "SERVING_SERVICE=sender",
		"SERVING_REVISION=sender-00001", "SERVING_POD=sender-00001-1", "ZIPLINE_MODE=on", "ZIPLINE_THRESHOLD_BYTES=131072",
		"ZIPLINE_BUDGET_BYTES=67108864", "ZIPLINE_INFLIGHT_BYTES=67108864", fmt.Sprintf("ZIPLINE_GATEWAY=127.0.0.1:%d", gateway),
		"ZIPLINE_TOKEN=" + senderToken, "ZIPLINE_SOCKET=" + r.directory + "/api.sock", "ZIPLINE_CONTROL=stdin", "ZIPLINE_LOG=warn",
	}
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	r.must(r.namespace.Do(command.Start))
	r.later(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	_ = control.SetReadDeadline(time.Now().Add(10 * time.Second))
	scanner := bufio.NewScanner(control)
	for scanner.Scan() {
		var message struct{ Type, API string }
		r.must(json.Unmarshal(scanner.Bytes(), &message))
		if message.Type == "listening" {
			_, port, err := net.SplitHostPort(message.API)
			r.must(err)
			go func() {
				_ = control.SetReadDeadline(time.Time{})
				for scanner.Scan() {
					continue
				}
			}()
			return &sender{api: atoi(port)}
		}
	}
	r.must(fmt.Errorf("the sender never listened: %w", scanner.Err()))
	return nil
}
