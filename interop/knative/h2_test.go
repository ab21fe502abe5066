package interop

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// upgradeToH2 asks for h2c as HTTP/1.1 does and reads the answer to the first request.
func upgradeToH2(r *run, method, body string) {
	c := r.connect(mainPort)
	var settings bytes.Buffer
	// One setting: an initial window of 65,535.
	settings.Write([]byte{0, 4, 0, 0, 0xff, 0xff})
	c.say(fmt.Sprintf("%s /upgraded HTTP/1.1\nHost: echo.example\nConnection: Upgrade, HTTP2-Settings\nUpgrade: h2c\n"+
		"HTTP2-Settings: %s\nContent-Length: %d\n\n%s", method, base64.RawURLEncoding.EncodeToString(settings.Bytes()), len(body), body))
	_ = c.SetReadDeadline(time.Now().Add(patience))
	response, err := http.ReadResponse(c.Reader, nil)
	if err != nil {
		r.Note("upgrade", "%v", err)
		return
	}
	r.Note("upgrade", "%s %s", response.Status, response.Header.Get("Upgrade"))
	if response.StatusCode != http.StatusSwitchingProtocols {
		return
	}
	_, err = io.WriteString(c.Conn, http2.ClientPreface)
	r.must(err)
	framer := http2.NewFramer(c.Conn, c.Reader)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	r.must(framer.WriteSettings())
	var data []byte
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			r.Note("frames", "%v", err)
			return
		}
		ended := false
		switch f := frame.(type) {
		case *http2.MetaHeadersFrame:
			r.Note("answer status", "%s", f.PseudoValue("status"))
			r.Note("answer stream", "%d", f.StreamID)
			ended = f.StreamEnded()
		case *http2.DataFrame:
			data = append(data, f.Data()...)
			ended = f.StreamEnded()
		case *http2.GoAwayFrame:
			r.Note("go away", "%v", f.ErrCode)
			return
		}
		if ended {
			r.Note("answer body", "%q", data)
			return
		}
	}
}

// serverSettings reads what an h2c server says of itself first.
func serverSettings(r *run) {
	c := r.connect(mainPort)
	_, err := io.WriteString(c.Conn, http2.ClientPreface)
	r.must(err)
	framer := http2.NewFramer(c.Conn, c.Reader)
	r.must(framer.WriteSettings())
	_ = c.SetReadDeadline(time.Now().Add(patience))
	frame, err := framer.ReadFrame()
	if err != nil {
		r.Note("settings", "%v", err)
		return
	}
	settings, isSettings := frame.(*http2.SettingsFrame)
	if !isSettings {
		r.Note("settings", "%v", frame)
		return
	}
	for _, id := range []http2.SettingID{
		http2.SettingMaxConcurrentStreams, http2.SettingEnableConnectProtocol,
	} {
		value, known := settings.Value(id)
		r.Note("setting "+id.String(), "%v %d", known, value)
	}
}
