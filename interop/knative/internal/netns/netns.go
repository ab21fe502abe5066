// Package netns makes network namespaces that have no name: each queue-proxy under test gets one of its own, since the
// ports of Knative's contract are fixed. A namespace goes when its last socket and process have gone, whatever became of
// the suite.
package netns

import (
	"errors"
	"fmt"
	"net"
	"runtime"

	"golang.org/x/sys/unix"
)

// ErrClosed is the error of work given to a closed namespace.
var ErrClosed = errors.New("network namespace is closed")

// Namespace is a network namespace with nothing but a loopback interface.
type Namespace struct {
	work   chan func()
	closed chan struct{}
}

// New makes a namespace and one operating system thread that lives in it. Needs root (CAP_SYS_ADMIN).
func New() (*Namespace, error) {
	n := &Namespace{work: make(chan func()), closed: make(chan struct{})}
	ready := make(chan error)
	go func() {
		// Never unlocked: the thread ends with this goroutine, so nothing else ever runs in the wrong namespace.
		runtime.LockOSThread()
		if err := enter(); err != nil {
			ready <- err
			return
		}
		ready <- nil
		for {
			select {
			case f := <-n.work:
				f()
			case <-n.closed:
				return
			}
		}
	}()
	if err := <-ready; err != nil {
		return nil, err
	}
	return n, nil
}

func enter() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("make a network namespace (root is needed): %w", err)
	}
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, request)
}

// Do runs f on the thread of the namespace: sockets it opens and processes it starts belong there. One f at a time.
func (n *Namespace) Do(f func() error) error {
	result := make(chan error, 1)
	select {
	case n.work <- func() { result <- f() }:
		return <-result
	case <-n.closed:
		return ErrClosed
	}
}

// Close ends the thread, and with it every process that was started with a parent death signal. Call once.
func (n *Namespace) Close() { close(n.closed) }

// Dial connects to a port of the namespace's loopback address.
func (n *Namespace) Dial(port int) (net.Conn, error) {
	var conn net.Conn
	err := n.Do(func() (err error) {
		conn, err = net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		return err
	})
	return conn, err
}

// Listen takes a port on the namespace's loopback address.
func (n *Namespace) Listen(port int) (net.Listener, error) {
	var listener net.Listener
	err := n.Do(func() (err error) {
		listener, err = net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		return err
	})
	return listener, err
}
