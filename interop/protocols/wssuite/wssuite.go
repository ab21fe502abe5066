// Package wssuite speaks WebSocket, and other protocols after an upgrade, through a proxy.
package wssuite

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"zipline.internal/interop/protocols/report"
	"zipline.internal/interop/protocols/subject"
)

type check struct {
	id, what string
	run      func(ctx context.Context, at *subject.Subject) error
}

// idle is how long nothing is said in the case about that.
const idle = 3 * time.Second

var checks = []check{
	{"01", "text is echoed", messages(websocket.MessageText, 5)},
	{"02", "an empty message is echoed", messages(websocket.MessageText, 0)},
	{"03", "messages at the borders of the length forms", messages(websocket.MessageBinary, 125, 126, 127, 65535, 65536)},
	{"04", "a message of 16 MB", messages(websocket.MessageBinary, 16<<20)},
	{"05", "a thousand messages", messages(websocket.MessageBinary, many(1000, 300)...)},
	{"06", "a hundred connections at a time", crowd},
	{"07", "compressed messages with context", compressed},
	{"08", "a message in four fragments, one of them empty", fragments},
	{"09", "a ping between fragments is answered before the message", pingBetween},
	{"10", "a message byte by byte", slowly},
	{"11", "pings of the library", pings},
	{"12", "a ping with 125 bytes comes back as it is", pingBytes},
	{"13", "close codes of the client reach the function", closeCodes},
	{"14", "close codes of the function reach the client", closeCodesBack},
	{"15", "a close without a code", closeWithout},
	{"16", "text that is no UTF-8 is closed with 1007", refusedWith([]byte{0x81, 0x82, 0, 0, 0, 0, 0xff, 0xff}, 1007)},
	{"17", "an unknown opcode is closed with 1002", refusedWith([]byte{0x83, 0x80, 0, 0, 0, 0}, 1002)},
	{"18", "a frame without a mask is closed with 1002", refusedWith([]byte{0x81, 0x01, 'a'}, 1002)},
	{"19", "a continuation of nothing is closed with 1002", refusedWith([]byte{0x80, 0x80, 0, 0, 0, 0}, 1002)},
	{"20", "a fragmented ping is closed with 1002", refusedWith([]byte{0x09, 0x80, 0, 0, 0, 0}, 1002)},
	{"21", "the subprotocol is negotiated", subprotocol},
	{"22", "words in other cases and lists", otherCases},
	{"23", "a 101 to another protocol is a 502", status("/protocol", 502)},
	{"24", "a 101 to no protocol is a 502", status("/nothing", 502)},
	{"25", "a refusal is passed on", status("/refuse", 403)},
	{"26", "a version that the function does not speak", badVersion},
	{"27", "bytes of the client right behind its request", early},
	{"28", "bytes of the function right behind its 101", atOnce},
	{"29", "the client ends its side and still gets the answer", half},
	{"30", "the function ends its side and still gets the rest", halfBack},
	{"31", "a client that resets is seen by the function", resetByClient},
	{"32", "a function that resets is seen by the client", resetByFunction},
	{"33", "32 MB of other bytes both ways at once", bulk},
	{"34", fmt.Sprintf("%s of silence", idle), silence},
	{"35", "an upgrade on a connection that has served a request before", afterRequest},
	{"36", "the connection serves on after a refused upgrade", afterRefusal},
}

// Run runs every case through Zipline and through Go's proxy.
func Run(name string, place *subject.Place, zipline subject.Starter) (report.Suite, error) {
	suite := report.Suite{Name: name, Against: "github.com/coder/websocket and RFC 6455"}
	listener, err := place.Listen()
	if err != nil {
		return suite, err
	}
	server := &http.Server{Handler: function()}
	go server.Serve(listener)
	defer server.Close()
	ours, err := zipline(place, subject.Port(listener.Addr()))
	if err != nil {
		return suite, err
	}
	defer ours.Close()
	reference, err := subject.Reference(place, subject.Port(listener.Addr()))
	if err != nil {
		return suite, err
	}
	defer reference.Close()
	for _, check := range checks {
		result := report.Check{ID: check.id, What: check.what}
		if err := attempt(check, ours, subject.Patience); err != nil {
			result.Failure = err.Error()
			if attempt(check, reference, forGo) != nil {
				result.Failure += "\nGo's proxy fails it too"
			}
		} else if err := attempt(check, reference, forGo); err != nil {
			suite.Notes = append(suite.Notes, fmt.Sprintf("%s: Go's proxy fails it: %v", check.id, err))
		}
		suite.Checks = append(suite.Checks, result)
	}
	return suite, nil
}

// forGo is how long a case may take with Go's proxy, which only a note depends on.
const forGo = 5 * time.Second

func attempt(check check, at *subject.Subject, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return check.run(ctx, at)
}

func dial(ctx context.Context, at *subject.Subject, path string, options *websocket.DialOptions) (*websocket.Conn, error) {
	if options == nil {
		options = &websocket.DialOptions{}
	}
	options.HTTPClient = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) { return at.Dial(ctx, addr) },
	}}
	conn, _, err := websocket.Dial(ctx, "ws://"+at.Addr+path, options)
	if err == nil {
		conn.SetReadLimit(64 << 20)
	}
	return conn, err
}

func many(count, size int) []int {
	sizes := make([]int, count)
	for index := range sizes {
		sizes[index] = size
	}
	return sizes
}

