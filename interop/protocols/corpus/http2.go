package corpus

import (
	"strconv"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// frame is one frame of stream 1: fields, or data.
type frame struct {
	fields []hpack.HeaderField
	data   string
	end    bool
}

// fields reads "name: value" pairs; a name may begin with a colon.
func fields(pairs ...string) []hpack.HeaderField {
	var list []hpack.HeaderField
	for _, pair := range pairs {
		name, value, _ := strings.Cut(pair[1:], ": ")
		list = append(list, hpack.HeaderField{Name: pair[:1] + name, Value: value})
	}
	return list
}

// ordinary is a POST with further fields.
func ordinary(pairs ...string) []hpack.HeaderField {
	return fields(append([]string{":method: POST", ":scheme: http", ":path: /a", ":authority: t"}, pairs...)...)
}

// with is an ordinary POST with one more field and a body of five bytes.
func with(id, what string, pairs ...string) Case {
	return Case{ID: id, What: what, Frames: []frame{{fields: ordinary(pairs...)}, {data: "hello", end: true}}}
}

// only is a request of just these fields.
func only(id, what string, pairs ...string) Case {
	return Case{ID: id, What: what, Frames: []frame{{fields: fields(pairs...), end: true}}}
}

// HTTP2 are the cases that a proxy could write wrongly as HTTP/1.1, or pass on as they are.
var HTTP2 = []Case{
	with("h2-01", "an ordinary request"),
	with("h2-02", "CRLF in a value", "x-t: a\r\nx-hidden: b"),
	with("h2-03", "LF in a value", "x-t: a\nb"),
	with("h2-04", "CR in a value", "x-t: a\rb"),
	with("h2-05", "NUL in a value", "x-t: a\x00b"),
	with("h2-06", "CRLF in a name", "x-t: a", "x-t\r\nb: c"),
	with("h2-07", "a colon in a name", "x:t: a"),
	with("h2-08", "a space in a name", "x t: a"),
	with("h2-09", "a capital letter in a name", "X-T: a"),
	with("h2-10", "transfer-encoding: chunked", "transfer-encoding: chunked"),
	with("h2-11", "transfer-encoding: identity", "transfer-encoding: identity"),
	with("h2-12", "connection: close", "connection: close"),
	with("h2-13", "connection: x-t", "connection: x-t", "x-t: a"),
	with("h2-14", "upgrade", "upgrade: websocket"),
	with("h2-15", "keep-alive", "keep-alive: 1"),
	with("h2-16", "proxy-connection", "proxy-connection: close"),
	with("h2-17", "te: trailers", "te: trailers"),
	with("h2-18", "te: gzip", "te: gzip"),
	with("h2-19", "the right length", "content-length: 5"),
	with("h2-20", "a length too long", "content-length: 6"),
	with("h2-21", "a length too short", "content-length: 4"),
	with("h2-22", "a length of 0 with a body", "content-length: 0"),
	with("h2-23", "two lengths", "content-length: 5", "content-length: 6"),
	with("h2-24", "two equal lengths", "content-length: 5", "content-length: 5"),
	with("h2-25", "a length that is no number", "content-length: x"),
	with("h2-26", "a length with a plus sign", "content-length: +5"),
	with("h2-27", "another host", "host: other"),
	with("h2-28", "the same host", "host: t"),
	with("h2-29", "two hosts", "host: t", "host: other"),
	with("h2-30", "two :path", ":path: /b"),
	with("h2-31", "an unknown pseudo-field", ":other: a"),
	with("h2-32", "a pseudo-field behind a field", "x-t: a", ":authority: t"),
	with("h2-33", "a response's pseudo-field", ":status: 200"),
	with("h2-34", ":protocol", ":protocol: websocket"),
	with("h2-35", "a space before a value", "x-t:  a"),
	with("h2-36", "a value with a tab", "x-t: a\tb"),
	with("h2-37", "a value with Latin-1", "x-t: a\xffb"),
	with("h2-38", "a value with a control character", "x-t: a\x01b"),
	with("h2-39", "DEL in a value", "x-t: a\x7fb"),
	with("h2-40", "expect: 100-continue", "expect: 100-continue"),
	with("h2-41", "expect: something else", "expect: wait"),
	with("h2-42", "cookies in three fields", "cookie: a=1", "cookie: b=2", "cookie: c=3"),
	with("h2-43", "http2-settings", "http2-settings: AAAA"),
	only("h2-50", "no :method", ":scheme: http", ":path: /a", ":authority: t"),
	only("h2-51", "no :path", ":method: GET", ":scheme: http", ":authority: t"),
	only("h2-52", "no :scheme", ":method: GET", ":path: /a", ":authority: t"),
	only("h2-53", "no :authority", ":method: GET", ":scheme: http", ":path: /a"),
	only("h2-54", "no :authority but a host", ":method: GET", ":scheme: http", ":path: /a", "host: t"),
	only("h2-55", "an empty :path", ":method: GET", ":scheme: http", ":path: ", ":authority: t"),
	only("h2-56", "a :path without a slash", ":method: GET", ":scheme: http", ":path: a", ":authority: t"),
	only("h2-57", "a request in :path", ":method: GET", ":scheme: http", ":path: /a HTTP/1.1\r\nHost: other\r\n\r\nGET /hidden", ":authority: t"),
	only("h2-58", "a space in :path", ":method: GET", ":scheme: http", ":path: /a b", ":authority: t"),
	only("h2-59", "a request in :method", ":method: GET /hidden HTTP/1.1\r\nHost: t\r\n\r\nGET", ":scheme: http", ":path: /a", ":authority: t"),
	only("h2-60", "a space in :method", ":method: GE T", ":scheme: http", ":path: /a", ":authority: t"),
	only("h2-61", "CRLF in :authority", ":method: GET", ":scheme: http", ":path: /a", ":authority: t\r\nx-t: b"),
	only("h2-62", "a user in :authority", ":method: GET", ":scheme: http", ":path: /a", ":authority: u@t"),
	only("h2-63", "a path in :authority", ":method: GET", ":scheme: http", ":path: /a", ":authority: t/b"),
	only("h2-64", "a space in :authority", ":method: GET", ":scheme: http", ":path: /a", ":authority: t b"),
	only("h2-65", "a :scheme with a path", ":method: GET", ":scheme: http://other/b?", ":path: /a", ":authority: t"),
	only("h2-66", "https as :scheme", ":method: GET", ":scheme: https", ":path: /a", ":authority: t"),
	only("h2-67", "CONNECT", ":method: CONNECT", ":authority: t:80"),
	only("h2-68", "CONNECT with a path", ":method: CONNECT", ":scheme: http", ":path: /a", ":authority: t"),
	only("h2-69", "an asterisk on OPTIONS", ":method: OPTIONS", ":scheme: http", ":path: *", ":authority: t"),
	only("h2-70", "an absolute :path", ":method: GET", ":scheme: http", ":path: http://other/a", ":authority: t"),
	only("h2-71", "Latin-1 in :path", ":method: GET", ":scheme: http", ":path: /\xe4", ":authority: t"),
	only("h2-72", "a fragment in :path", ":method: GET", ":scheme: http", ":path: /a#b", ":authority: t"),
	only("h2-73", "two :method", ":method: GET", ":method: POST", ":scheme: http", ":path: /a", ":authority: t"),
	only("h2-74", "a length without a body", ":method: POST", ":scheme: http", ":path: /a", ":authority: t", "content-length: 5"),
	only("h2-75", "two :authority", ":method: GET", ":scheme: http", ":path: /a", ":authority: t", ":authority: other"),
	only("h2-76", "NUL in :path", ":method: GET", ":scheme: http", ":path: /a\x00b", ":authority: t"),
	only("h2-77", "% without digits in :path", ":method: GET", ":scheme: http", ":path: /a%zz", ":authority: t"),
	{ID: "h2-80", What: "a pseudo-field in the trailers", Frames: []frame{{fields: ordinary()}, {data: "hello"}, {fields: fields(":path: /b"), end: true}}},
	{ID: "h2-81", What: "trailers", Frames: []frame{{fields: ordinary("te: trailers", "trailer: x-t")}, {data: "hello"}, {fields: fields("x-t: 1"), end: true}}},
	{ID: "h2-82", What: "CRLF in a trailer", Frames: []frame{{fields: ordinary("te: trailers", "trailer: x-t")}, {data: "hello"}, {fields: fields("x-t: 1\r\nb: c"), end: true}}},
	{ID: "h2-83", What: "transfer-encoding in a trailer", Frames: []frame{{fields: ordinary("te: trailers")}, {data: "hello"}, {fields: fields("transfer-encoding: chunked"), end: true}}},
	{ID: "h2-84", What: "content-length in a trailer", Frames: []frame{{fields: ordinary("te: trailers", "trailer: content-length")}, {data: "hello"}, {fields: fields("content-length: 7"), end: true}}},
	{ID: "h2-85", What: "trailers that do not end the stream", Frames: []frame{{fields: ordinary()}, {data: "hello"}, {fields: fields("x-t: 1")}, {data: "more", end: true}}},
	{ID: "h2-86", What: "a value of 200 KB", Frames: []frame{{fields: ordinary("x-t: " + long(200<<10)), end: true}}},
	{ID: "h2-87", What: "a value of 2 MB", Frames: []frame{{fields: ordinary("x-t: " + long(2<<20)), end: true}}},
	{ID: "h2-88", What: "1,000 fields", Frames: []frame{{fields: many(1000), end: true}}},
	{ID: "h2-89", What: "a capital letter in a trailer", Frames: []frame{{fields: ordinary("te: trailers", "trailer: x-t")}, {data: "hello"}, {fields: fields("X-T: 1"), end: true}}},
}

func many(count int) []hpack.HeaderField {
	list := ordinary()
	for index := range count {
		list = append(list, hpack.HeaderField{Name: "x-many-" + strconv.Itoa(index), Value: "1"})
	}
	return list
}

// largest is the frame size that every peer takes.
const largest = 16 << 10

// write sends the frames of a case on stream 1.
func write(framer *http2.Framer, encoder *hpack.Encoder, block interface {
	Bytes() []byte
	Reset()
}, frames []frame) error {
	for _, frame := range frames {
		if frame.fields == nil {
			if err := framer.WriteData(1, frame.end, []byte(frame.data)); err != nil {
				return err
			}
			continue
		}
		block.Reset()
		for _, field := range frame.fields {
			if err := encoder.WriteField(field); err != nil {
				return err
			}
		}
		rest := block.Bytes()
		first := rest[:min(len(rest), largest)]
		rest = rest[len(first):]
		param := http2.HeadersFrameParam{StreamID: 1, BlockFragment: first, EndStream: frame.end, EndHeaders: len(rest) == 0}
		if err := framer.WriteHeaders(param); err != nil {
			return err
		}
		for len(rest) > 0 {
			next := rest[:min(len(rest), largest)]
			rest = rest[len(next):]
			if err := framer.WriteContinuation(1, len(rest) == 0, next); err != nil {
				return err
			}
		}
	}
	return nil
}
