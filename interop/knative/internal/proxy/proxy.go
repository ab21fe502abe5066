// Package proxy starts a queue-proxy, whichever it is, as a pod would.
package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"

	"zipline.internal/interop/knative/internal/netns"
)

// Process is a running queue-proxy.
type Process struct {
	command *exec.Cmd
	ended   chan struct{}
	code    int
	mu      sync.Mutex
	lines   map[string][]string
	changed chan struct{}
}

// Options say how a queue-proxy is started.
type Options struct {
	// Binary is its path.
	Binary string
	// Environment is all of its variables.
	Environment map[string]string
	// Certificates is a folder with tls.crt and tls.key, shown to it as the mounted Secret; empty for none.
	Certificates string
	// PodInfo is a folder with the file annotations, shown to it as the downward API would; empty for none.
	PodInfo string
	// Line changes what it writes, line by line; nil leaves it.
	Line func(string) string
}

// Mounts happen in a mount namespace of the process's own, so that nothing of the machine is touched.
const withMounts = `
if [ -n "$INTEROP_CERTIFICATES" ]; then
    mount -t tmpfs none /var/lib
    mkdir -p /var/lib/knative/certs
    mount --bind "$INTEROP_CERTIFICATES" /var/lib/knative/certs
fi
if [ -n "$INTEROP_PODINFO" ]; then
    mount -t tmpfs none /media
    mkdir -p /media/upper /media/work
    mount -t overlay overlay -o lowerdir=/etc,upperdir=/media/upper,workdir=/media/work /etc
    mkdir -p /etc/podinfo
    mount --bind "$INTEROP_PODINFO" /etc/podinfo
fi
unset INTEROP_CERTIFICATES INTEROP_PODINFO
exec "$0"`

// Start starts it inside the namespace.
func Start(namespace *netns.Namespace, options Options) (*Process, error) {
	command := exec.Command(options.Binary)
	if options.Certificates != "" || options.PodInfo != "" {
		command = exec.Command("unshare", "-m", "sh", "-e", "-c", withMounts, options.Binary)
		command.Env = append(command.Env, "PATH="+os.Getenv("PATH"),
			"INTEROP_CERTIFICATES="+options.Certificates, "INTEROP_PODINFO="+options.PodInfo)
	}
	if command.Env == nil {
		// An empty list would mean the suite's own environment.
		command.Env = []string{"PATH=/nonexistent"}
	}
	for name, value := range options.Environment {
		command.Env = append(command.Env, name+"="+value)
	}
	sort.Strings(command.Env)
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdout, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	stderr, err := command.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := namespace.Do(command.Start); err != nil {
		return nil, fmt.Errorf("start %s: %w", options.Binary, err)
	}
	p := &Process{
		command: command, ended: make(chan struct{}), lines: map[string][]string{}, changed: make(chan struct{}),
	}
	var readers sync.WaitGroup
	for name, pipe := range map[string]io.Reader{"stdout": stdout, "stderr": stderr} {
		readers.Go(func() { p.read(name, pipe, options.Line) })
	}
	go func() {
		readers.Wait()
		err := command.Wait()
		var exit *exec.ExitError
		switch {
		case err == nil:
		case errors.As(err, &exit) && exit.Exited():
			p.code = exit.ExitCode()
		default:
			p.code = -1
		}
		close(p.ended)
	}()
	return p, nil
}

func (p *Process) read(name string, pipe io.Reader, line func(string) string) {
	scanner := bufio.NewScanner(pipe)
	scanner.Buffer(nil, 4<<20)
	for scanner.Scan() {
		text := scanner.Text()
		if line != nil {
			text = line(text)
		}
		p.mu.Lock()
		p.lines[name] = append(p.lines[name], text)
		close(p.changed)
		p.changed = make(chan struct{})
		p.mu.Unlock()
	}
}

// Signal sends it a signal; none is sent once it has ended.
func (p *Process) Signal(signal syscall.Signal) {
	select {
	case <-p.ended:
	default:
		_ = p.command.Process.Signal(signal)
	}
}

// Ended is closed when it has ended and all it wrote was read.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Exit says how it ended: "exit 0", "exit 1", "killed by a signal" or "still running".
func (p *Process) Exit() string {
	select {
	case <-p.ended:
	default:
		return "still running"
	}
	if p.code < 0 {
		return "killed by a signal"
	}
	return fmt.Sprintf("exit %d", p.code)
}

// PID is its process id.
func (p *Process) PID() int { return p.command.Process.Pid }

// Lines returns what it wrote to "stdout" or "stderr".
func (p *Process) Lines(name string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.lines[name]...)
}

// WaitLines waits until it wrote n lines to either output that match, or time is up, and returns those it has.
func (p *Process) WaitLines(n int, patience time.Duration, match func(string) bool) []string {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		p.mu.Lock()
		changed := p.changed
		var found []string
		for _, name := range []string{"stdout", "stderr"} {
			for _, line := range p.lines[name] {
				if match(line) {
					found = append(found, line)
				}
			}
		}
		p.mu.Unlock()
		if len(found) >= n {
			return found
		}
		select {
		case <-changed:
		case <-p.ended:
			return found
		case <-timer.C:
			return found
		}
	}
}

// Log is all it wrote, for error messages.
func (p *Process) Log() string {
	return strings.Join(append(p.Lines("stderr"), p.Lines("stdout")...), "\n")
}

// Kill ends it at once and waits.
func (p *Process) Kill() {
	p.Signal(syscall.SIGKILL)
	<-p.ended
}
