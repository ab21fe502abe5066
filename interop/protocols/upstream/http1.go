package upstream

import (
	"bufio"
	"fmt"
	"net"
	"strconv"
	"strings"
)

// Fields that tell two readings apart, or should not have come this far.
var shown = []string{
	"transfer-encoding", "te", "upgrade", "expect", "proxy-connection", "keep-alive", "trailer", "http2-settings",
}

// serve1 reads one request and answers it; false ends the connection.
func (u *Upstream) serve1(conn net.Conn, from *bufio.Reader) bool {
	head, ambiguous, err := readHead(from)
	if err != nil && head == nil {
		return false
	}
	request := u.begin(conn, head.describe(u.Host), ambiguous)
	if err != nil || ambiguous != "" {
		u.blame(request, "its head is cut")
		return false
	}
	if strings.Contains(strings.ToLower(head.get("expect")), "100-continue") {
		fmt.Fprint(conn, "HTTP/1.1 100 Continue\r\n\r\n")
	}
	if head.chunked {
		err = u.readChunks(from, request)
	} else {
		err = u.copyBody(from, head.length, request)
	}
	if err != nil {
		u.note(func() { request.State = cut })
		return false
	}
	u.note(func() { request.State = whole })
	body := request.describe()
	fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-Echo: %d\r\nX-Echo-Method: %s\r\nContent-Length: %d\r\n\r\n",
		request.Serial, head.method, len(body))
	if head.method != "HEAD" {
		fmt.Fprint(conn, body)
	}
	return !strings.EqualFold(head.get("connection"), "close")
}

type field struct{ name, value string }

type head struct {
	method, target, version string
	fields                  []field
	length                  int64
	chunked                 bool
}

func (h *head) all(name string) []string {
	var values []string
	for _, field := range h.fields {
		if strings.EqualFold(field.name, name) {
			values = append(values, field.value)
		}
	}
	return values
}

func (h *head) get(name string) string { return strings.Join(h.all(name), ", ") }

func (h *head) describe(expected string) string {
	text := plain(h.method) + " " + plain(h.target)
	if h.version != "HTTP/1.1" {
		text += " " + h.version
	}
	if host := h.get("host"); host != expected {
		text += " host=" + quoted(host)
	}
	for _, field := range h.fields {
		name := strings.ToLower(field.name)
		interesting := strings.HasPrefix(name, "x-t")
		for _, one := range shown {
			interesting = interesting || one == name
		}
		if name == "transfer-encoding" && field.value == "chunked" {
			interesting = false
		}
		if interesting {
			text += fmt.Sprintf(" {%s: %s}", plain(name), quoted(field.value))
		}
	}
	return text
}

// plain escapes what is no ASCII, and shortens.
func plain(text string) string {
	if len(text) > 4*shownBody {
		return fmt.Sprintf("[%d bytes]", len(text))
	}
	escaped := strconv.QuoteToASCII(text)
	return escaped[1 : len(escaped)-1]
}

func quoted(value string) string {
	if len(value) > shownBody {
		return fmt.Sprintf("[%d bytes]", len(value))
	}
	return strconv.QuoteToASCII(value)
}

// readLine gives a line without its CRLF, and what is wrong with it.
func readLine(from *bufio.Reader) (string, string, error) {
	line, err := from.ReadString('\n')
	if err != nil {
		return line, "", err
	}
	text, crlf := strings.CutSuffix(line, "\r\n")
	if !crlf {
		return strings.TrimSuffix(line, "\n"), "a line ends with LF alone", nil
	}
	if strings.ContainsAny(text, "\r\x00") {
		return text, "a line has CR or NUL in it", nil
	}
	return text, "", nil
}

// readHead gives nil and an error if not one byte came, and otherwise what could be read.
func readHead(from *bufio.Reader) (*head, string, error) {
	line, ambiguous, err := readLine(from)
	if err != nil && line == "" {
		return nil, "", err
	}
	parts := strings.Split(line, " ")
	if err != nil || len(parts) != 3 {
		return &head{method: strconv.Quote(line)}, "the request line is not three words", err
	}
	head := &head{method: parts[0], target: parts[1], version: parts[2]}
	blame := func(what string) {
		if ambiguous == "" {
			ambiguous = what
		}
	}
	if !isToken(head.method) {
		blame("the method is no token")
	}
	for {
		line, wrong, err := readLine(from)
		if err != nil {
			return head, ambiguous, err
		}
		if wrong != "" {
			blame(wrong)
		}
		if line == "" {
			break
		}
		name, value, colon := strings.Cut(line, ":")
		if !colon || !isToken(name) {
			blame(fmt.Sprintf("%q is no field", line))
		}
		head.fields = append(head.fields, field{name, strings.Trim(value, " \t")})
	}
	head.frame(blame)
	return head, ambiguous, nil
}

// frame decides how long the body is, if there is one way to decide.
func (h *head) frame(blame func(string)) {
	if len(h.all("host")) != 1 {
		blame(fmt.Sprintf("%d Host fields", len(h.all("host"))))
	}
	lengths, codings := h.all("content-length"), h.all("transfer-encoding")
	switch {
	case len(lengths) > 1 || len(codings) > 1 || len(lengths)+len(codings) > 1:
		blame("more than one word about the body's length")
	case len(codings) == 1:
		h.chunked = true
		if codings[0] != "chunked" {
			blame("a transfer coding other than chunked")
		}
	case len(lengths) == 1:
		length, err := strconv.ParseUint(lengths[0], 10, 62)
		if err != nil || strings.ContainsAny(lengths[0], "+-_") {
			blame("the length is no number")
		}
		h.length = int64(length)
	}
}

func (u *Upstream) readChunks(from *bufio.Reader, request *Request) error {
	for {
		line, wrong, err := readLine(from)
		if err != nil {
			return err
		}
		size, bad := strconv.ParseUint(line, 16, 62)
		if bad != nil || wrong != "" || strings.ContainsAny(line, "+-_xX") {
			u.blame(request, fmt.Sprintf("chunk size %q", line))
			return errStop
		}
		if size == 0 {
			return u.readTrailers(from, request)
		}
		if err := u.copyBody(from, int64(size), request); err != nil {
			return err
		}
		end := make([]byte, 2)
		for index := range end {
			if end[index], err = from.ReadByte(); err != nil {
				return err
			}
		}
		if string(end) != "\r\n" {
			u.blame(request, fmt.Sprintf("a chunk ends with %q", end))
			return errStop
		}
	}
}

func (u *Upstream) readTrailers(from *bufio.Reader, request *Request) error {
	for {
		line, wrong, err := readLine(from)
		if err != nil {
			return err
		}
		if line == "" && wrong == "" {
			return nil
		}
		name, value, colon := strings.Cut(line, ":")
		if wrong != "" || !colon || !isToken(name) {
			u.blame(request, fmt.Sprintf("trailer %q", line))
			return errStop
		}
		u.note(func() {
			request.Trailers += fmt.Sprintf(" +{%s: %s}", strings.ToLower(name), quoted(strings.Trim(value, " \t")))
		})
	}
}

func isToken(text string) bool {
	for _, char := range []byte(text) {
		letter := 'a' <= char|0x20 && char|0x20 <= 'z'
		if !letter && !('0' <= char && char <= '9') && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(char)) {
			return false
		}
	}
	return text != ""
}
