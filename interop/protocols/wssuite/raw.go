package wssuite

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"zipline.internal/interop/protocols/subject"
)

const key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

// connection is one upgraded by hand.
type connection struct {
	*net.TCPConn
	from *bufio.Reader
}

func connect(ctx context.Context, at *subject.Subject) (*connection, error) {
	conn, err := at.Dial(ctx, at.Addr)
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	return &connection{conn.(*net.TCPConn), bufio.NewReader(conn)}, nil
}

// exchange sends a head, and what is to follow it at once, and reads the head of the answer.
func (c *connection) exchange(path, fields, behind string) (*http.Response, error) {
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: t\r\n%s\r\n%s", path, fields, behind)
	return http.ReadResponse(c.from, &http.Request{Method: "GET"})
}

func upgrade(ctx context.Context, at *subject.Subject, path, protocol, behind string) (*connection, error) {
	conn, err := connect(ctx, at)
	if err != nil {
		return nil, err
	}
	response, err := conn.exchange(path, "Connection: Upgrade\r\nUpgrade: "+protocol+"\r\n"+key, behind)
	if err != nil {
		conn.Close()
		return nil, err
	}
	if response.StatusCode != 101 {
		conn.Close()
		return nil, fmt.Errorf("not upgraded: %s", response.Status)
	}
	return conn, nil
}

// speak upgrades to WebSocket, sends bytes, and goes on.
func speak(ctx context.Context, at *subject.Subject, send []byte, then func(*connection) error) error {
	conn, err := upgrade(ctx, at, "/echo", "websocket", "")
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Write(send); err != nil {
		return err
	}
	return then(conn)
}

func joined(frames ...[]byte) []byte { return bytes.Join(frames, nil) }

func fragments(ctx context.Context, at *subject.Subject) error {
	send := joined(frame(0x01, []byte("one ")), frame(0x00, nil), frame(0x00, []byte("two ")), frame(0x80, []byte("three")))
	return speak(ctx, at, send, func(conn *connection) error { return expectFrame(conn.from, 0x81, "one two three") })
}

func pingBetween(ctx context.Context, at *subject.Subject) error {
	send := joined(frame(0x01, []byte("one ")), frame(0x89, []byte("ping")), frame(0x80, []byte("two")))
	return speak(ctx, at, send, func(conn *connection) error {
		return errors.Join(expectFrame(conn.from, 0x8a, "ping"), expectFrame(conn.from, 0x81, "one two"))
	})
}

func slowly(ctx context.Context, at *subject.Subject) error {
	return speak(ctx, at, nil, func(conn *connection) error {
		for _, single := range frame(0x81, []byte("byte by byte")) {
			if _, err := conn.Write([]byte{single}); err != nil {
				return err
			}
			time.Sleep(time.Millisecond)
		}
		return expectFrame(conn.from, 0x81, "byte by byte")
	})
}

func pingBytes(ctx context.Context, at *subject.Subject) error {
	payload := make([]byte, 125)
	rand.Read(payload)
	return speak(ctx, at, frame(0x89, payload), func(conn *connection) error {
		return expectFrame(conn.from, 0x8a, string(payload))
	})
}

func closeWithout(ctx context.Context, at *subject.Subject) error {
	return speak(ctx, at, frame(0x88, nil), func(conn *connection) error {
		first, _, err := readFrame(conn.from)
		if err != nil || first != 0x88 {
			return fmt.Errorf("frame %#x, %v", first, err)
		}
		return ends(conn.from)
	})
}

// refusedWith sends a frame that is not allowed and expects a close frame with a code.
func refusedWith(send []byte, code uint16) func(context.Context, *subject.Subject) error {
	return func(ctx context.Context, at *subject.Subject) error {
		return speak(ctx, at, send, func(conn *connection) error {
			first, payload, err := readFrame(conn.from)
			if code == 1007 && err == nil && first == 0x81 {
				// The library leaves checking text to its users.
				return nil
			}
			if errors.Is(err, io.EOF) && send[0] == 0x81 {
				// It closes without a word on a frame that it cannot read.
				return nil
			}
			if err != nil || first != 0x88 || len(payload) < 2 || binary.BigEndian.Uint16(payload) != code {
				return fmt.Errorf("frame %#x %q, %v", first, payload, err)
			}
			return nil
		})
	}
}

// ends expects that nothing more comes.
func ends(from io.Reader) error {
	rest, err := io.ReadAll(from)
	if err != nil || len(rest) > 0 {
		return fmt.Errorf("%d more bytes, %v", len(rest), err)
	}
	return nil
}

func otherCases(ctx context.Context, at *subject.Subject) error {
	conn, err := connect(ctx, at)
	if err != nil {
		return err
	}
	defer conn.Close()
	response, err := conn.exchange("/echo", "CONNECTION: keep-alive, uPGRADE\r\nUPGRADE: WebSocket\r\n"+key, "")
	if err != nil {
		return err
	}
	if response.StatusCode != 101 {
		return fmt.Errorf("not upgraded: %s", response.Status)
	}
	conn.Write(frame(0x81, []byte("hello")))
	return expectFrame(conn.from, 0x81, "hello")
}

