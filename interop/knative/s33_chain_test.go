package interop

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"

	"zipline.internal/interop/knative/internal/wire"
)

// forwarded asks with these headers and shows what the function got.
func forwarded(lines ...string) func(*run) {
	return func(r *run) {
		r.function(r.echo)
		r.start()
		r.do("reply", wire.Request{Header: lines})
	}
}

var brokenForwarded = passes("header Forwarded", func(r *http.Request) {
	if r.Header.Get("Forwarded") == "" {
		r.Header.Set("Forwarded", "for=unknown")
		return
	}
	r.Header.Del("Forwarded")
})

// held is a function whose calls wait until they are let go, one by one or all.
type held struct {
	entered chan string
	release chan struct{}
}

func (r *run) held() *held {
	h := &held{entered: make(chan string, 64), release: make(chan struct{})}
	r.function(func(w http.ResponseWriter, request *http.Request) {
		h.entered <- request.URL.Path
		select {
		case <-h.release:
			ok(w, request)
		case <-request.Context().Done():
		}
	})
	return h
}

// crowd sends so many requests at once, each on a connection of its own, and returns their answers as they come.
func (r *run) crowd(n int) (answers chan *wire.Reply, group *sync.WaitGroup) {
	answers, group = make(chan *wire.Reply, n), &sync.WaitGroup{}
	r.Transport(mainPort, false)
	for range n {
		group.Go(func() { answers <- r.Do(wire.Request{Port: mainPort, Path: "/crowd"}) })
	}
	return answers, group
}

// breaker is a crowd before a function that takes so many at a time.
func breaker(concurrency, crowd int) func(*run) {
	return func(r *run) {
		h := r.held()
		r.start(fmt.Sprintf("CONTAINER_CONCURRENCY=%d", concurrency))
		answers, group := r.crowd(crowd)
		for range concurrency {
			happens(r, "function runs", h.entered)
		}
		// Those beyond eleven times the concurrency are refused while nothing has ended.
		refused := crowd - 11*concurrency
		for range refused {
			(<-answers).Note(r.Observation, "refused")
		}
		r.Note("running", "%d more", len(h.entered))
		close(h.release)
		group.Wait()
		close(answers)
		statuses := map[int]int{}
		for reply := range answers {
			statuses[reply.Status()]++
		}
		r.Note("the others", "%v", statuses)
	}
}

