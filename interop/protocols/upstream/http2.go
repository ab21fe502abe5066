package upstream

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// serve2 records h2c requests: their fields as decoded, before any rule is applied to them.
func (u *Upstream) serve2(conn net.Conn, from *bufio.Reader) {
	if _, err := io.ReadFull(from, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	framer := http2.NewFramer(conn, from)
	framer.AllowIllegalReads = true
	decoder := hpack.NewDecoder(4096, nil)
	decoder.SetMaxStringLength(4 << 20)
	streams := map[uint32]*Request{}
	if framer.WriteSettings() != nil {
		return
	}
	defer func() {
		u.note(func() {
			for _, request := range streams {
				request.State = cut
			}
		})
	}()
	var block bytes.Buffer
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return
		}
		id, ended := frame.Header().StreamID, false
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				err = framer.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !frame.IsAck() {
				err = framer.WritePing(true, frame.Data)
			}
		case *http2.HeadersFrame:
			block.Reset()
			block.Write(frame.HeaderBlockFragment())
			ended = frame.StreamEnded()
			for !frame.HeadersEnded() {
				next, err := framer.ReadFrame()
				more, ok := next.(*http2.ContinuationFrame)
				if err != nil || !ok {
					return
				}
				block.Write(more.HeaderBlockFragment())
				if more.HeadersEnded() {
					break
				}
			}
			fields, err := decoder.DecodeFull(block.Bytes())
			if err != nil {
				return
			}
			if request := streams[id]; request != nil {
				u.note(func() {
					for _, field := range fields {
						request.Trailers += fmt.Sprintf(" +{%s: %s}", plain(field.Name), quoted(field.Value))
					}
				})
			} else {
				line, ambiguous := describe2(fields, u.Host)
				streams[id] = u.begin(conn, line, ambiguous)
			}
		case *http2.DataFrame:
			if request := streams[id]; request != nil {
				u.note(func() { request.Body.Write(frame.Data()) })
			}
			ended = frame.StreamEnded()
			if length := uint32(frame.Header().Length); length > 0 {
				err = framer.WriteWindowUpdate(0, length)
				if err == nil && !ended {
					err = framer.WriteWindowUpdate(id, length)
				}
			}
		case *http2.RSTStreamFrame:
			if request := streams[id]; request != nil {
				u.note(func() { request.State = cut })
				delete(streams, id)
			}
		}
		if err == nil && ended && streams[id] != nil {
			err = u.answer2(framer, id, streams[id])
			delete(streams, id)
		}
		if err != nil {
			return
		}
	}
}

func (u *Upstream) answer2(framer *http2.Framer, id uint32, request *Request) error {
	u.note(func() { request.State = whole })
	body := request.describe()
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	head := strings.HasPrefix(request.Line, "HEAD ")
	for _, field := range []hpack.HeaderField{
		{Name: ":status", Value: "200"}, {Name: "x-echo", Value: strconv.Itoa(request.Serial)},
		{Name: "content-type", Value: "text/plain"},
	} {
		if err := encoder.WriteField(field); err != nil {
			return err
		}
	}
	param := http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: head}
	if err := framer.WriteHeaders(param); err != nil || head {
		return err
	}
	return framer.WriteData(id, true, []byte(body))
}

// describe2 names a request as describe does, and what is ambiguous about it once it would be written as HTTP/1.1.
func describe2(fields []hpack.HeaderField, expected string) (string, string) {
	pseudo, ambiguous := map[string]string{}, ""
	blame := func(what string) {
		if ambiguous == "" {
			ambiguous = what
		}
	}
	var rest []string
	for _, field := range fields {
		if strings.ContainsAny(field.Name+field.Value, "\r\n\x00") {
			blame("CR, LF or NUL in " + strconv.Quote(field.Name))
		}
		if strings.HasPrefix(field.Name, ":") {
			if _, twice := pseudo[field.Name]; twice {
				blame("two " + field.Name)
			}
			pseudo[field.Name] = field.Value
			continue
		}
		if !isToken(field.Name) || field.Name != strings.ToLower(field.Name) {
			blame(strconv.Quote(field.Name) + " is no field name")
		}
		switch field.Name {
		case "connection", "transfer-encoding", "upgrade", "keep-alive", "proxy-connection":
			blame(field.Name + " over HTTP/2")
		case "host":
			if field.Value != pseudo[":authority"] {
				blame("Host is not :authority")
			}
		}
		if strings.HasPrefix(field.Name, "x-t") || field.Name == "te" || field.Name == "expect" || field.Name == "trailer" {
			rest = append(rest, fmt.Sprintf(" {%s: %s}", field.Name, quoted(field.Value)))
		}
	}
	sort.Strings(rest)
	line := plain(pseudo[":method"]) + " " + plain(pseudo[":path"])
	if authority := pseudo[":authority"]; authority != expected {
		line += " host=" + quoted(authority)
	}
	return line + strings.Join(rest, ""), ambiguous
}
