package vectors

import (
	"bufio"
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"text/template"

	pkghttp "knative.dev/serving/pkg/http"
	o11y "knative.dev/serving/pkg/observability"
)

// One request, with what the request log writes of it for every form, in hex.
type rendering struct {
	Method  string
	URI     string
	Host    string
	Major   int
	Minor   int
	Length  int64
	Headers [][2]string
	Lines   []string
}

var requests = []string{
	"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
	"POST /a%2Fb/c%20d?x=1&y=%3C&z HTTP/1.1\r\nHost: hello.ns.example.com\r\nUser-Agent: curl/8 \"q\" <b>&=\r\nReferer: http://r/?a='b'\\\r\nContent-Length: 5\r\nX-Many: one\r\nX-Many: two\r\ntraceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\r\nhello",
	"PUT //double//slash?? HTTP/1.1\r\nHost: a:8080\r\nTransfer-Encoding: chunked\r\nx-b3-traceid: b3\r\n\r\n0\r\n\r\n",
	"GET /empty-query? HTTP/1.0\r\nUser-Agent: \r\nAccept: */*\r\ntraceparent: nonsense\r\nX-B3-TraceId: other\r\n\r\n",
	"GET http://other.example:81/absolute?q HTTP/1.1\r\nHost: a\r\nX-Odd-NAME: \xc3\xa9\xff\r\n\r\n",
	"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET /un~-_.:@!$&'()*+,;=[]|^{}\"<>% HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET /un~-_.:@!$&'()*+,;=[]?[]{}|'\" HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET /a|b{c}%41 HTTP/1.1\r\nHost: a\r\nAccept: x\r\n\r\n",
}

var forms = []string{
	o11y.DefaultRequestLogTemplate,
	"{{.Request.Method}} {{.Request.RequestURI}} {{.Request.Proto}} {{.Request.ProtoMajor}}.{{.Request.ProtoMinor}}",
	"{{.Request.URL}}",
	"{{.Request.URL.String}} {{.Request.URL.Path}} {{.Request.URL.EscapedPath}} {{.Request.URL.RawQuery}}|{{.Request.URL.Scheme}}|{{.Request.URL.Host}}",
	"{{.Request.Host}} {{.Request.RemoteAddr}} {{.Request.UserAgent}} {{.Request.Referer}} {{.Request.ContentLength}}\n",
	"{{.Request.Header}}",
	"{{.Request.Header.Get \"x-many\"}}|{{.Request.Header.Get `User-Agent`}}|{{\"Accept\" | .Request.Header.Get}}|{{.Request.Header.Get \"Host\"}}",
	"{{.Request.Header.Values \"x-many\"}} {{index .Request.Header \"X-Many\"}} {{index .Request.Header \"x-many\"}} {{.Request.Header.Accept}} {{.Request.Header.accept}}",
	"{{index .Request.Header \"X-Many\" 1}} {{index (.Request.Header.Values \"X-Many\") 0 | js}}",
	"{{len .Request.Header}} {{len .Request.Method}} {{len (index .Request.Header \"X-Many\")}}",
	"TLS: {{.Request.TLS}}",
	"{{if .Request.TLS}}tls{{else}}plain{{end}} {{eq .Request.TLS nil}} {{not .Request.TLS}}",
	"{{.Request.TLS.Version}}",
	"{{.Response.Code}} {{.Response.Size}} {{.Response.Latency}}",
	"{{.Revision.Name}}, {{.Revision.Namespace}}, {{.Revision.Service}}, {{.Revision.Configuration}}, {{.Revision.PodName}}, {{.Revision.PodIP}}",
	"{{.TraceID}} {{$.TraceID}} {{$.Request.Method}}",
	"{{js .Request.URL}} {{.Request.URL | js}} {{js .Response.Code .Response.Size}} {{js .Request.Method .Response.Code}} {{js}}",
	"{{html .Request.RequestURI .Request.UserAgent}} {{urlquery .Request.RequestURI}} {{.Request.UserAgent | urlquery}}",
	"{{print 1 2 \"a\" 3 4 .Request.Method .Request.Method 1.5 true nil}} {{println 1 \"a\" .Response.Latency}}",
	"{{js nil}} {{print nil}} {{or nil nil}} {{print .Request.Header.Nope}} {{js .Request.Header.Nope}} {{.Request.Header.Nope}}",
	"{{printf \"%s %q %v %d %t %f%%\" .Request.Method .Request.UserAgent .Response.Latency .Response.Code true .Response.Latency}}",
	"{{printf \"[%6d|%-6d|%06d|%+d|%10s|%-10s|%.2s|%8.3f|%-8.1f|%08.2f|%+f]\" 42 42 -42 42 \"abc\" \"abc\" \"äbc\" 3.14159 3.14159 -3.14159 1.0}}",
	"{{printf \"%v %v %v\" .Request.URL .Request.Header .Request.TLS}} {{.Request.URL | printf \"%s\"}}",
	"{{printf \"%10q|%-5v|%5t\" \"a\" 1 true}} {{.Response.Code | printf \"%s-%d\" .Request.Method}}",
	"{{if eq .Response.Code 200}}ok{{else if ge .Response.Code 500}}bad{{else}}other{{end}}",
	"{{if and .Request.UserAgent (gt .Response.Size 100)}}a{{end}}{{if or .Request.Referer .TraceID}}b{{end}}{{if not .TraceID}}c{{end}}",
	"{{and 1 0 2}} {{or 0 \"\" 3}} {{and \"x\" \"y\"}} {{or \"\" .Request.Method | js}} {{1 | and 2}} {{0 | or 0}}",
	"{{eq .Request.Method \"GET\" \"PUT\"}} {{ne .Request.Method \"GET\"}} {{lt .Request.Method \"H\"}} {{le 1 1}} {{gt 2.5 1.5}} {{ge \"a\" \"b\"}}",
	"{{lt .Response.Latency 1}}",
	"{{eq .Request.Method 1}}",
	"{{eq nil nil}} {{eq \"\" nil}} {{eq .Request.URL .Request.URL}}",
	"{{len 3}}",
	"{{index .Request.Method 0}} {{index .Request.Method 99}}",
	"{{index \"abc\" 1}} {{index .Request.Header \"Accept\" | len}}",
	"a  {{- /* comment */ -}}  b {{/* other */}} c {{- 1 -}} d {{ 2 -}}\n e {{- 3 }} f",
	"{{ .Request.Method\n}} {{`raw \\n \"`}} {{\"q\\t\\u00e9\\\"\"}} {{'a'}} {{'\\n'}} {{'\\''}} {{'\"'}} {{0x1F}} {{1_000}} {{1e3}} {{-.5}} {{+1}} {{017}}",
	"{{((.Request.Method))}} {{(print 1) | js | html}} {{true}} {{false}}",
	"{{if true}}{{if false}}x{{else}}y{{end}}{{end}}{{if 0}}z{{end}}",
	"plain text only }} }",
	"{{- .Request.Method -}}",
	"{{\"a\"}}{{- 3}} {{3 -}} 4",
}

