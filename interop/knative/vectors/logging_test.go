package vectors

import (
	"encoding/hex"
	"encoding/json"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/blendle/zapdriver"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	pkglogging "knative.dev/pkg/logging"
	"knative.dev/pkg/logging/logkey"
)

type logged struct {
	Config string
	Level  string
	Result string
	Line   string
}

func loggings() []logged {
	directory, err := os.MkdirTemp("", "vectors")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(directory)
	var out []logged
	for _, config := range []string{
		``, `{`, `{}`, `{"level":"error"}`, `{"level":"WARNING"}`, `{"level":"loud"}`, `{"encoding":"xml"}`, `{"level":3}`,
		`{"encoderConfig":{"timeKey":"","levelKey":"l","messageKey":"m","nameKey":"n","callerKey":"","levelEncoder":""},"initialFields":{"b":1,"a":"x"}}`,
		`{"encoderConfig":{"timeKey":"","levelEncoder":"capital","callerKey":""}}`, `{"encoderConfig":{"timeKey":"","levelEncoder":"color","callerKey":""},"outputPaths":null}`,
	} {
		for _, level := range []string{"", "debug", "Info", "warn", "loud", "dpanic"} {
			path := filepath.Join(directory, "log")
			to := config
			if strings.HasPrefix(config, `{"encoderConfig"`) {
				to = `{"outputPaths":["` + path + `"],` + config[1:]
				to = strings.Replace(to, `,"outputPaths":null`, "", 1)
			}
			logger, result := pkglogging.NewLogger(to, level)
			line := ""
			if to != config {
				logger.Named("queueproxy").Errorw("text \"q\"")
				logger.Sync()
				written, _ := os.ReadFile(path)
				lines := strings.Split(strings.TrimSpace(string(written)), "\n")
				var members map[string]json.RawMessage
				if json.Unmarshal([]byte(lines[len(lines)-1]), &members) == nil {
					delete(members, "stacktrace")
					sorted, _ := json.Marshal(members)
					line = string(sorted)
				}
				os.Remove(path)
			}
			out = append(out, logged{config, level, result.Level().String(), line})
		}
	}
	return out
}

// One line of the log, in hex, as the encoder that a configuration describes writes it.
type line struct {
	Config      string
	Level       string
	Nanoseconds int64
	Message     string
	Line        string
}

func lines(t *testing.T) []line {
	context := []zapcore.Field{zap.String(logkey.Key, "ns/rev"), zap.String(logkey.Pod, "pod")}
	fields := []zapcore.Field{zap.String("text", "a\"b"), zap.Int("int", -3), zap.Float64("float", 1234567.5), zap.Bool("bool", true), zap.Float64("nan", math.NaN())}
	var out []line
	for _, config := range []string{
		"", `{"encoderConfig":{"timeEncoder":"iso8601","levelEncoder":""}}`, `{"encoderConfig":{"timeEncoder":"rfc3339"}}`, `{"encoderConfig":{"timeEncoder":"millis"}}`,
		`{"encoderConfig":{"timeEncoder":"nanos"}}`, `{"encoderConfig":{"timeEncoder":"epoch","levelEncoder":"capital"}}`, `{"encoding":"console"}`,
		`{"encoding":"console","encoderConfig":{"timeEncoder":"","levelEncoder":""}}`, `{"encoderConfig":{"timeKey":"","levelKey":"","nameKey":"","messageKey":"m"}}`,
		`{"encoding":"console","encoderConfig":{"timeKey":"","levelKey":"","nameKey":"","messageKey":""}}`, `{"encoderConfig":{"timeKey":"","messageKey":"","levelKey":"l"},"initialFields":{"z":[1,{"a":"\u003c"}],"a":"x"}}`,
	} {
		settings := zapdriver.NewProductionConfig()
		if config != "" {
			if err := json.Unmarshal([]byte(config), &settings); err != nil {
				t.Fatal(err)
			}
		}
		var initial []zapcore.Field
		for _, name := range slices.Sorted(maps.Keys(settings.InitialFields)) {
			initial = append(initial, zap.Any(name, settings.InitialFields[name]))
		}
		encoder := zapcore.NewJSONEncoder(settings.EncoderConfig)
		if settings.Encoding == "console" {
			encoder = zapcore.NewConsoleEncoder(settings.EncoderConfig)
		}
		for at, nanoseconds := range []int64{1, 1_785_000_000_123_456_789, 951_782_400_000_000_000, 951_868_799_999_000_000, 4_102_444_800_500_000_000} {
			level := []zapcore.Level{zapcore.InfoLevel, zapcore.WarnLevel, zapcore.ErrorLevel, zapcore.DPanicLevel, zapcore.FatalLevel}[at]
			message := []string{"plain", "quoted \"\\\n\r\t\x01\x7f\b é \u2028 <&>", "", "a b", "c"}[at]
			entry := zapcore.Entry{Level: level, Time: time.Unix(0, nanoseconds).UTC(), LoggerName: "queueproxy", Message: message}
			with := encoder.Clone()
			for _, field := range append(initial, context...) {
				field.AddTo(with)
			}
			written, err := with.EncodeEntry(entry, fields)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, line{config, level.String(), nanoseconds, message, hex.EncodeToString(written.Bytes())})
		}
	}
	return out
}
