// Package subject starts what the suites speak to: Zipline's queue-proxy, and a Go server and reverse proxy put together
// as Knative's queue-proxy does.
package subject

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Patience is how long anything that must happen may take on a loaded machine.
const Patience = 20 * time.Second

// Subject is a running proxy in front of one function.
type Subject struct {
	// Name stands in reports.
	Name string
	// Addr takes requests to the function.
	Addr string
	// API is the local API and forward proxy; only Zipline has one.
	API string
	// Status is the address of Zipline's admin port.
	Status string

	place *Place
	stop  func()
}

// Dial connects to an address of the subject.
func (s *Subject) Dial(ctx context.Context, addr string) (net.Conn, error) {
	return s.place.Dial(ctx, addr)
}

// Do runs something where the subject is.
func (s *Subject) Do(work func()) { s.place.Do(work) }

// Starter starts a proxy in front of a function that listens in a place on a port.
type Starter func(place *Place, userPort int) (*Subject, error)

// Close ends it.
func (s *Subject) Close() { s.stop() }

// Token is what the local API wants to see.
const Token = "secret-of-the-function"

// Zipline says how to start Zipline's queue-proxy.
type Zipline struct {
	// Binaries is the folder of the built programs.
	Binaries string
	// Function is service.namespace; f.default if empty.
	Function string
	// UserPort is where the function listens.
	UserPort int
	// Gateway is where other functions are reached; may be empty.
	Gateway string
	// Keyring is the path of a keyring file; may be empty.
	Keyring string
	// Variables are further settings.
	Variables map[string]string
}

var listening = regexp.MustCompile(`"inbound":"Some\(([^)]*)\)","api":"([^"]*)","data":"[^"]*","admin":"([^"]*)"`)

// Start starts it and waits until its ports are bound.
func (z Zipline) Start() (*Subject, error) {
	function := z.Function
	if function == "" {
		function = "f.default"
	}
	service, namespace, _ := strings.Cut(function, ".")
	command := exec.Command(filepath.Join(z.Binaries, "zipline-queue-proxy"))
	// Whatever the suites were started with is none of its settings.
	command.Env = []string{
		fmt.Sprintf("USER_PORT=%d", z.UserPort),
		fmt.Sprintf(`SERVING_READINESS_PROBE={"tcpSocket":{"host":"127.0.0.1","port":%d},"successThreshold":1}`, z.UserPort),
		"SERVING_NAMESPACE=" + namespace, "SERVING_SERVICE=" + service, "SERVING_REVISION=" + service + "-00001",
		"ZIPLINE_TOKEN=" + Token, "ZIPLINE_MODE=on",
	}
	if z.Gateway != "" {
		command.Env = append(command.Env, "ZIPLINE_GATEWAY="+z.Gateway)
	}
	if z.Keyring != "" {
		command.Env = append(command.Env, "ZIPLINE_KEYRING_FILE="+z.Keyring)
	}
	for name, value := range z.Variables {
		command.Env = append(command.Env, name+"="+value)
	}
	found := make(chan []string, 1)
	process, err := launch(command, nil, func(line string) {
		if match := listening.FindStringSubmatch(line); match != nil {
			found <- match
		}
	})
	if err != nil {
		return nil, fmt.Errorf("zipline-queue-proxy (make build builds it): %w", err)
	}
	select {
	case match := <-found:
		return &Subject{Name: "zipline", Addr: match[1], API: match[2], Status: match[3], stop: process.stop}, nil
	case <-process.ended:
	case <-time.After(Patience):
	}
	process.stop()
	return nil, fmt.Errorf("zipline-queue-proxy never listened:\n%s", process.log.text())
}

// process is one that runs.
type process struct {
	command *exec.Cmd
	ended   chan struct{}
	log     *tail
}

// launch starts a command in a place and hands over the lines it prints, if anybody wants them.
func launch(command *exec.Cmd, place *Place, hear func(line string)) (*process, error) {
	// It goes when this process goes, however that ends.
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	reader, writer := io.Pipe()
	command.Stdout, command.Stderr = writer, writer
	var err error
	place.Do(func() { err = command.Start() })
	if err != nil {
		return nil, err
	}
	running := &process{command: command, ended: make(chan struct{}), log: &tail{}}
	go func() {
		command.Wait()
		writer.Close()
		close(running.ended)
	}()
	go func() {
		lines := bufio.NewScanner(reader)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			running.log.add(lines.Text())
			if hear != nil {
				hear(lines.Text())
			}
		}
		io.Copy(io.Discard, reader)
	}()
	return running, nil
}

func (p *process) stop() {
	p.command.Process.Kill()
	<-p.ended
}

// tail keeps the last lines of a log.
type tail struct {
	mu    sync.Mutex
	lines []string
}

func (t *tail) add(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines = append(t.lines, line)
	if len(t.lines) > 20 {
		t.lines = t.lines[1:]
	}
}

func (t *tail) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(t.lines, "\n")
}

// Eventually waits until `check` succeeds; the last error is handed back if it never does.
func Eventually(check func() error) error {
	deadline := time.Now().Add(Patience)
	for {
		err := check()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Port is the port of an address.
func Port(addr net.Addr) int { return addr.(*net.TCPAddr).Port }
