package corpus

import (
	"bytes"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"zipline.internal/interop/protocols/upstream"
)

// exchange2 sends a case's frames over an h2c connection; the outcome's end is ended, reset, goaway, closed or open.
func exchange2(conn net.Conn, frames []frame, up *upstream.Upstream, expected func(Outcome) bool) Outcome {
	heard := &heard2{last: time.Now(), end: "open", framer: http2.NewFramer(conn, conn)}
	go func() {
		var block bytes.Buffer
		encoder := hpack.NewEncoder(&block)
		heard.locked(func() error {
			if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
				return err
			}
			if err := heard.framer.WriteSettings(); err != nil {
				return err
			}
			return write(heard.framer, encoder, &block, frames)
		})
		heard.listen()
	}()
	deadline := time.Now().Add(patience)
	for {
		outcome, at := heard.outcome()
		seen, last := up.Seen()
		outcome.Upstream = seen
		still := time.Since(at) > quiet && time.Since(last) > quiet
		if still && expected(outcome) || time.Now().After(deadline) {
			return outcome
		}
		time.Sleep(5 * time.Millisecond)
	}
}

type heard2 struct {
	writing sync.Mutex
	framer  *http2.Framer

	mu       sync.Mutex
	statuses []int
	echoes   []int
	end      string
	last     time.Time
}

func (h *heard2) locked(write func() error) {
	h.writing.Lock()
	defer h.writing.Unlock()
	// A peer that has closed says so when it is read.
	_ = write()
}

func (h *heard2) outcome() (Outcome, time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return Outcome{Statuses: append([]int(nil), h.statuses...), Echoes: append([]int(nil), h.echoes...), End: h.end}, h.last
}

// over notes how the stream ended, once.
func (h *heard2) over(how string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.end == "open" {
		h.end = how
	}
	h.last = time.Now()
}

func (h *heard2) listen() {
	h.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	for {
		received, err := h.framer.ReadFrame()
		if err != nil {
			h.over("closed")
			return
		}
		switch received := received.(type) {
		case *http2.SettingsFrame:
			if !received.IsAck() {
				h.locked(h.framer.WriteSettingsAck)
			}
		case *http2.MetaHeadersFrame:
			status, _ := strconv.Atoi(received.PseudoValue("status"))
			echo := -1
			for _, field := range received.RegularFields() {
				if field.Name == "x-echo" {
					echo, _ = strconv.Atoi(field.Value)
				}
			}
			h.mu.Lock()
			if status != 0 {
				h.statuses = append(h.statuses, status)
			}
			if status >= 200 {
				h.echoes = append(h.echoes, echo)
			}
			h.last = time.Now()
			h.mu.Unlock()
			if received.StreamEnded() {
				h.over("ended")
			}
		case *http2.DataFrame:
			if received.StreamEnded() {
				h.over("ended")
			}
		case *http2.RSTStreamFrame:
			h.over("reset")
		case *http2.GoAwayFrame:
			if received.ErrCode != http2.ErrCodeNo {
				h.over("goaway")
			}
		}
	}
}