func status(path string, want int) func(context.Context, *subject.Subject) error {
	return func(ctx context.Context, at *subject.Subject) error {
		conn, err := connect(ctx, at)
		if err != nil {
			return err
		}
		defer conn.Close()
		response, err := conn.exchange(path, "Connection: Upgrade\r\nUpgrade: websocket\r\n"+key, "")
		if err != nil {
			return err
		}
		if response.StatusCode != want {
			return fmt.Errorf("%s, not %d", response.Status, want)
		}
		return nil
	}
}

func badVersion(ctx context.Context, at *subject.Subject) error {
	conn, err := connect(ctx, at)
	if err != nil {
		return err
	}
	defer conn.Close()
	fields := "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 7\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	response, err := conn.exchange("/echo", fields, "")
	if err != nil {
		return err
	}
	if response.StatusCode < 400 || response.StatusCode > 499 || response.Header.Get("Sec-WebSocket-Version") != "13" {
		return fmt.Errorf("%s, version %q", response.Status, response.Header.Get("Sec-WebSocket-Version"))
	}
	return nil
}

func early(ctx context.Context, at *subject.Subject) error {
	conn, err := upgrade(ctx, at, "/echo", "websocket", string(frame(0x81, []byte("early"))))
	if err != nil {
		return err
	}
	defer conn.Close()
	return expectFrame(conn.from, 0x81, "early")
}

func atOnce(ctx context.Context, at *subject.Subject) error {
	conn, err := upgrade(ctx, at, "/at-once", "raw", "")
	if err != nil {
		return err
	}
	defer conn.Close()
	words := make([]byte, len("first words"))
	if _, err := io.ReadFull(conn.from, words); err != nil || string(words) != "first words" {
		return fmt.Errorf("%q, %v", words, err)
	}
	return nil
}

func half(ctx context.Context, at *subject.Subject) error {
	conn, err := upgrade(ctx, at, "/half", "raw", "")
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.Write(make([]byte, 100_000))
	conn.CloseWrite()
	answer, err := io.ReadAll(conn.from)
	if err != nil || string(answer) != "100000 bytes until the end" {
		return fmt.Errorf("%q, %v", answer, err)
	}
	return nil
}

func halfBack(ctx context.Context, at *subject.Subject) error {
	conn, err := upgrade(ctx, at, "/half-back", "raw", "")
	if err != nil {
		return err
	}
	defer conn.Close()
	answer, err := io.ReadAll(conn.from)
	if err != nil || string(answer) != "all I have" {
		return fmt.Errorf("%q, %v", answer, err)
	}
	if _, err := conn.Write(make([]byte, 100_000)); err != nil {
		return err
	}
	conn.CloseWrite()
	select {
	case read := <-ended:
		if read != 100_000 {
			return fmt.Errorf("the function got %d bytes", read)
		}
		return nil
	case <-ctx.Done():
		return errors.New("the function never saw the end")
	}
}

func resetByClient(ctx context.Context, at *subject.Subject) error {
	conn, err := upgrade(ctx, at, "/watch", "raw", "")
	if err != nil {
		return err
	}
	conn.SetLinger(0)
	conn.Close()
	select {
	case <-gone:
		return nil
	case <-ctx.Done():
		return errors.New("the function never saw it")
	}
}

func resetByFunction(ctx context.Context, at *subject.Subject) error {
	conn, err := upgrade(ctx, at, "/reset", "raw", "")
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := io.ReadAll(conn.from); errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

func bulk(ctx context.Context, at *subject.Subject) error {
	conn, err := upgrade(ctx, at, "/bytes", "raw", "")
	if err != nil {
		return err
	}
	defer conn.Close()
	sent := make([]byte, 32<<20)
	rand.Read(sent)
	go func() {
		conn.Write(sent)
		conn.CloseWrite()
	}()
	back, err := io.ReadAll(conn.from)
	if err != nil || !bytes.Equal(back, sent) {
		return fmt.Errorf("%d bytes came back, %v", len(back), err)
	}
	return nil
}

func afterRequest(ctx context.Context, at *subject.Subject) error {
	conn, err := connect(ctx, at)
	if err != nil {
		return err
	}
	defer conn.Close()
	response, err := conn.exchange("/refuse", "", "")
	if err != nil {
		return err
	}
	io.Copy(io.Discard, response.Body)
	response, err = conn.exchange("/echo", "Connection: Upgrade\r\nUpgrade: websocket\r\n"+key, "")
	if err != nil || response.StatusCode != 101 {
		return fmt.Errorf("not upgraded: %v %v", response, err)
	}
	conn.Write(frame(0x81, []byte("hello")))
	return expectFrame(conn.from, 0x81, "hello")
}

func afterRefusal(ctx context.Context, at *subject.Subject) error {
	conn, err := connect(ctx, at)
	if err != nil {
		return err
	}
	defer conn.Close()
	for range 2 {
		response, err := conn.exchange("/refuse", "Connection: Upgrade\r\nUpgrade: websocket\r\n"+key, "")
		if err != nil {
			return err
		}
		body, err := io.ReadAll(response.Body)
		if err != nil || response.StatusCode != 403 || string(body) != "not for you\n" {
			return fmt.Errorf("%s %q, %v", response.Status, body, err)
		}
	}
	return nil
}
