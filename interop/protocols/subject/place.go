package subject

import (
	"context"
	"fmt"
	"net"
	"runtime"

	"golang.org/x/sys/unix"
)

// Place is where sockets are opened and processes started: a network namespace of its own, since Knative's ports are fixed.
// The nil place is where this process is.
type Place struct {
	work chan func()
}

// NewPlace makes a namespace with nothing but loopback. It goes with the last that is in it.
func NewPlace() (*Place, error) {
	place := &Place{work: make(chan func())}
	failed := make(chan error)
	go func() {
		// Only this thread moves; it ends with the goroutine.
		runtime.LockOSThread()
		failed <- enter()
		for work := range place.work {
			work()
		}
	}()
	if err := <-failed; err != nil {
		place.Close()
		return nil, fmt.Errorf("a network namespace (root may make one): %w", err)
	}
	return place, nil
}

func enter() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	loopback, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	loopback.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, loopback)
}

// Close lets it go.
func (p *Place) Close() {
	if p != nil {
		close(p.work)
	}
}

// Do runs something there and waits for it.
func (p *Place) Do(work func()) {
	if p == nil {
		work()
		return
	}
	done := make(chan struct{})
	p.work <- func() {
		defer close(done)
		work()
	}
	<-done
}

// Listen listens on a free port of its loopback.
func (p *Place) Listen() (listener net.Listener, err error) {
	p.Do(func() { listener, err = net.Listen("tcp", "127.0.0.1:0") })
	return listener, err
}

// Dial connects to an address of its loopback.
func (p *Place) Dial(ctx context.Context, addr string) (conn net.Conn, err error) {
	p.Do(func() {
		var dialer net.Dialer
		conn, err = dialer.DialContext(ctx, "tcp", addr)
	})
	return conn, err
}
