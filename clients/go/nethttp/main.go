// Posts 1 MB by net/http with its default client and checks the SHA-256 that comes back.
package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

func main() {
	body := make([]byte, 1_000_000)
	rand.Read(body)
	sum := sha256.Sum256(body)

	answer, err := http.Post(os.Args[1], "application/octet-stream", bytes.NewReader(body))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	right := err == nil && strings.TrimSpace(string(text)) == hex.EncodeToString(sum[:])
	fmt.Printf("{\"status\": %d, \"right\": %t}\n", answer.StatusCode, right)
	if !right {
		os.Exit(1)
	}
}
