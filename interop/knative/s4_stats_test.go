package interop

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"knative.dev/serving/pkg/autoscaler/metrics"

	"zipline.internal/interop/knative/internal/wire"
)

// report notes a stat message whose averages are near what they must be, not what they were to the last digit.
func (r *run) report(name string, stat *metrics.Stat) {
	near := func(value float64) string {
		rounded := float64(int(value*4+0.5)) / 4
		return fmt.Sprint(rounded)
	}
	r.Note(name+" pod", "%s", stat.PodName)
	r.Note(name+" concurrency", "%s", near(stat.AverageConcurrentRequests))
	r.Note(name+" proxied concurrency", "%s", near(stat.AverageProxiedConcurrentRequests))
	r.Note(name+" requests", "%s", near(stat.RequestCount))
	r.Note(name+" proxied requests", "%s", near(stat.ProxiedRequestCount))
	r.Note(name+" timestamp", "%d", stat.Timestamp)
}

// reported waits for a report of this kind, and returns the last one if none comes.
func (r *run) reported(condition func(*metrics.Stat) bool) *metrics.Stat {
	deadline := time.Now().Add(r.patience())
	for {
		stat, err := r.stat()
		r.must(err)
		if condition(stat) || time.Now().After(deadline) {
			if !condition(stat) {
				r.given = true
			}
			return stat
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// nextTick waits for the report after this moment.
func (r *run) nextTick() {
	before, err := r.stat()
	r.must(err)
	r.reported(func(stat *metrics.Stat) bool { return stat.ProcessUptime > before.ProcessUptime })
}

// requestsCounted sums the requests of all reports from a tick on until they have been counted.
func (r *run) requestsCounted(send func()) (requests, proxied int) {
	r.nextTick()
	last, err := r.stat()
	r.must(err)
	uptime := last.ProcessUptime
	send()
	quiet := 0
	// A right one is quiet after three ticks.
	for range 6 {
		if quiet == 2 {
			break
		}
		stat := r.reported(func(stat *metrics.Stat) bool { return stat.ProcessUptime > uptime })
		if stat.ProcessUptime == uptime {
			break
		}
		// Counts are per second; what they are per is the tick, which is near one.
		tick := stat.ProcessUptime - uptime
		if uptime == 0 || tick > 1.5 {
			// A report was missed, or there was none before.
			tick = 1
		}
		requests += int(stat.RequestCount*tick + 0.5)
		proxied += int(stat.ProxiedRequestCount*tick + 0.5)
		uptime = stat.ProcessUptime
		if stat.RequestCount == 0 {
			quiet++
		}
	}
	return requests, proxied
}

// rewrite changes the report on its way.
func rewrite(key string, change func(*metrics.Stat)) fault {
	return repliesOf(statsPort, key, func(response *http.Response) {
		reply := &wire.Reply{Response: response}
		reply.Finish()
		var stat metrics.Stat
		if stat.Unmarshal(reply.Body) != nil {
			return
		}
		change(&stat)
		body, _ := stat.Marshal()
		setBody(response, string(body))
	})
}

var stats = []*scenario{
	{
		id: "K4.1-01", title: "a report is 200 with exactly Knative's content type, whatever is accepted",
		run: func(r *run) {
			r.start()
			r.nextTick()
			for _, accept := range []string{"application/protobuf", "text/plain", ""} {
				request := wire.Request{Port: statsPort, Path: "/metrics"}
				if accept != "" {
					request.Header = []string{"Accept: " + accept}
				}
				reply := r.Do(request)
				r.Note("status", "%d", reply.Status())
				r.Note("type", "%s", reply.Response.Header.Get("Content-Type"))
				r.Note("short enough for the scraper", "%v", len(reply.Body) <= 336)
			}
		},
		broken: repliesOf(statsPort, "type", func(r *http.Response) { r.Header.Set("Content-Type", "application/x-protobuf") }),
	},
	{
		id: "K4.1-02", title: "before the first tick the report has the pod's name alone",
		run: func(r *run) {
			r.start()
			stat, err := r.stat()
			r.must(err)
			r.report("first", stat)
			r.Note("uptime", "%v", stat.ProcessUptime)
		},
		broken: rewrite("first pod", func(s *metrics.Stat) { s.PodName = "" }),
	},
	{
		id: "K4.2-01", title: "idle: every tick reports nothing but name and uptime", slow: true,
		run: func(r *run) {
			r.start()
			r.nextTick()
			stat, err := r.stat()
			r.must(err)
			r.report("idle", stat)
			r.Note("uptime", "%v", stat.ProcessUptime > 0)
			before := stat.ProcessUptime
			r.nextTick()
			stat, err = r.stat()
			r.must(err)
			r.Note("a tick is about a second", "%v", stat.ProcessUptime-before > 0.5 && stat.ProcessUptime-before < 1.9)
		},
		broken: rewrite("uptime", func(s *metrics.Stat) { s.ProcessUptime = 0 }),
	},
	{
		id: "K4.2-02", title: "concurrency is the average over the tick, waiting requests included", slow: true,
		run: func(r *run) {
			h := r.held()
			r.start("CONTAINER_CONCURRENCY=1")
			_, group := r.crowd(4)
			happens(r, "first runs", h.entered)
			r.report("four in flight", r.reported(func(s *metrics.Stat) bool { return s.AverageConcurrentRequests > 3.99 && s.RequestCount == 0 }))
			close(h.release)
			group.Wait()
			r.report("none in flight", r.reported(func(s *metrics.Stat) bool { return s.AverageConcurrentRequests == 0 }))
		},
		broken: rewrite("four in flight concurrency", func(s *metrics.Stat) { s.AverageConcurrentRequests = min(s.AverageConcurrentRequests, 1) }),
	},
	{
		id: "K4.2-03", title: "requests are counted as they arrive, once", slow: true,
		run: func(r *run) {
			r.function(ok)
			r.start()
			requests, proxied := r.requestsCounted(func() {
				for range 20 {
					r.Do(wire.Request{Port: mainPort})
				}
			})
			r.Note("requests", "%d", requests)
			r.Note("proxied", "%d", proxied)
		},
		broken: rewrite("requests", func(s *metrics.Stat) { s.RequestCount /= 2 }),
	},
	{
		id: "K4.2-04", title: "an open WebSocket is in flight", slow: true,
		run: func(r *run) {
			r.function(socket(r, "websocket"))
			r.start()
			c := r.connect(mainPort)
			c.say("GET /ws HTTP/1.1\nHost: echo\nConnection: Upgrade\nUpgrade: websocket\n\n")
			c.answer("upgrade", "GET")
			r.report("open", r.reported(func(s *metrics.Stat) bool { return s.AverageConcurrentRequests > 0.99 && s.RequestCount == 0 }))
			c.Conn.Close()
			r.report("closed", r.reported(func(s *metrics.Stat) bool { return s.AverageConcurrentRequests == 0 }))
		},
		broken: rewrite("open concurrency", func(s *metrics.Stat) { s.AverageConcurrentRequests = 0 }),
	},
	{
		id: "K4.2-05", title: "refused requests count as arrived", slow: true,
		run: func(r *run) {
			h := r.held()
			r.start("CONTAINER_CONCURRENCY=1")
			_, group := r.crowd(11)
			happens(r, "first runs", h.entered)
			r.within("all admitted", func() bool { return admitted(r) >= 11 })
			requests, _ := r.requestsCounted(func() {
				for range 8 {
					r.Do(wire.Request{Port: mainPort})
				}
			})
			r.Note("refused requests", "%d", requests)
			close(h.release)
			group.Wait()
		},
		broken: rewrite("refused requests", func(s *metrics.Stat) { s.RequestCount = 0 }),
	},
	{
		id: "K4.2-06", title: "probes do not count", slow: true,
		run: func(r *run) {
			r.function(ok)
			r.start()
			requests, _ := r.requestsCounted(func() {
				for range 10 {
					r.Do(wire.Request{Port: mainPort, Header: []string{"User-Agent: kube-probe/1", "K-Network-Probe: queue"}})
					r.Do(wire.Request{Port: mainPort, Header: []string{"K-Network-Probe: probe", "K-Network-Hash: 1"}})
					r.Do(wire.Request{Port: mainPort, Header: []string{"K-Kubelet-Probe: 1"}})
				}
			})
			r.Note("requests", "%d", requests)
		},
		broken: rewrite("requests", func(s *metrics.Stat) { s.RequestCount = 3 }),
	},
	{
		id: "K4.3-01", title: "what came through the activator is counted as such, too", slow: true,
		run: func(r *run) {
			h := r.held()
			r.start()
			var group sync.WaitGroup
			r.Transport(mainPort, false)
			for i := range 3 {
				request := wire.Request{Port: mainPort}
				if i > 0 {
					request.Header = []string{"K-Proxy-Request: activator"}
				}
				group.Go(func() { r.Do(request) })
			}
			for range 3 {
				happens(r, "runs", h.entered)
			}
			r.report("three in flight", r.reported(func(s *metrics.Stat) bool { return s.AverageConcurrentRequests > 2.99 && s.RequestCount == 0 }))
			close(h.release)
			group.Wait()
			requests, proxied := r.requestsCounted(func() {
				for i := range 10 {
					value := []string{"activator", "other"}[i%2]
					r.Do(wire.Request{Port: mainPort, Header: []string{"K-Proxy-Request: " + value}})
				}
			})
			r.Note("requests", "%d, proxied %d", requests, proxied)
		},
		broken: rewrite("proxied concurrency", func(s *metrics.Stat) { s.AverageProxiedConcurrentRequests = 0 }),
	},
	{
		id: "K4.4-01", title: "half a tick in flight is about half in the average", slow: true,
		run: func(r *run) {
			r.function(func(w http.ResponseWriter, request *http.Request) {
				time.Sleep(500 * time.Millisecond)
				ok(w, request)
			})
			r.start()
			r.nextTick()
			sum := 0.0
			r.Do(wire.Request{Port: mainPort})
			last, err := r.stat()
			r.must(err)
			sum += last.AverageConcurrentRequests
			for range 2 {
				next := r.reported(func(s *metrics.Stat) bool { return s.ProcessUptime > last.ProcessUptime })
				sum += next.AverageConcurrentRequests
				last = next
			}
			r.Note("concurrency", "about a half: %v", sum > 0.35 && sum < 0.8)
		},
		broken: rewrite("concurrency", func(s *metrics.Stat) { s.AverageConcurrentRequests *= 3 }),
	},
	{
		id: "K4.5-01", title: "the autoscaler gets its message, and it is the one of the right pod", slow: true,
		run: func(r *run) {
			r.start("SERVING_POD=" + strings.Repeat("p", 63))
			r.nextTick()
			stat, err := r.stat()
			r.must(err)
			r.report("stat", stat)
		},
		broken: settings("stat pod", "SERVING_POD", "other"),
	},
}