func messages(kind websocket.MessageType, sizes ...int) func(context.Context, *subject.Subject) error {
	return func(ctx context.Context, at *subject.Subject) error {
		conn, err := dial(ctx, at, "/echo", nil)
		if err != nil {
			return err
		}
		defer conn.CloseNow()
		for _, size := range sizes {
			message := make([]byte, size)
			if kind == websocket.MessageBinary {
				rand.Read(message)
			}
			if err := roundTrip(ctx, conn, kind, message); err != nil {
				return fmt.Errorf("%d bytes: %w", size, err)
			}
		}
		return conn.Close(websocket.StatusNormalClosure, "")
	}
}

func roundTrip(ctx context.Context, conn *websocket.Conn, kind websocket.MessageType, message []byte) error {
	sent := make(chan error, 1)
	go func() { sent <- conn.Write(ctx, kind, message) }()
	back, echo, err := conn.Read(ctx)
	if err != nil {
		return err
	}
	if back != kind || !bytes.Equal(echo, message) {
		return fmt.Errorf("%s of %d bytes came back as %s of %d bytes", kind, len(message), back, len(echo))
	}
	return <-sent
}

func crowd(ctx context.Context, at *subject.Subject) error {
	var all sync.WaitGroup
	failures := make(chan error, 100)
	for range 100 {
		all.Go(func() { failures <- messages(websocket.MessageBinary, 10, 20_000)(ctx, at) })
	}
	all.Wait()
	close(failures)
	var list []error
	for failure := range failures {
		list = append(list, failure)
	}
	return errors.Join(list...)
}

func compressed(ctx context.Context, at *subject.Subject) error {
	conn, err := dial(ctx, at, "/echo", &websocket.DialOptions{CompressionMode: websocket.CompressionContextTakeover})
	if err != nil {
		return err
	}
	defer conn.CloseNow()
	for range 5 {
		if err := roundTrip(ctx, conn, websocket.MessageText, []byte(strings.Repeat("the same again ", 1000))); err != nil {
			return err
		}
	}
	return conn.Close(websocket.StatusNormalClosure, "")
}

func pings(ctx context.Context, at *subject.Subject) error {
	conn, err := dial(ctx, at, "/echo", nil)
	if err != nil {
		return err
	}
	defer conn.CloseNow()
	// The library takes pongs while it reads.
	reading := conn.CloseRead(ctx)
	for range 20 {
		if err := conn.Ping(reading); err != nil {
			return err
		}
	}
	return nil
}

func closeCodes(ctx context.Context, at *subject.Subject) error {
	for _, code := range []websocket.StatusCode{1000, 1001, 1003, 1008, 1009, 1011, 1012, 3000, 4999} {
		conn, err := dial(ctx, at, "/echo?tell", nil)
		if err != nil {
			return err
		}
		if err := conn.Close(code, "a reason"); err != nil {
			return fmt.Errorf("%d: %w", code, err)
		}
		select {
		case seen := <-closes:
			if seen != code {
				return fmt.Errorf("%d reached the function as %d", code, seen)
			}
		case <-ctx.Done():
			return fmt.Errorf("%d never reached the function", code)
		}
	}
	return nil
}

func closeCodesBack(ctx context.Context, at *subject.Subject) error {
	for _, code := range []websocket.StatusCode{1000, 1001, 1003, 1008, 1009, 1011, 1012, 3000, 4999} {
		conn, err := dial(ctx, at, fmt.Sprintf("/close?code=%d", code), nil)
		if err != nil {
			return err
		}
		_, _, err = conn.Read(ctx)
		var closed websocket.CloseError
		if !errors.As(err, &closed) || closed.Code != code || closed.Reason != "because of it" {
			return fmt.Errorf("%d: %v", code, err)
		}
	}
	return nil
}

func subprotocol(ctx context.Context, at *subject.Subject) error {
	conn, err := dial(ctx, at, "/echo", &websocket.DialOptions{Subprotocols: []string{"first", "second"}})
	if err != nil {
		return err
	}
	defer conn.CloseNow()
	if conn.Subprotocol() != "second" {
		return fmt.Errorf("%q was negotiated", conn.Subprotocol())
	}
	return nil
}

func silence(ctx context.Context, at *subject.Subject) error {
	conn, err := dial(ctx, at, "/echo", nil)
	if err != nil {
		return err
	}
	defer conn.CloseNow()
	// What is tested is that time passes; nothing is waited for.
	time.Sleep(idle)
	return roundTrip(ctx, conn, websocket.MessageText, []byte("still there"))
}

// frame is a masked frame, its mask zero.
func frame(first byte, payload []byte) []byte {
	out := []byte{first}
	switch {
	case len(payload) < 126:
		out = append(out, 0x80|byte(len(payload)))
	default:
		out = append(out, 0x80|126)
		out = binary.BigEndian.AppendUint16(out, uint16(len(payload)))
	}
	return append(append(out, 0, 0, 0, 0), payload...)
}

// readFrame reads a short frame of a server.
func readFrame(from io.Reader) (first byte, payload []byte, err error) {
	head := make([]byte, 2)
	if _, err := io.ReadFull(from, head); err != nil {
		return 0, nil, err
	}
	payload = make([]byte, head[1]&0x7f)
	_, err = io.ReadFull(from, payload)
	return head[0], payload, err
}

// expectFrame reads one frame and compares it.
func expectFrame(from io.Reader, first byte, payload string) error {
	got, content, err := readFrame(from)
	if err != nil {
		return err
	}
	if got != first || string(content) != payload {
		return fmt.Errorf("frame %#x %q, not %#x %q", got, content, first, payload)
	}
	return nil
}
