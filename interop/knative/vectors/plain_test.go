package vectors

import (
	"encoding/hex"
	"fmt"
	"math"
	"math/rand"
	"strconv"
	"text/template"
	"unicode"
)

// An answer to a text; OK is false where Go refuses it.
type answer struct {
	Text  string
	OK    bool
	Value string
}

func ints() []answer {
	texts := []string{
		"", "0", "-0", "+0", "00", "007", "08", "0_7", "1", "-1", "+1", "10", "1_000", "1__0", "_1", "1_", "0x", "0x1F",
		"0X1f", "0x_1", "0x1_", "0b101", "0B1", "0b2", "0o17", "0O17", "0o8", "-0x10", "+0b11", " 1", "1 ", "1.0", "1e3", "ten",
		"9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809", "0xffffffffffffffff",
		"--1", "+-1", "0xg", "٣", "1\x00", "0_", "0__1", "0_x1",
	}
	random := rand.New(rand.NewSource(1))
	for range 150 {
		text := make([]byte, random.Intn(6))
		for at := range text {
			text[at] = "0123789xXoObB_+-aF"[random.Intn(18)]
		}
		texts = append(texts, string(text))
	}
	var answers []answer
	for _, text := range texts {
		value, err := strconv.ParseInt(text, 0, 64)
		answers = append(answers, answer{text, err == nil, strconv.FormatInt(value, 10)})
	}
	return answers
}

func bools() []answer {
	var answers []answer
	for _, text := range []string{"1", "t", "T", "true", "TRUE", "True", "0", "f", "F", "false", "FALSE", "False", "", "tRUE", "yes", "on", "2", " 1"} {
		value, err := strconv.ParseBool(text)
		answers = append(answers, answer{text, err == nil, strconv.FormatBool(value)})
	}
	return answers
}

type float struct {
	Bits string
	Text string
}

func floats() []float {
	values := []float64{
		0, math.Copysign(0, -1), 1, -1, 0.1, 0.0015, 1.5e-4, 1e-4, 9.999e-5, 1.234e-5, 1e-6, 123456789, 1e20, 1e21, 1.5e300,
		5e-324, math.MaxFloat64, math.Inf(1), math.Inf(-1), math.NaN(), 1.0 / 3, 0.30000000000000004, 299.999999999,
	}
	random := rand.New(rand.NewSource(2))
	for range 120 {
		values = append(values, random.Float64()*math.Pow(10, float64(random.Intn(40)-15)))
	}
	for range 100 {
		// Seconds of a latency of so many nanoseconds.
		values = append(values, float64(random.Int63n(400_000_000_000))/1e9)
	}
	var out []float
	for _, value := range values {
		out = append(out, float{fmt.Sprintf("%016x", math.Float64bits(value)), fmt.Sprint(value)})
	}
	return out
}

// A text in hex with what Go makes of it, in hex.
type text struct {
	Text  string
	Quote string
	JS    string
	HTML  string
	Query string
}

func quotes() []text {
	texts := [][]byte{nil, []byte("plain"), []byte("\"\\'<>&=`"), {0, 1, 9, 10, 13, 27, 31, 127}, {0xff, 'a', 0xc3}, {0xed, 0xa0, 0x80}}
	all := make([]byte, 128)
	for at := range all {
		all[at] = byte(at)
	}
	texts = append(texts, all)
	// Characters of old blocks only: newer ones depend on the Unicode version of the toolchain.
	var old []rune
	for _, block := range [][2]rune{{0x80, 0x36f}, {0x370, 0x3ff}, {0x2000, 0x206f}, {0x20a0, 0x20ac}, {0x3000, 0x303f}, {0xe000, 0xe003}, {0xfe00, 0xfe0f}, {0xfef0, 0xffff}, {0x1f600, 0x1f64f}, {0xe0100, 0xe01ef}, {0xffff0, 0xfffff}, {0x10fffe, 0x10ffff}} {
		for character := block[0]; character <= block[1]; character++ {
			if unicode.In(character, unicode.L, unicode.M, unicode.N, unicode.P, unicode.S, unicode.Z, unicode.C) {
				old = append(old, character)
			}
		}
	}
	for begin := 0; begin < len(old); begin += 64 {
		texts = append(texts, []byte(string(old[begin:min(begin+64, len(old))])))
	}
	random := rand.New(rand.NewSource(3))
	for range 50 {
		bytes := make([]byte, random.Intn(24))
		random.Read(bytes)
		texts = append(texts, bytes)
	}
	var out []text
	for _, bytes := range texts {
		given := string(bytes)
		encode := func(made string) string { return hex.EncodeToString([]byte(made)) }
		out = append(out, text{
			encode(given), encode(strconv.Quote(given)), encode(template.JSEscapeString(given)),
			encode(template.HTMLEscapeString(given)), encode(template.URLQueryEscaper(given)),
		})
	}
	return out
}
