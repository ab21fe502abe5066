package wssuite

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/coder/websocket"
)

// function is what stands behind the proxies: an echo by a WebSocket library, and servers that do something particular.
func function() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/echo", echo)
	mux.HandleFunc("/close", closeFirst)
	mux.HandleFunc("/protocol", func(writer http.ResponseWriter, request *http.Request) {
		answer(writer, "101 Switching Protocols", "Connection: Upgrade", "Upgrade: other")
	})
	mux.HandleFunc("/nothing", func(writer http.ResponseWriter, request *http.Request) {
		answer(writer, "101 Switching Protocols")
	})
	mux.HandleFunc("/refuse", func(writer http.ResponseWriter, request *http.Request) {
		http.Error(writer, "not for you", http.StatusForbidden)
	})
	mux.HandleFunc("/at-once", func(writer http.ResponseWriter, request *http.Request) {
		conn, _ := hijack(writer)
		defer conn.Close()
		fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\nfirst words")
		io.Copy(io.Discard, conn)
	})
	mux.HandleFunc("/half", func(writer http.ResponseWriter, request *http.Request) {
		conn, from := raw(writer)
		defer conn.Close()
		all, _ := io.ReadAll(from)
		fmt.Fprintf(conn, "%d bytes until the end", len(all))
	})
	mux.HandleFunc("/half-back", func(writer http.ResponseWriter, request *http.Request) {
		conn, from := raw(writer)
		defer conn.Close()
		fmt.Fprint(conn, "all I have")
		conn.(*net.TCPConn).CloseWrite()
		all, _ := io.ReadAll(from)
		ended <- len(all)
	})
	mux.HandleFunc("/bytes", func(writer http.ResponseWriter, request *http.Request) {
		conn, from := raw(writer)
		defer conn.Close()
		io.Copy(conn, from)
	})
	mux.HandleFunc("/watch", func(writer http.ResponseWriter, request *http.Request) {
		conn, from := raw(writer)
		defer conn.Close()
		_, err := io.Copy(io.Discard, from)
		gone <- err
	})
	mux.HandleFunc("/reset", func(writer http.ResponseWriter, request *http.Request) {
		conn, _ := raw(writer)
		conn.(*net.TCPConn).SetLinger(0)
		conn.Close()
	})
	return mux
}

var (
	// ended tells how much /half-back read after it had closed its own side.
	ended = make(chan int, 16)
	// gone tells how /watch saw its connection end.
	gone = make(chan error, 16)
	// closes tells with which code /echo saw its connection close.
	closes = make(chan websocket.StatusCode, 256)
)

func hijack(writer http.ResponseWriter) (net.Conn, *bufio.ReadWriter) {
	conn, buffered, err := http.NewResponseController(writer).Hijack()
	if err != nil {
		panic(err)
	}
	return conn, buffered
}

func answer(writer http.ResponseWriter, status string, fields ...string) {
	conn, _ := hijack(writer)
	defer conn.Close()
	fmt.Fprintf(conn, "HTTP/1.1 %s\r\n", status)
	for _, field := range fields {
		fmt.Fprintf(conn, "%s\r\n", field)
	}
	fmt.Fprint(conn, "\r\n")
	conn.SetReadDeadline(time.Now().Add(time.Second))
	io.Copy(io.Discard, conn)
}

// raw agrees to a protocol that is nothing but bytes.
func raw(writer http.ResponseWriter) (net.Conn, io.Reader) {
	conn, buffered := hijack(writer)
	fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n")
	return conn, buffered
}

func echo(writer http.ResponseWriter, request *http.Request) {
	conn, err := websocket.Accept(writer, request, &websocket.AcceptOptions{
		Subprotocols: []string{"second", "third"}, InsecureSkipVerify: true, CompressionMode: websocket.CompressionContextTakeover,
	})
	if err != nil {
		return
	}
	defer conn.CloseNow()
	conn.SetReadLimit(64 << 20)
	for {
		kind, message, err := conn.Read(context.Background())
		if err != nil {
			var closed websocket.CloseError
			code := websocket.StatusCode(-1)
			if errors.As(err, &closed) {
				code = closed.Code
			}
			if request.URL.Query().Has("tell") {
				closes <- code
			}
			return
		}
		if conn.Write(context.Background(), kind, message) != nil {
			return
		}
	}
}

func closeFirst(writer http.ResponseWriter, request *http.Request) {
	conn, err := websocket.Accept(writer, request, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return
	}
	var code int
	fmt.Sscan(request.URL.Query().Get("code"), &code)
	conn.Close(websocket.StatusCode(code), "because of it")
}