var chain = []*scenario{
	{id: "K3.3-01", title: "Forwarded from X-Forwarded-For alone", run: forwarded("X-Forwarded-For: 10.1.1.1"), broken: brokenForwarded},
	{id: "K3.3-02", title: "Forwarded from for, host and proto, IPv6 quoted",
		run:    forwarded("X-Forwarded-For: 127.0.0.1, ::1", "X-Forwarded-Host: h", "X-Forwarded-Proto: p"),
		broken: brokenForwarded},
	{id: "K3.3-03", title: "Forwarded from host and proto alone",
		run: forwarded("X-Forwarded-Host: h", "X-Forwarded-Proto: https"), broken: brokenForwarded},
	{id: "K3.3-04", title: "Forwarded from proto alone", run: forwarded("X-Forwarded-Proto: https"), broken: brokenForwarded},
	{id: "K3.3-05", title: "Forwarded from empty entries", run: forwarded("X-Forwarded-For: ,,,"), broken: brokenForwarded},
	{id: "K3.3-06", title: "entries are trimmed, ports quoted", run: forwarded("X-Forwarded-For:  1.2.3.4:99 ,b "), broken: brokenForwarded},
	{id: "K3.3-07", title: "a Forwarded that is there stays",
		run: forwarded("Forwarded: for=1;by=2", "X-Forwarded-For: 9.9.9.9"), broken: brokenForwarded},
	{id: "K3.3-08", title: "without any there is none", run: forwarded("X-Other: 1"), broken: brokenForwarded},
	{id: "K3.3-09", title: "two X-Forwarded-For headers", run: forwarded("X-Forwarded-For: 1.1.1.1", "X-Forwarded-For: 2.2.2.2"), broken: brokenForwarded},
	{
		id: "K3.4.1-01", title: "K-Original-Host becomes the host and goes",
		run: func(r *run) {
			r.function(r.echo)
			r.start()
			r.do("http1", wire.Request{Host: "10.0.0.7:8012", Header: []string{"K-Original-Host: echo.default.example.com"}})
			r.do("h2c", wire.Request{H2: true, Host: "10.0.0.7:8012", Header: []string{"K-Original-Host: echo.default.example.com"}})
			r.do("empty", wire.Request{Host: "as.it.is", Header: []string{"K-Original-Host:"}})
			r.do("odd", wire.Request{Host: "x", Header: []string{"K-Original-Host: Any_Thing:99"}})
		},
		broken: passes("got host", func(r *http.Request) { r.Host = "10.0.0.7:8012" }),
	},
	{id: "K3.4.2-01", title: "concurrency 1: eleven are admitted, the twelfth is 503", run: breaker(1, 12),
		broken: settings("refused", "CONTAINER_CONCURRENCY", "2")},
	{id: "K3.4.2-02", title: "concurrency 3: three run, thirty wait, the rest is 503", run: breaker(3, 36),
		broken: settings("function runs", "CONTAINER_CONCURRENCY", "2")},
	{id: "K3.4.2-03", title: "the refusal's text", run: breaker(1, 12), broken: text("refused body", "queue full\n")},
	{
		id: "K3.4.3-01", title: "a waiting caller that goes makes room and is not run",
		run: func(r *run) {
			h := r.held()
			r.start("CONTAINER_CONCURRENCY=1")
			_, group := r.crowd(1)
			happens(r, "first runs", h.entered)
			ctx, cancel := context.WithCancel(context.Background())
			var waiting sync.WaitGroup
			for range 10 {
				waiting.Go(func() { r.Open(ctx, wire.Request{Port: mainPort, Path: "/gone"}) })
			}
			r.within("all admitted", func() bool { return admitted(r) >= 11 })
			r.do("one too many", wire.Request{Path: "/many"})
			cancel()
			waiting.Wait()
			r.within("they have gone", func() bool { return admitted(r) <= 1 })
			answers, group2 := r.crowd(10)
			h.release <- struct{}{}
			for range 10 {
				happens(r, "next runs", h.entered)
				h.release <- struct{}{}
			}
			group.Wait()
			group2.Wait()
			for range 10 {
				r.Note("next", "%d", (<-answers).Status())
			}
		},
		broken: text("one too many body", "busy"),
	},
	{
		id: "K3.4.4-01", title: "concurrency 0 admits any number",
		run: func(r *run) {
			h := r.held()
			r.start()
			answers, group := r.crowd(40)
			for range 40 {
				happens(r, "runs", h.entered)
			}
			close(h.release)
			group.Wait()
			for range 40 {
				r.Note("answer", "%d", (<-answers).Status())
			}
		},
		broken: settings("runs", "CONTAINER_CONCURRENCY", "3"),
	},
	{
		id: "K3.4.5-01", title: "a slot is held until the last byte of the answer",
		run: func(r *run) {
			release, running := make(chan struct{}), make(chan struct{}, 8)
			r.function(func(w http.ResponseWriter, request *http.Request) {
				running <- struct{}{}
				_, _ = io.WriteString(w, "first")
				_ = http.NewResponseController(w).Flush()
				if request.URL.Path == "/long" {
					<-release
				}
			})
			r.start("CONTAINER_CONCURRENCY=1")
			ctx, cancel := contextWithPatience()
			defer cancel()
			long := r.Open(ctx, wire.Request{Port: mainPort, Path: "/long"})
			r.Note("long", "%d", long.Status())
			<-running
			next := make(chan *wire.Reply, 1)
			go func() { next <- r.Do(wire.Request{Port: mainPort, Path: "/next"}) }()
			r.within("next admitted", func() bool { return admitted(r) >= 2 })
			r.Note("next runs too", "%d", len(running))
			close(release)
			long.Finish()
			long.Note(r.Observation, "long")
			(<-next).Note(r.Observation, "next")
		},
		broken: settings("next runs too", "CONTAINER_CONCURRENCY", "2"),
	},
	{
		id: "K3.4.5-02", title: "a WebSocket holds its slot until it ends",
		run: func(r *run) {
			running := make(chan struct{}, 8)
			r.function(func(w http.ResponseWriter, request *http.Request) {
				running <- struct{}{}
				if request.Header.Get("Upgrade") == "" {
					ok(w, request)
					return
				}
				socket(r, "websocket")(w, request)
			})
			r.start("CONTAINER_CONCURRENCY=1")
			c := r.connect(mainPort)
			c.say("GET /ws HTTP/1.1\nHost: echo\nConnection: Upgrade\nUpgrade: websocket\n\n")
			c.answer("upgrade", "GET")
			<-running
			next := make(chan *wire.Reply, 1)
			go func() { next <- r.Do(wire.Request{Port: mainPort, Path: "/next"}) }()
			r.within("next admitted", func() bool { return admitted(r) >= 2 })
			r.Note("next runs too", "%d", len(running))
			c.Conn.Close()
			(<-next).Note(r.Observation, "next")
		},
		broken: settings("next runs too", "CONTAINER_CONCURRENCY", "2"),
	},
}