func renderings(t *testing.T) []rendering {
	revision := &pkghttp.RequestLogRevision{
		Name: "hello-00001", Namespace: "ns", Service: "hello", Configuration: "hello-c", PodName: "pod", PodIP: "10.1.2.3",
	}
	input := pkghttp.RequestLogTemplateInputGetterFromRevision(revision)
	var out []rendering
	for _, raw := range requests {
		request, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
		if err != nil {
			// What Go does not read never reaches a request log.
			continue
		}
		request.RemoteAddr = "127.0.0.1:4711"
		one := rendering{
			Method: request.Method, URI: request.RequestURI, Host: request.Host, Major: request.ProtoMajor, Minor: request.ProtoMinor,
			Length: request.ContentLength, Headers: fields(raw),
		}
		for _, form := range forms {
			in := input(request, &pkghttp.RequestLogResponse{Code: 200, Size: 345, Latency: 0.0015})
			// As pkg/http/request_log.go prepares and executes it.
			full := form
			if !strings.HasSuffix(full, "\n") {
				full += "\n"
			}
			parsed, err := template.New("requestLog").Parse(full)
			if err != nil {
				t.Fatalf("%s: %v", form, err)
			}
			var line bytes.Buffer
			if parsed.Execute(&line, in) != nil {
				line.Reset()
				fmt.Fprintf(&line, "Invalid request log template: method: %v, response code: %v, latency: %v, url: %v\n",
					in.Request.Method, in.Response.Code, in.Response.Latency, in.Request.URL)
			}
			one.Lines = append(one.Lines, fmt.Sprintf("%x", line.Bytes()))
		}
		out = append(out, one)
	}
	return out
}

// The header fields of a raw request; values in hex.
func fields(raw string) [][2]string {
	head, _, _ := strings.Cut(raw, "\r\n\r\n")
	var out [][2]string
	for _, line := range strings.Split(head, "\r\n")[1:] {
		key, value, _ := strings.Cut(line, ":")
		out = append(out, [2]string{strings.ToLower(key), fmt.Sprintf("%x", strings.TrimSpace(value))})
	}
	return out
}
