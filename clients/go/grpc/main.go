// Sends one 8 MB message by grpc-go and checks the answer and the trailers.
//
// grpc-go looks at HTTPS_PROXY only, whatever the transport. With -proxy the line that helps is executed.
package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func main() {
	proxy := flag.Bool("proxy", false, "use http_proxy")
	flag.Parse()
	if *proxy {
		os.Setenv("HTTPS_PROXY", os.Getenv("http_proxy"))
	}
	if err := run(flag.Arg(0)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(target string) error {
	body := make([]byte, 8_000_000)
	rand.Read(body)
	sum := sha256.Sum256(body)

	connection, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()

	var answer wrapperspb.StringValue
	var trailers metadata.MD
	err = connection.Invoke(ctx, "/zipline.clients.Sums/Sum", wrapperspb.Bytes(body), &answer, grpc.Trailer(&trailers))
	if err != nil {
		return err
	}
	length := trailers.Get("length")
	if answer.Value != hex.EncodeToString(sum[:]) || len(length) != 1 || length[0] != strconv.Itoa(len(body)) {
		return fmt.Errorf("wrong answer %q, trailers %v", answer.Value, trailers)
	}
	fmt.Println(`{"status": "OK", "right": true}`)
	return nil
}
