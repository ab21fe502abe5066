package interop

import (
	"bytes"
	"io"
	"net"
	"net/http"

	"zipline.internal/interop/knative/internal/relay"
)

// Faults that many scenarios share. key is the part of a fact's name that must differ.

// status makes the main port answer another status.
func status(key string, code int) fault {
	return replies(key, func(response *http.Response) { response.StatusCode, response.Status = code, "" })
}

// text makes the main port answer another body.
func text(key, body string) fault {
	return replies(key, func(response *http.Response) { setBody(response, body) })
}

// header makes the main port answer another header; an empty value removes it.
func header(key, name, value string) fault {
	return replies(key, func(response *http.Response) { setHeader(response.Header, name, value) })
}

// replies changes what comes out of the main ports.
func replies(key string, change func(*http.Response)) fault {
	hooks := relay.Hooks{Response: func(response *http.Response) error { change(response); return nil }}
	return fault{key: key, front: map[int]relay.Hooks{mainPort: hooks, mainH2Port: hooks}}
}

// repliesOf changes what comes out of another port.
func repliesOf(port int, key string, change func(*http.Response)) fault {
	hooks := relay.Hooks{Response: func(response *http.Response) error { change(response); return nil }}
	return fault{key: key, front: map[int]relay.Hooks{port: hooks}}
}

// answers makes the main port answer without the queue-proxy.
func answers(key string, when func(*http.Request) bool, code int, body string) fault {
	return fault{key: key, front: map[int]relay.Hooks{mainPort: {Answer: func(w http.ResponseWriter, r *http.Request) bool {
		if !when(r) {
			return false
		}
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
		return true
	}}}}
}

// passes gives the function a request that should be otherwise.
func passes(key string, change func(*http.Request)) fault {
	return fault{key: key, behind: &relay.Hooks{Request: change}}
}

// incoming changes requests before the queue-proxy understands them.
func incoming(key string, change func(*http.Request)) fault {
	hooks := relay.Hooks{Request: change}
	return fault{key: key, front: map[int]relay.Hooks{mainPort: hooks, mainH2Port: hooks}}
}

// settings starts the queue-proxy with other variables.
func settings(key string, pairs ...string) fault {
	env := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		env[pairs[i]] = pairs[i+1]
	}
	return fault{key: key, env: env}
}

// wireDown changes bytes on their way to the caller.
func wireDown(key string, port int, change func([]byte) []byte) fault {
	return fault{key: key, front: map[int]relay.Hooks{port: {Conn: func(from, to net.Conn) { relay.Copy(from, to, nil, change) }}}}
}

// wireBehind changes bytes on their way to the function (up) or from it (down).
func wireBehind(key string, up, down func([]byte) []byte) fault {
	return fault{key: key, behind: &relay.Hooks{Conn: func(from, to net.Conn) { relay.Copy(from, to, up, down) }}}
}

// swap replaces text in bytes; both have one length, so that framing stays.
func swap(old, new string) func([]byte) []byte {
	return func(b []byte) []byte { return bytes.ReplaceAll(b, []byte(old), []byte(new)) }
}

// deaf accepts connections on a port and never says anything.
func deaf(key string, port int) fault {
	return fault{key: key, front: map[int]relay.Hooks{port: {Conn: func(from, _ net.Conn) { _, _ = io.Copy(io.Discard, from) }}}}
}

func setBody(response *http.Response, body string) {
	response.Body.Close()
	response.Body = io.NopCloser(bytes.NewReader([]byte(body)))
	response.ContentLength = int64(len(body))
	response.Header.Del("Content-Length")
}

func setHeader(header http.Header, name, value string) {
	if value == "" {
		header.Del(name)
		return
	}
	header.Set(name, value)
}

// neutral is a fault's relays without what breaks: with them nothing may differ. Below HTTP there is nothing to take away.
func (f *fault) neutral() *fault {
	var out fault
	for port, hooks := range f.front {
		if hooks.Conn != nil {
			return nil
		}
		if out.front == nil {
			out.front = map[int]relay.Hooks{}
		}
		out.front[port] = relay.Hooks{}
	}
	if f.behind != nil {
		if f.behind.Conn != nil {
			return nil
		}
		out.behind = &relay.Hooks{}
	}
	if out.front == nil && out.behind == nil {
		return nil
	}
	return &out
}
